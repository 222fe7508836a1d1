"""What one worker process of `ProcessPoolDynamics` runs: requests on stdin, replies on stdout.

A request is (method name, arguments), a reply ("ok", value) or ("error", traceback). The worker
draws no random numbers and never imports torch. It ends when its parent does.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from mppi_agent.cloning import unpack
from mppi_agent.dynamics.env_step import EnvStepSimulations, rollout_samples
from mppi_agent.interfaces import EnvState, RolloutBatch, StepBatch

__all__ = ["main"]

_PARENT_CHECK_S = 2.0


def main() -> None:
    """Serve requests until stdin closes."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an env prints must not get between the replies
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    worker = _Worker()
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = ("ok", getattr(worker, name)(*arguments))
        except Exception:
            reply = ("error", traceback.format_exc())
        try:
            replies.write(cloudpickle.dumps(reply))
            replies.flush()
        except BrokenPipeError:
            sys.exit(1)


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

    def open(self, key: int, num: int) -> None:
        self._sets[key] = EnvStepSimulations(self._env, num)

    def restore(self, key: int, states: Sequence[EnvState], indices: np.ndarray) -> None:
        self._sets[key].restore(states, indices)

    def step(self, key: int, actions: np.ndarray, indices: np.ndarray) -> StepBatch:
        return self._sets[key].step(actions, indices)

    def snapshot(self, key: int, indices: np.ndarray) -> list[EnvState]:
        return self._sets[key].snapshot(indices)

    def discard(self, key: int) -> None:
        self._sets.pop(key).close()


def _exit_with_parent(parent: int) -> None:
    """End an orphan: a fork of the parent may keep the pipe open after the parent died."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)
