"""Vector backend: small envs that are a few array operations, all simulations in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.batch import BatchDynamics, BatchSimulations
from mppi_agent.dynamics.observations import finite_rows
from mppi_agent.dynamics.rollout import validate_actions
from mppi_agent.dynamics.tasks import vector_task_of
from mppi_agent.interfaces import EnvState, StepBatch, VectorTask

__all__ = ["VectorDynamics", "VectorSimulations"]


class VectorDynamics(BatchDynamics):
    """Simulate an env whose step is known as array operations.

    Args:
        env: The env to simulate; only read.

    Raises:
        ValueError: If the env has no `VectorTask`, or its state is no vector.
    """

    def __init__(self, env: Cloneable) -> None:
        name = type(env.unwrapped).__name__
        task = vector_task_of(env.unwrapped)
        if task is None:
            raise ValueError(
                f"env {name} has no vector task: give the class of its step() a method "
                "vector_task(), or use EnvStepDynamics or ProcessPoolDynamics"
            )
        super().__init__(env)
        self._env = env
        self._task = task
        if not self.initial_states(1, np.random.default_rng(0))[0].physics.size:
            raise ValueError(
                f"env {name} has a vector_task() but no state vector for it: give it get_state(), "
                "which returns a float64 array, and set_state(state)"
            )

    def simulations(self, num: int) -> VectorSimulations:
        """Return `num` simulations for closed-loop use."""
        return VectorSimulations(self._task, self._env, num)


class VectorSimulations(BatchSimulations):
    """Step N simulations as one array.

    Args:
        task: Steps them.
        env: Says which states and actions fit; only read.
        num: Simulations, N.
    """

    def __init__(self, task: VectorTask, env: Cloneable, num: int) -> None:
        super().__init__(num, env.require_own)
        self._task = task
        self._action_space = env.action_space
        self._physics = np.zeros((num, 0))

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        select: Any = slice(None) if indices is None else indices
        before = self._physics[select]
        actions = validate_actions(actions, self._action_space, 1, num=len(before))
        physics, observations, rewards, terminated = self._task.step(before, actions)
        self._physics[select] = physics
        self._observe(select, observations)
        diverged = ~(
            np.isfinite(physics).all(axis=1) & finite_rows(observations) & np.isfinite(rewards)
        )
        terminated = np.asarray(terminated, dtype=bool)
        never = np.zeros_like(diverged)
        return StepBatch(observations, rewards, terminated & ~diverged, never, diverged)

    def _write(self, select: Any, states: Sequence[EnvState]) -> None:
        physics = np.stack([state.physics for state in states])
        if self._physics.shape[1] != physics.shape[1]:
            self._physics = np.zeros((self.num, physics.shape[1]))
        self._physics[select] = physics

    def _read(self, index: int) -> np.ndarray:
        return self._physics[index].copy()
