"""What one worker process of `ProcessPoolDynamics` runs: requests on stdin, replies on stdout.

A request is (method name, arguments), a reply ("ok", value) or ("error", traceback). The worker
draws no random numbers and never imports torch. It ends when its parent does.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from mppi_agent.cloning import unpack
from mppi_agent.dynamics.env_step import EnvStepSimulations, rollout_samples
from mppi_agent.dynamics.process_channel import Channel
from mppi_agent.interfaces import EnvState, RolloutBatch, StepBatch

__all__ = ["main"]

_PARENT_CHECK_S = 1.0


def main(parent: int, incoming_area: int, outgoing_area: int) -> None:
    """Serve requests until stdin closes.

    Args:
        parent: Process id of the parent; this process ends with it.
        incoming_area: File descriptor of the memory that requests come in.
        outgoing_area: File descriptor of the memory that replies go in.
    """
    channel = Channel(
        os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"), incoming_area, outgoing_area
    )
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # an env that asks for input must not wait for it
    os.dup2(2, 1)  # what an env prints must not get between the replies
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    worker = _Worker()
    while True:
        try:
            name, arguments = channel.receive()
        except EOFError:
            return
        try:
            reply = ("ok", getattr(worker, name)(*arguments))
        except Exception:
            reply = ("error", traceback.format_exc())
        try:
            channel.send(reply)
        except OSError:  # nobody is there to read it
            return
        except Exception:  # the env returned what cannot be sent
            channel.send(("error", traceback.format_exc()))


class _Worker:
    """The requests that a worker serves, one method each."""

    def __init__(self) -> None:
        self._env: Any = None
        self._sets: dict[int, EnvStepSimulations] = {}

    def start(self, packed: bytes) -> None:
        self._env = unpack(packed)

    def rollout(
        self, states: Sequence[EnvState], owners: np.ndarray, actions: np.ndarray, keep: bool
    ) -> RolloutBatch:
        return rollout_samples(self._env, states, owners, actions, keep_observations=keep)

    def resume(
        self,
        key: int,
        num: int,
        indices: Sequence[int],
        starts: Sequence[EnvState],
        taken: Sequence[Sequence[np.ndarray]],
    ) -> None:
        """Make a set of simulations, put some into states and repeat the actions taken since."""
        self.discard(key)
        simulations = EnvStepSimulations(self._env, num)
        simulations.restore(starts, np.asarray(indices, dtype=int))
        for step in range(max(map(len, taken), default=0)):
            live = [place for place, actions in enumerate(taken) if len(actions) > step]
            simulations.step(
                np.array([taken[place][step] for place in live]),
                np.array([indices[place] for place in live]),
            )
        self._sets[key] = simulations

    def restore(self, key: int, states: Sequence[EnvState], indices: np.ndarray) -> None:
        self._sets[key].restore(states, indices)

    def step(self, key: int, actions: np.ndarray, indices: np.ndarray) -> StepBatch:
        return self._sets[key].step(actions, indices)

    def snapshot(self, key: int, indices: np.ndarray) -> list[EnvState]:
        return self._sets[key].snapshot(indices)

    def discard(self, key: int) -> None:
        if key in self._sets:
            self._sets.pop(key).close()


def _exit_with_parent(parent: int) -> None:
    """End an orphan: a fork of the parent may keep the pipe open after the parent died."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)
