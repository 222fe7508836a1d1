"""Simulate on private copies of the env in worker processes: any cloneable env, several cores.

Workers are fresh interpreters talked to over pipes. They neither fork a process that holds threads
nor import the main script again, so notebooks and unguarded scripts work. Samples are split by
index and workers draw no random numbers: results are the same at any number of workers.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any

import numpy as np

from mppi_agent.cloning import Cloneable, pack
from mppi_agent.dynamics.env_step import EnvStepDynamics
from mppi_agent.dynamics.process_channel import Channel, shared_file
from mppi_agent.dynamics.process_simulations import ProcessPoolSimulations
from mppi_agent.dynamics.rollout import join_batches, reshape_batch, validate_rollout
from mppi_agent.interfaces import EnvState, RolloutBatch

__all__ = ["ProcessPoolDynamics", "ProcessPoolSimulations"]

_BOOT = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:], ids = json.loads(sys.argv[1]); "
    "from mppi_agent.dynamics.process_worker import main; main(*ids)"
)
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
_EXIT_S = 1.0
_LIFE_CHECK_S = 0.5


class ProcessPoolDynamics:
    """Simulate an env by its own `step` in persistent worker processes.

    Use it as a context manager, or call `close`. Work lost with a dead worker is done again by a
    replacement, once; an env that ends its process each time gives an error.
    """

    def __init__(self, cloneable: Cloneable, num_workers: int = 2) -> None:
        """Start the workers; each gets an exact private copy, edits of the model included.

        Args:
            cloneable: The env to simulate; only read.
            num_workers: Processes, >= 1.

        Raises:
            ValueError: If `num_workers` < 1.
            NotCloneableError: If the env cannot be sent to another process.
            RuntimeError: If a worker does not start.
        """
        if num_workers < 1:
            raise ValueError(f"num_workers must be >= 1, got {num_workers}")
        spec = cloneable.unwrapped.spec
        self._env_name = spec.id if spec is not None else type(cloneable.unwrapped).__name__
        self._local = EnvStepDynamics(cloneable)
        self.observation_space = self._local.observation_space
        self.action_space = self._local.action_space
        self.max_episode_steps = self._local.max_episode_steps
        self._packed = pack(cloneable)
        self._workers = [_WorkerProcess() for _ in range(num_workers)]
        self._finalizer = weakref.finalize(self, _stop_all, self._workers)
        self._num_sets = 0
        try:
            self._start(list(range(num_workers)))
        except BaseException:
            self.close()
            raise

    @property
    def num_workers(self) -> int:
        """Number of worker processes."""
        return len(self._workers)

    def __enter__(self) -> ProcessPoolDynamics:
        """Return the pool itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the workers."""
        self.close()

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution, made in this process."""
        self._check_open()
        return self._local.initial_states(num, rng)

    def simulations(self, num: int) -> ProcessPoolSimulations:
        """Return `num` simulations that live in the workers."""
        self._check_open()
        self._num_sets += 1
        return ProcessPoolSimulations(self, self._num_sets, num)

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out open loop: one message to each worker, one back; see `Dynamics.rollout`."""
        self._check_open()
        actions = validate_rollout(states, actions, self.action_space)
        shape = actions.shape[:2]
        owners = np.repeat(np.arange(shape[0]), shape[1])
        flat = actions.reshape(-1, *actions.shape[2:])  # (S * K, H, *action)
        requests: dict[int, tuple[Any, ...]] = {}
        for worker, part in enumerate(np.array_split(np.arange(len(flat)), self.num_workers)):
            if part.size:
                first, last = owners[part[0]], owners[part[-1]]
                needed = list(states[first : last + 1])
                arguments = (needed, owners[part] - first, flat[part], keep_observations)
                requests[worker] = ("rollout", arguments)
        replies = self.ask(requests)
        return reshape_batch(join_batches([replies[worker] for worker in sorted(replies)]), shape)

    def close(self) -> None:
        """Stop the workers; the pool cannot be used afterwards."""
        self._finalizer()

    def ask(
        self,
        requests: dict[int, tuple[Any, ...]],
        prepare: Callable[[Sequence[int]], None] | None = None,
    ) -> dict[int, Any]:
        """Send one request to each of some workers and gather the answers.

        Args:
            requests: (method of the worker, arguments) by worker.
            prepare: Called with the workers that are about to be asked, replacements included; may
                ask them to get ready.

        Returns:
            Answers by worker.

        Raises:
            RuntimeError: If the pool is closed, a worker reports an error, or one dies twice.
        """
        replies: dict[int, Any] = {}
        for _ in range(2):
            missing = [worker for worker in requests if worker not in replies]
            if prepare is not None and missing:
                prepare(missing)
            replies.update(self._exchange({worker: requests[worker] for worker in missing}))
        num_dead = len(requests) - len(replies)
        if num_dead:
            raise RuntimeError(
                f"{num_dead} of {self.num_workers} rollout workers died twice on the same work; "
                f"{self._env_name} ends its process, or memory ran out"
            )
        return replies

    def generation(self, worker: int) -> int:
        """Return how many times this worker has been started; 0 while it is down."""
        process = self._workers[worker]
        return process.generation if process.running else 0

    def _exchange(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Ask once; leave out workers that died on the way, which are replaced already."""
        self._check_open()
        try:
            self._start(worker for worker in requests if not self._workers[worker].running)
            sent = [w for w, request in requests.items() if self._workers[w].send(request)]
            replies = {w: reply for w in sent if (reply := self._workers[w].receive()) is not None}
            dead = [worker for worker in requests if worker not in replies]
            for worker in dead:
                self._workers[worker].stop()
            self._start(dead)
        except BaseException:  # Ctrl-C too: replies under way would be taken for later ones
            for worker in requests:
                self._workers[worker].stop()
            raise
        for status, value in replies.values():
            if status == "error":
                raise RuntimeError(f"{self._env_name} failed in a rollout worker:\n{value}")
        return {worker: value for worker, (_, value) in replies.items()}

    def _start(self, workers: Iterable[int]) -> None:
        started = list(workers)
        for worker in started:
            self._workers[worker].start()
            self._workers[worker].send(("start", (self._packed,)))
        for worker in started:
            reply = self._workers[worker].receive()
            if reply is None or reply[0] != "ok":
                self._workers[worker].stop()
                why = reply[1] if reply else "it died at start; see its output above"
                raise RuntimeError(f"a rollout worker of {self._env_name} does not start: {why}")

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("this ProcessPoolDynamics is closed; make a new one")


