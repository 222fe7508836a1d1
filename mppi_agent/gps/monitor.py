"""Evaluate the student on the true env, in simulation, and keep the best policy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from mppi_agent.dynamics.observations import select_rows, stack_observations, write_rows
from mppi_agent.gps.view import PolicyView
from mppi_agent.interfaces import EnvState, Simulations

__all__ = ["BestPolicy", "Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Hold undiscounted returns of whole episodes.

    Attributes:
        returns: Shape (E,).
        sim_steps: Env steps simulated.
    """

    returns: np.ndarray
    sim_steps: int

    @property
    def mean(self) -> float:
        """Return the mean over episodes."""
        return float(self.returns.mean())


def evaluate(
    policy: ActorCriticPolicy,
    view: PolicyView,
    simulations: Simulations,
    states: Sequence[EnvState],
    max_episode_steps: int,
) -> Evaluation:
    """Run the deterministic policy from some states at once.

    Args:
        policy: Acts without noise.
        view: Shows it the observations.
        simulations: One per state.
        states: Where the episodes begin.
        max_episode_steps: Longest episode.

    Returns:
        One return per state; a simulation that diverges ends there.
    """
    simulations.restore(states)
    observations = stack_observations([state.observation for state in states])
    returns = np.zeros(len(states))
    running = np.arange(len(states))
    sim_steps = 0
    for _ in range(max_episode_steps):
        actions = view.best_actions(policy, view.observe(select_rows(observations, running)))
        step = simulations.step(actions, running)
        sim_steps += len(running)
        returns[running] += np.where(step.diverged, 0.0, step.rewards)
        write_rows(observations, running, step.observations)
        running = running[~(step.terminated | step.diverged)]
        if not len(running):
            break
    return Evaluation(returns, sim_steps)


class BestPolicy:
    """Keep a copy of the best weights seen."""

    def __init__(self) -> None:
        self.score = -np.inf
        self._weights: dict[str, Any] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no weights were offered yet."""
        return self._weights is None

    def offer(self, policy: ActorCriticPolicy, score: float) -> bool:
        """Keep the policy's weights if `score` is the best so far; say whether it is."""
        if score < self.score:
            return False
        self.score = score
        self._weights = copy.deepcopy(policy.state_dict())
        return True

    def restore(self, policy: ActorCriticPolicy) -> None:
        """Put the best weights into the policy; do nothing if none were offered."""
        if self._weights is not None:
            policy.load_state_dict(self._weights)
