"""Vector backend: small envs that are a few array operations, all simulations in one call."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.env_step import EnvStepDynamics, time_limit_of
from mppi_agent.dynamics.observations import (
    empty_observations,
    finite_rows,
    select_rows,
    stack_observations,
    write_rows,
)
from mppi_agent.dynamics.rollout import open_loop_rollout, validate_actions, validate_rollout
from mppi_agent.dynamics.tasks import vector_task_of
from mppi_agent.interfaces import EnvState, Observation, RolloutBatch, StepBatch, VectorTask

__all__ = ["VectorDynamics", "VectorSimulations"]


class VectorDynamics:
    """Simulate an env whose step is known as array operations.

    Args:
        env: The env to simulate; only read.

    Raises:
        ValueError: If the env has no `VectorTask`.
    """

    def __init__(self, env: Cloneable) -> None:
        task = vector_task_of(env.unwrapped)
        if task is None:
            raise ValueError(
                f"env {type(env.unwrapped).__name__} has no vector task: give it a method "
                "vector_task() or use EnvStepDynamics or ProcessPoolDynamics"
            )
        self._task = task
        self._resets = EnvStepDynamics(env)
        if not self.initial_states(1, np.random.default_rng(0))[0].physics.size:
            raise ValueError(
                f"env {type(env.unwrapped).__name__} has a vector_task() but no state vector for "
                "it: give it get_state(), which returns a float64 array, and set_state(state)"
            )
        self._rollouts: VectorSimulations | None = None
        self.observation_space: gym.Space = env.observation_space
        self.action_space: gym.Space = env.action_space
        self.max_episode_steps = time_limit_of(env)

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution."""
        return self._resets.initial_states(num, rng)

    def simulations(self, num: int) -> VectorSimulations:
        """Return `num` simulations for closed-loop use."""
        return VectorSimulations(self._task, self.action_space, num)

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out S x K action sequences open loop; see `Dynamics.rollout`."""
        actions = validate_rollout(states, actions, self.action_space)
        num = actions.shape[0] * actions.shape[1]
        if self._rollouts is None or self._rollouts.num != num:
            self._rollouts = self.simulations(num)
        return open_loop_rollout(
            self._rollouts, states, actions, keep_observations=keep_observations
        )

    def close(self) -> None:
        """Close the private copy that resets come from."""
        self._resets.close()


class VectorSimulations:
    """Step N simulations as one array.

    Args:
        task: Steps them.
        action_space: Of the env.
        num: Simulations, N.
    """

    def __init__(self, task: VectorTask, action_space: gym.Space, num: int) -> None:
        self.num = num
        self._task = task
        self._action_space = action_space
        self._physics: np.ndarray | None = None
        self._observations: Observation | None = None
        self._extras: list[Any] = [None] * num

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        if indices is None:
            indices = np.arange(self.num)
        if len(states) != len(indices):
            raise ValueError(f"{len(indices)} simulations need as many states, got {len(states)}")
        if not len(states):
            return
        physics = np.stack([state.physics for state in states])
        observations = stack_observations([state.observation for state in states])
        if self._physics is None or self._observations is None:
            self._physics = np.zeros((self.num, physics.shape[1]))
            self._observations = empty_observations(observations, (self.num,))
        self._physics[indices] = physics
        write_rows(self._observations, indices, observations)
        for index, state in zip(indices, states, strict=True):
            self._extras[index] = state.extras

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        assert self._physics is not None and self._observations is not None, "restore first"
        select: Any = slice(None) if indices is None else indices
        before = self._physics[select]
        actions = validate_actions(actions, self._action_space, 1, num=len(before))
        physics, observations, rewards, terminated = self._task.step(before, actions)
        self._physics[select] = physics
        write_rows(self._observations, select, observations)
        diverged = ~(np.isfinite(physics).all(axis=1) & finite_rows(observations))
        return StepBatch(observations, rewards, terminated & ~diverged, diverged)

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        assert self._physics is not None and self._observations is not None, "restore first"
        chosen = range(self.num) if indices is None else indices
        return [
            EnvState(
                observation=copy.deepcopy(select_rows(self._observations, i)),
                physics=self._physics[i].copy(),
                extras=self._extras[i],
            )
            for i in chosen
        ]

    def close(self) -> None:
        """Free nothing: the arrays go with their last reference."""