class _WorkerProcess:
    """One worker process and the channel to it; may be started again."""

    def __init__(self) -> None:
        self.generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        path = [entry for entry in sys.path if isinstance(entry, str)]
        requests, replies = shared_file(), shared_file()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps([path, [os.getpid(), requests, replies]])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(requests, replies),
            env={**os.environ, **_ONE_THREAD},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._channel = Channel(self._process.stdout, self._process.stdin, replies, requests)
        self.generation += 1

    def send(self, message: Any) -> bool:
        """Send a message; False if the worker is dead."""
        assert self._channel is not None
        try:
            self._channel.send(message)
        except BrokenPipeError:
            return False
        return True

    def receive(self) -> tuple[str, Any] | None:
        """Wait for a reply; None if the worker died."""
        assert self._process is not None and self._channel is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        # A process that the env left behind may keep the pipe open: its end alone says nothing.
        while not wait([pipe], _LIFE_CHECK_S):
            if self._process.poll() is not None and not wait([pipe], 0):
                return None
        try:
            return self._channel.receive()
        except (EOFError, pickle.UnpicklingError):
            return None

    def stop(self, patience_s: float = 0.0) -> None:
        """End the process: kindly within `patience_s`, then by force."""
        process, self._process = self._process, None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        if process is None:
            return
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stop_all(workers: list[_WorkerProcess]) -> None:
    for worker in workers:
        worker.stop(_EXIT_S)
