"""Evaluate a policy in simulation: whole episodes from given states, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from mppi_agent.dynamics.observations import select_rows, stack_observations, write_rows
from mppi_agent.gps.view import PolicyView
from mppi_agent.interfaces import EnvState, Simulations

__all__ = ["Evaluation", "evaluate"]


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
