"""Closed-loop sampling: N simulations carry on under the policy plus noise.

Every state and action of every simulation, failed ones too, becomes a sample of `SampleBatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from mppi_agent.dynamics.observations import (
    copy_observations,
    join_observations,
    reshape_leading,
    select_rows,
    stack_observations,
    write_rows,
)
from mppi_agent.dynamics.rollout import resume_simulations
from mppi_agent.gps.view import PolicyView
from mppi_agent.interfaces import EnvState, Observation, Simulations

__all__ = ["ClosedLoopSampler", "SampleBatch"]


@dataclass(frozen=True)
class SampleBatch:
    """Hold T steps of N simulations, in time order.

    Attributes:
        observations: What the policy saw, shape (T, N, *obs).
        actions: As the policy drew them, before clipping, shape (T, N, *action).
        rewards: Reward units, shape (T, N).
        values: Value head at `observations`, reward units, shape (T, N).
        next_values: Value head after the step; 0 where the env terminated, shape (T, N).
        ends: True where the simulation was restarted after the step, shape (T, N).
        valid: False where the physics diverged; such a sample is never scored, shape (T, N).
        episode_returns: Undiscounted returns of episodes that began at a reset and ended here.
        sim_steps: Env steps simulated.
    """

    observations: Observation
    actions: np.ndarray
    rewards: np.ndarray
    values: np.ndarray
    next_values: np.ndarray
    ends: np.ndarray
    valid: np.ndarray
    episode_returns: list[float]
    sim_steps: int

    def advantages(self, discount: float, gae_lambda: float) -> np.ndarray:
        """Return generalised advantage estimates, reward units, shape (T, N).

        Source: Schulman et al. 2016, "High-dimensional continuous control using GAE", eq. 16.
        """
        deltas = np.where(self.valid, self.rewards + discount * self.next_values - self.values, 0.0)
        carry = discount * gae_lambda * (~self.ends & self.valid)
        advantages = np.empty_like(deltas)
        running = np.zeros(deltas.shape[1])
        for t in range(len(deltas) - 1, -1, -1):
            running = deltas[t] + carry[t] * running
            # A diverged step breaks the chain: what came before it bootstraps at its state.
            advantages[t] = running = np.where(self.valid[t], running, 0.0)
        return advantages


class ClosedLoopSampler:
    """Keep N simulations running under a policy, from round to round.

    Args:
        simulations: The N simulations, restored here.
        start_states: Called with a number and a generator; returns (states, are_resets), the
            states that restarted simulations begin from and whether each is a fresh episode.
        max_episode_steps: A simulation is restarted after this many steps, its value bootstrapped.
        rng: Draws action noise and start states.
    """

    def __init__(
        self,
        simulations: Simulations,
        start_states: Callable[[int, np.random.Generator], tuple[Sequence[EnvState], np.ndarray]],
        max_episode_steps: int,
        rng: np.random.Generator,
    ) -> None:
        self._simulations = simulations
        self._start_states = start_states
        self._max_episode_steps = max_episode_steps
        self._rng = rng
        num = simulations.num
        self._returns = np.zeros(num)
        self._from_reset = np.zeros(num, dtype=bool)
        self._steps_left = np.zeros(num, dtype=np.int64)
        self._observations = self._restart(np.arange(num))
        # Staggered ends keep the simulations from marching through an episode in step.
        self._steps_left = rng.integers(1, max_episode_steps + 1, size=num)
        self._from_reset[:] = False

    def sample(self, policy: ActorCriticPolicy, view: PolicyView, num_steps: int) -> SampleBatch:
        """Advance every simulation by `num_steps` and return all samples.

        Args:
            policy: Draws the actions; in evaluation mode.
            view: Turns what the env shows into what the policy sees.
            num_steps: T.

        Returns:
            T x N samples.
        """
        num = self._simulations.num
        seen: list[Observation] = []
        drawn: list[np.ndarray] = []
        rewards = np.zeros((num_steps, num))
        terminated = np.zeros((num_steps, num), dtype=bool)
        ends = np.zeros((num_steps, num), dtype=bool)
        valid = np.ones((num_steps, num), dtype=bool)
        cut: list[tuple[int, np.ndarray, Observation]] = []
        episode_returns: list[float] = []
        for t in range(num_steps):
            observation = view.observe(self._observations)
            actions = view.draw_actions(policy, observation, self._rng)
            step = self._simulations.step(view.to_env(actions))
            seen.append(observation)
            drawn.append(actions)
            rewards[t] = np.where(step.diverged, 0.0, step.rewards)
            terminated[t] = step.terminated & ~step.diverged
            valid[t] = ~step.diverged
            self._returns += rewards[t]
            self._steps_left -= 1
            ended = step.ended | (self._steps_left <= 0)
            ends[t] = ended
            self._observations = copy_observations(step.observations)
            if ended.any():
                indices = np.flatnonzero(ended)
                cut.append((t, indices, view.observe(select_rows(step.observations, indices))))
                done = indices[self._from_reset[indices] & valid[t, indices]]
                episode_returns.extend(self._returns[done].tolist())
                write_rows(self._observations, indices, self._restart(indices))
        seen.append(view.observe(self._observations))
        shown = stack_observations(seen)  # (T + 1, N, *obs)
        actions = np.stack(drawn)
        values = view.values(policy, reshape_leading(shown, 2, (-1,))).reshape(num_steps + 1, num)
        next_values = values[1:].copy()
        if cut:
            finals = join_observations([final for *_, final in cut], axis=0)
            times = np.concatenate([np.full(len(indices), t) for t, indices, _ in cut])
            where = times, np.concatenate([indices for _, indices, _ in cut])
            next_values[where] = view.values(policy, finals)
        next_values[terminated] = 0.0
        return SampleBatch(
            observations=select_rows(shown, slice(-1)),
            actions=actions,
            rewards=rewards,
            values=values[:-1],
            next_values=np.where(valid, next_values, 0.0),
            ends=ends,
            valid=valid,
            episode_returns=episode_returns,
            sim_steps=num_steps * num,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what the next samples depend on, simulations in flight included; picklable."""
        return {
            "rng": self._rng.bit_generator.state,
            "simulations": self._simulations.snapshot(),
            "observations": self._observations,
            "returns": self._returns,
            "from_reset": self._from_reset,
            "steps_left": self._steps_left,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: If it was taken of another number of simulations.
        """
        if len(state["simulations"]) != self._simulations.num:
            raise ValueError(
                f"num_simulations={self._simulations.num}, but the checkpoint holds "
                f"{len(state['simulations'])} simulations in flight; resume with as many"
            )
        self._rng.bit_generator.state = state["rng"]
        resume_simulations(self._simulations, state["simulations"])
        self._observations = state["observations"]
        self._returns = state["returns"]
        self._from_reset = state["from_reset"]
        self._steps_left = state["steps_left"]

    def close(self) -> None:
        """Free the simulations; there are no more samples."""
        self._simulations.close()

    def _restart(self, indices: np.ndarray) -> Observation:
        states, are_resets = self._start_states(len(indices), self._rng)
        self._simulations.restore(states, indices)
        self._returns[indices] = 0.0
        self._from_reset[indices] = are_resets
        self._steps_left[indices] = self._max_episode_steps
        return stack_observations([state.observation for state in states])
