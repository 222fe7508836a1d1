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
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from mppi_agent.cloning import Cloneable, pack
from mppi_agent.dynamics.env_step import EnvStepDynamics
from mppi_agent.dynamics.observations import empty_observations, write_rows
from mppi_agent.dynamics.rollout import (
    join_batches,
    reshape_batch,
    validate_actions,
    validate_rollout,
)
from mppi_agent.interfaces import EnvState, RolloutBatch, StepBatch

__all__ = ["ProcessPoolDynamics", "ProcessPoolSimulations"]

_BOOT = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from mppi_agent.dynamics.process_worker import main; main()"
)
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
_EXIT_S = 1.0


class ProcessPoolDynamics:
    """Simulate an env by its own `step` in persistent worker processes.

    Use it as a context manager, or call `close`. Work lost with a dead worker is done again by a
    replacement; simulations that lived in it must be restored, and say so.
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

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers."""
        return [worker.pid for worker in self._workers]

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
        replies, dead = self.exchange(requests)
        if dead:
            again, still_dead = self.exchange({worker: requests[worker] for worker in dead})
            if still_dead:
                raise RuntimeError(
                    f"{len(still_dead)} of {self.num_workers} rollout workers died twice on the "
                    "same work; the env crashes its process, or memory ran out"
                )
            replies.update(again)
        return reshape_batch(join_batches([replies[worker] for worker in sorted(replies)]), shape)

    def close(self) -> None:
        """Stop the workers; the pool cannot be used afterwards."""
        self._finalizer()

    def exchange(self, requests: dict[int, tuple[Any, ...]]) -> tuple[dict[int, Any], list[int]]:
        """Send one request to each of some workers and gather the replies.

        Returns:
            Replies by worker, and the workers that died on the way; those are replaced already.

        Raises:
            RuntimeError: If the pool is closed, or a worker reports an error.
        """
        self._check_open()
        messages = {worker: cloudpickle.dumps(request) for worker, request in requests.items()}
        try:
            self._start([worker for worker in messages if not self._workers[worker].running])
            sent = [w for w, message in messages.items() if self._workers[w].send(message)]
            replies = {w: reply for w in sent if (reply := self._workers[w].receive()) is not None}
            dead = [worker for worker in messages if worker not in replies]
            for worker in dead:
                self._workers[worker].stop()
            self._start(dead)
        except BaseException:  # Ctrl-C too: replies under way would be taken for later ones
            for worker in messages:
                self._workers[worker].stop()
            raise
        for status, value in replies.values():
            if status == "error":
                raise RuntimeError(f"the env failed in a rollout worker:\n{value}")
        return {worker: value for worker, (_, value) in replies.items()}, dead

    def generation(self, worker: int) -> int:
        """Return how many times this worker has been started; 0 while it is down."""
        process = self._workers[worker]
        return process.generation if process.running else 0

    def _start(self, workers: list[int]) -> None:
        for worker in workers:
            self._workers[worker].start(cloudpickle.dumps(("start", (self._packed,))))
        for worker in workers:
            reply = self._workers[worker].receive()
            if reply is None or reply[0] != "ok":
                self._workers[worker].stop()
                why = reply[1] if reply else "it died at start; see its output above"
                raise RuntimeError(f"rollout worker {worker} does not start: {why}")

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("this ProcessPoolDynamics is closed; make a new one")


