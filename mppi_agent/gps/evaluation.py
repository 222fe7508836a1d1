"""Evaluate a policy in simulation: whole episodes from given states, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from mppi_agent.dynamics.observations import select_rows, stack_observations, write_rows
from mppi_agent.gps.view import PolicyView
from mppi_agent.interfaces import EnvState, Simulations

__all__ = ["Evaluation", "Probe", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Hold undiscounted returns of whole episodes.

    Attributes:
        returns: Shape (E,).
        sim_steps: Env steps simulated.
        value_r2: Share of the variance of discounted returns that the value head explains along
            these episodes; NaN unless asked for.
        num_cut: Episodes that had not ended by themselves.
    """

    returns: np.ndarray
    sim_steps: int
    value_r2: float = float("nan")
    num_cut: int = 0

    @property
    def mean(self) -> float:
        """Return the mean over episodes."""
        return float(self.returns.mean())


@dataclass(frozen=True)
class Probe:
    """Hold undiscounted returns of the beginning of episodes, to compare policies cheaply.

    Attributes:
        resets: From resets, shape (R,).
        archived: From archived states, shape (A,); A may be 0.
        sim_steps: Env steps simulated.
    """

    resets: np.ndarray
    archived: np.ndarray
    sim_steps: int

    @property
    def mean(self) -> float:
        """Return the mean from resets."""
        return float(self.resets.mean())

    def gain_over(self, other: Probe) -> float:
        """Return by how much more this one earns per state than another from the same states."""
        resets, archived = self.resets - other.resets, self.archived - other.archived
        return float(np.concatenate([resets, archived]).mean())


def evaluate(
    policy: ActorCriticPolicy,
    view: PolicyView,
    simulations: Simulations,
    states: Sequence[EnvState],
    max_episode_steps: int,
    *,
    discount: float | None = None,
) -> Evaluation:
    """Run the deterministic policy from some states at once.

    Args:
        policy: Acts without noise.
        view: Shows it the observations.
        simulations: One per state.
        states: Where the episodes begin.
        max_episode_steps: Longest episode.
        discount: Of the returns that the value head is held against; None: it is not judged.

    Returns:
        One return per state. A simulation that diverges ends there, and counts no more than the
        lowest of those that do not, or -inf where all do: where steps cost, to break it would pay.
    """
    simulations.restore(states)
    observations = stack_observations([state.observation for state in states])
    num = len(states)
    rewards = np.zeros((max_episode_steps, num))
    values = np.zeros((max_episode_steps, num))
    beyond = np.zeros((max_episode_steps, num))
    visited = np.zeros((max_episode_steps, num), dtype=bool)
    diverged = np.zeros(num, dtype=bool)
    running = np.arange(num)
    for t in range(max_episode_steps):
        seen = view.observe(select_rows(observations, running))
        visited[t, running] = True
        if discount is not None:
            values[t, running] = view.values(policy, seen)
        step = simulations.step(view.best_actions(policy, seen), running)
        rewards[t, running] = np.where(step.diverged, 0.0, step.rewards)
        diverged[running] = step.diverged
        write_rows(observations, running, step.observations)
        is_cut = step.truncated | (t + 1 == max_episode_steps)
        cut = running[is_cut & ~(step.terminated | step.diverged)]
        if discount is not None and len(cut):
            # A time limit is no end: what would follow counts as the value head sees it.
            final = view.observe(select_rows(observations, cut))
            beyond[t, cut] = view.values(policy, final)
        running = running[~step.ended]
        if not len(running):
            break
    r2 = float("nan")
    if discount is not None:
        r2 = _explained(rewards, values, beyond, visited, discount)
    returns = rewards.sum(axis=0)
    if diverged.any():
        lowest = -np.inf if diverged.all() else returns[~diverged].min()
        returns[diverged] = np.minimum(returns[diverged], lowest)
    return Evaluation(returns, int(visited.sum()), r2, num_cut=len(running))


def _explained(
    rewards: np.ndarray,
    values: np.ndarray,
    beyond: np.ndarray,
    visited: np.ndarray,
    discount: float,
) -> float:
    """Return R^2 of the values against discounted returns, both at the visited states.

    All of shape (T, N); `beyond` is what follows where an episode was cut, else 0.
    """
    returns = np.zeros_like(rewards)
    following = np.zeros(rewards.shape[1])
    for t in range(len(rewards) - 1, -1, -1):
        following = returns[t] = rewards[t] + discount * (following + beyond[t])
    target, value = returns[visited], values[visited]
    return float(1.0 - np.mean((target - value) ** 2) / max(target.var(), 1e-12))
