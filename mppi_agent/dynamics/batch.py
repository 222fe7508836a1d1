"""What backends share that hold all their simulations in one array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.env_step import EnvStepDynamics
from mppi_agent.dynamics.observations import (
    copy_row,
    empty_observations,
    stack_observations,
    write_rows,
)
from mppi_agent.dynamics.rollout import LargestSimulations, open_loop_rollout, validate_rollout
from mppi_agent.interfaces import EnvState, Observation, RolloutBatch, StepBatch

__all__ = ["BatchDynamics", "BatchSimulations"]


class BatchSimulations(ABC):
    """Restore and snapshot N simulations whose states are the rows of one array.

    Args:
        num: Simulations, N.
        require_own: Raises an error for a state that is of another env.
    """

    def __init__(self, num: int, require_own: Callable[[EnvState], None]) -> None:
        self.num = num
        self._require_own = require_own
        self._observations: Observation | None = None
        self._extras: list[Any] = [None] * num

    @abstractmethod
    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""

    @abstractmethod
    def _write(self, select: Any, states: Sequence[EnvState]) -> None:
        """Put the physics of `states` into the simulations `select`."""

    @abstractmethod
    def _read(self, index: int) -> np.ndarray:
        """Return a copy of one simulation's physics."""

    def _extras_of(self, index: int) -> Any:
        """Return what a snapshot of one simulation keeps beside its physics."""
        return self._extras[index]

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        if indices is None:
            indices = np.arange(self.num)
        if len(states) != len(indices):
            raise ValueError(f"{len(indices)} simulations need as many states, got {len(states)}")
        if not len(states):
            return
        for state in states:
            self._require_own(state)
        self._write(indices, states)
        observations = stack_observations([state.observation for state in states])
        if self._observations is None:
            self._observations = empty_observations(observations, (self.num,))
        write_rows(self._observations, indices, observations)
        for index, state in zip(indices, states, strict=True):
            self._extras[index] = state.extras

    def open_loop(
        self, states: Sequence[EnvState], actions: np.ndarray, *, keep_observations: bool
    ) -> RolloutBatch:
        """Roll out S x K action sequences; see `open_loop_rollout`."""
        return open_loop_rollout(self, states, actions, keep_observations=keep_observations)

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        if self._observations is None:
            raise RuntimeError("these simulations have no state yet: restore them first")
        return [
            EnvState(
                observation=copy_row(self._observations, i),
                physics=self._read(i),
                extras=self._extras_of(i),
            )
            for i in (range(self.num) if indices is None else indices)
        ]

    def close(self) -> None:
        """Drop the states; the arrays go with their last reference."""
        self._observations = None

    def _observe(self, select: Any, observations: Observation) -> None:
        """Remember what the simulations `select` show now."""
        if self._observations is None:
            raise RuntimeError("these simulations have no state yet: restore them first")
        write_rows(self._observations, select, observations)


class BatchDynamics(ABC):
    """Give a backend everything but its simulations.

    Args:
        env: The env to simulate; only read.
    """

    def __init__(self, env: Cloneable) -> None:
        self._resets = EnvStepDynamics(env)
        self._rollouts = LargestSimulations[BatchSimulations]()
        self.observation_space: gym.Space = env.observation_space
        self.action_space: gym.Space = env.action_space
        self.max_episode_steps = self._resets.max_episode_steps

    @abstractmethod
    def simulations(self, num: int) -> BatchSimulations:
        """Return `num` simulations for closed-loop use."""

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution."""
        return self._resets.initial_states(num, rng)

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
        simulations = self._rollouts.at_least(num, self.simulations)
        return simulations.open_loop(states, actions, keep_observations=keep_observations)

    def close(self) -> None:
        """Free the simulations and the private copy that resets come from."""
        self._rollouts.close()
        self._resets.close()
