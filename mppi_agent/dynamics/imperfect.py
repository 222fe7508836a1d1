"""An actuator that is late and a sensor that is noisy, around any simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.dynamics.rollout import resume_simulations, validate_actions, validate_rollout
from mppi_agent.interfaces import Dynamics, EnvState, RolloutBatch, Simulations, StepBatch

__all__ = ["ImperfectDynamics", "ImperfectSimulations"]


class ImperfectDynamics:
    """Put an actuator that is late and a sensor that is noisy around a simulator.

    The first action after a restore acts at once and is held until the next one arrives: what was
    under way before is not part of a state.

    Args:
        dynamics: Simulates; closed with this one.
        delay: Control steps by which actions arrive late.
        observation_noise: Standard deviation; on observations of closed-loop simulations only.
        seed: Of that noise.
    """

    def __init__(
        self, dynamics: Dynamics, delay: int, observation_noise: float, *, seed: int = 0
    ) -> None:
        self.dynamics = dynamics
        self._delay = delay
        self._noise_std = observation_noise
        self._seeds = np.random.SeedSequence(seed)
        self.observation_space = dynamics.observation_space
        self.action_space = dynamics.action_space
        self.max_episode_steps = dynamics.max_episode_steps

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution."""
        return self.dynamics.initial_states(num, rng)

    def simulations(self, num: int) -> ImperfectSimulations:
        """Return `num` simulations, each set of them with noise of its own."""
        rng = np.random.default_rng(self._seeds.spawn(1)[0])
        simulations = self.dynamics.simulations(num)
        return ImperfectSimulations(
            simulations, self.action_space, self._delay, self._noise_std, rng
        )

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out open loop with late actions; see `Dynamics.rollout`."""
        actions = validate_rollout(states, actions, self.action_space)
        acting = np.maximum(np.arange(actions.shape[2]) - self._delay, 0)
        return self.dynamics.rollout(
            states, actions[:, :, acting], keep_observations=keep_observations
        )

    def close(self) -> None:
        """Close what simulates."""
        self.dynamics.close()


class ImperfectSimulations:
    """Run N simulations whose actions arrive late and whose observations are noisy.

    Args:
        simulations: Run the env.
        action_space: Of the env.
        delay: Control steps.
        noise_std: Of the observations.
        rng: Draws the noise.
    """

    def __init__(
        self,
        simulations: Simulations,
        action_space: gym.Space,
        delay: int,
        noise_std: float,
        rng: np.random.Generator,
    ) -> None:
        self.num = simulations.num
        self._simulations = simulations
        self._action_space = action_space
        self._delay = delay
        self._noise_std = noise_std
        self._rng = rng
        self._under_way: list[list[np.ndarray]] = [[] for _ in range(self.num)]

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        self._simulations.restore(states, indices)
        for index in self._resolve(indices):
            self._under_way[index] = []

    def resume(self, states: Sequence[EnvState]) -> None:
        """Go on from snapshots of all simulations; the first action acts at once, as always."""
        resume_simulations(self._simulations, states)
        self._under_way = [[] for _ in range(self.num)]

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        chosen = self._resolve(indices)
        asked = validate_actions(actions, self._action_space, 1, num=len(chosen))
        step = self._simulations.step(self._delayed(asked, chosen), indices)
        return replace(step, observations=self._with_noise(step.observations))

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        return self._simulations.snapshot(indices)

    def close(self) -> None:
        """Free the simulations."""
        self._simulations.close()

    def _resolve(self, indices: np.ndarray | None) -> list[int]:
        return list(range(self.num)) if indices is None else indices.tolist()

    def _delayed(self, actions: np.ndarray, indices: list[int]) -> np.ndarray:
        """Put the actions into the queues and return those that arrive now."""
        arriving = actions.copy()
        for place, index in enumerate(indices):
            queue = self._under_way[index]
            queue.extend([actions[place].copy()] * (1 if queue else self._delay + 1))
            arriving[place] = queue.pop(0)
        return arriving

    def _with_noise(self, observations: Any) -> Any:
        if isinstance(observations, dict):
            return {key: self._with_noise(part) for key, part in observations.items()}
        if not self._noise_std or observations.dtype.kind != "f":
            return observations
        noise = self._noise_std * self._rng.standard_normal(observations.shape)
        return (observations + noise).astype(observations.dtype)