class ProcessPoolSimulations:
    """Step N simulations that live in the workers of a pool."""

    def __init__(self, pool: ProcessPoolDynamics, key: int, num: int) -> None:
        """Split `num` simulations over the workers of `pool`, under a name `key` of their own."""
        self.num = num
        self._pool, self._key = pool, key
        # Worker w holds the simulations bounds[w] <= i < bounds[w + 1].
        self._bounds = np.linspace(0, num, pool.num_workers + 1).astype(int)
        self._generations = [-1] * pool.num_workers
        self._is_closed = False

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        chosen = self._resolve(indices)
        if len(states) != len(chosen):
            raise ValueError(f"{len(chosen)} simulations need as many states, got {len(states)}")
        parts = self._split(chosen)
        for _ in range(2):
            self._open(list(parts))
            requests = {
                worker: ("restore", (self._key, [states[i] for i in places], local))
                for worker, (places, local) in parts.items()
            }
            _, dead = self._pool.exchange(requests)
            if not dead:
                return
            parts = {worker: parts[worker] for worker in dead}
        raise RuntimeError(f"rollout workers {sorted(parts)} died twice in restore()")

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each.

        Raises:
            RuntimeError: If a worker died; its simulations must be restored.
        """
        chosen = self._resolve(indices)
        checked = validate_actions(actions, self._pool.action_space, 1, num=len(chosen))
        parts = self._split(chosen)
        replies = self._ask(
            parts,
            {
                worker: ("step", (self._key, checked[places], local))
                for worker, (places, local) in parts.items()
            },
        )
        num = len(chosen)
        example = next(iter(replies.values())).observations
        observations = empty_observations(example, (num,))
        rewards, terminated, diverged = np.zeros(num), np.zeros(num, bool), np.zeros(num, bool)
        for worker, batch in replies.items():
            places = parts[worker][0]
            write_rows(observations, places, batch.observations)
            rewards[places], terminated[places] = batch.rewards, batch.terminated
            diverged[places] = batch.diverged
        return StepBatch(observations, rewards, terminated, diverged)

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        parts = self._split(self._resolve(indices))
        replies = self._ask(
            parts,
            {w: ("snapshot", (self._key, local)) for w, (_, local) in parts.items()},
        )
        placed = {
            int(place): state
            for worker, states in replies.items()
            for place, state in zip(parts[worker][0], states, strict=True)
        }
        return [placed[place] for place in range(len(placed))]

    def close(self) -> None:
        """Free the simulations in the workers; the pool lives on."""
        if self._is_closed:
            return
        self._is_closed = True
        workers = [w for w, g in enumerate(self._generations) if g == self._pool.generation(w)]
        self._pool.exchange({worker: ("discard", (self._key,)) for worker in workers})

    def _resolve(self, indices: np.ndarray | None) -> np.ndarray:
        if self._is_closed:
            raise RuntimeError("these simulations are closed; ask for new ones with simulations()")
        return np.arange(self.num) if indices is None else np.asarray(indices, dtype=int)

    def _split(self, chosen: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Return per worker the places within `chosen` that it serves, and its own indices."""
        owners = np.searchsorted(self._bounds, chosen, side="right") - 1
        parts = {}
        for worker in np.unique(owners).tolist():
            places = np.flatnonzero(owners == worker)
            parts[worker] = (places, chosen[places] - self._bounds[worker])
        return parts

    def _open(self, workers: list[int]) -> None:
        sizes = np.diff(self._bounds)
        new = [w for w in workers if self._generations[w] != self._pool.generation(w)]
        _, dead = self._pool.exchange({w: ("open", (self._key, int(sizes[w]))) for w in new})
        for worker in new:
            self._generations[worker] = -1 if worker in dead else self._pool.generation(worker)

    def _ask(self, parts: dict[int, Any], requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        lost = [w for w in parts if self._generations[w] != self._pool.generation(w)]
        replies: dict[int, Any] = {}
        if not lost:
            replies, lost = self._pool.exchange(requests)
        if lost:
            spans = ", ".join(f"{self._bounds[w]} to {self._bounds[w + 1] - 1}" for w in lost)
            raise RuntimeError(
                f"simulations {spans} are not there: never restored, or their worker died; "
                "restore them before they are stepped or captured"
            )
        return replies


class _WorkerProcess:
    """One worker process and the pipes to it; may be started again."""

    def __init__(self) -> None:
        self.generation = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, first_message: bytes) -> None:
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
        )
        self.generation += 1
        self.send(first_message)

    def send(self, message: bytes) -> bool:
        """Send a message; False if the worker is dead."""
        if self._process is None or self._process.stdin is None:
            return False
        try:
            self._process.stdin.write(message)
            self._process.stdin.flush()
        except OSError:
            return False
        return True

    def receive(self) -> tuple[str, Any] | None:
        """Wait for a reply; None if the worker died."""
        assert self._process is not None and self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            return None

    def stop(self, patience_s: float = 0.0) -> None:
        """End the process: kindly within `patience_s`, then by force."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what was buffered for a dead worker
                continue
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stop_all(workers: list[_WorkerProcess]) -> None:
    for worker in workers:
        worker.stop(_EXIT_S)
