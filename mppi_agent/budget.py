"""Fit the planner to a time per control step, by measuring on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.expert import MPPIAgent
from mppi_agent.planning import MPPIConfig

__all__ = ["fit_to_budget", "measure_plan"]

_MOST_ROUNDS = 5
_CLOSE = 0.9  # of the budget: close enough
_SHORTER = 0.75  # of the horizon and what is verified, where not even a few samples fit
_MOST_FOR_LQR = 1.5  # budgets; where derivatives would take more, a shorter horizon is no cure
_SHORTEST = 4  # control steps
_ACTING_STEPS = 4  # the first has no warm start


def fit_to_budget(
    config: MPPIConfig, budget_ms: float, measure: Callable[[MPPIConfig], float]
) -> MPPIConfig:
    """Choose samples and iterations for a planning time.

    More time than the settings take goes into samples and iterations alike.
    Derivatives that would take far more than it are left out. Where not even a few samples fit,
    the horizon and what is verified beyond it are shortened.
    The speed is measured again with what was chosen, because it depends on the size of the batch.
    Plans that fall early are taken to go on doing so; once they live longer they cost more.

    Args:
        config: What to plan with; its horizon and what is verified beyond it are the most.
        budget_ms: Wall-clock per plan, ms, > 0.
        measure: Says what one plan costs with given settings, ms of wall-clock.

    Returns:
        The largest settings measured that keep to the budget; where none did, the fastest.

    Raises:
        ValueError: If the budget is too small for the shortest horizon.
    """
    if not 0 < budget_ms < np.inf:
        raise ValueError(f"budget_ms must be > 0 and finite, got {budget_ms}")
    chosen, cost = config, measure(config)
    if config.lqr_steps:
        without = replace(config, lqr_steps=0)
        without_cost = measure(without)
        if cost - without_cost > _MOST_FOR_LQR * budget_ms:
            chosen, config, cost = without, without, without_cost
    costs = {chosen: cost}
    for _ in range(_MOST_ROUNDS):
        chosen = _fitted(config, budget_ms, 1e3 * chosen.steps_per_plan / cost)
        if chosen in costs:
            break
        costs[chosen] = cost = measure(chosen)
        if _CLOSE * budget_ms <= cost <= budget_ms:
            return chosen
    within = [settings for settings, cost in costs.items() if cost <= budget_ms]
    if within:
        return max(within, key=lambda settings: settings.steps_per_plan)
    return min(costs, key=lambda settings: costs[settings])


def measure_plan(make_expert: Callable[[MPPIConfig], MPPIAgent]) -> Callable[[MPPIConfig], float]:
    """Return what measures plans of an expert that acts, from its env's reset and further on.

    The dearer of the two counts: an arm that has met the object needs more physics than at rest,
    and plans with reflexes live longer than the first one.

    Args:
        make_expert: Makes the expert for given settings; its env, a `Cloneable`, has been reset and
            is left as it was.
    """

    def measure(config: MPPIConfig) -> float:
        expert = make_expert(config)
        assert isinstance(expert.env, Cloneable)
        start = expert.env.snapshot()
        milliseconds = _acting(expert, expert.env)
        expert.env.restore(start)
        _follow_plan(expert, expert.env)
        milliseconds = max(milliseconds, _acting(expert, expert.env))
        expert.env.restore(start)
        return milliseconds

    return measure


def _acting(expert: MPPIAgent, env: Cloneable) -> float:
    """Act for some steps; return the median wall-clock of plans that had a warm start, ms."""
    milliseconds = []
    for step in range(_ACTING_STEPS):
        start = time.perf_counter()
        action, _ = expert.predict(env.last_observation, episode_start=np.array([step == 0]))
        milliseconds.append(1e3 * (time.perf_counter() - start))
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    return float(np.median(milliseconds[1:] or milliseconds))


def _follow_plan(expert: MPPIAgent, env: Cloneable) -> None:
    """Do the expert's first plan, up to where it or the episode ends."""
    expert.predict(env.last_observation, episode_start=np.array([True]))
    assert expert.last_plan is not None
    actions = expert.scaling.to_env(expert.last_plan.controls[0])
    for action in actions.astype(env.action_space.dtype):
        before = env.snapshot()
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.restore(before)
            return


def _fitted(config: MPPIConfig, budget_ms: float, steps_per_second: float) -> MPPIConfig:
    horizon, verify_steps = config.horizon, config.verify_steps
    config = replace(config, budget_steps=None)  # its small iterations cost time out of proportion
    while True:
        shorter = replace(config.resized(horizon=horizon), verify_steps=verify_steps)
        try:
            return shorter.fitted_to(int(budget_ms / 1000.0 * steps_per_second))
        except ValueError as error:
            horizon, verify_steps = int(_SHORTER * horizon), int(_SHORTER * verify_steps)
            if horizon < _SHORTEST:
                raise ValueError(f"budget_ms={budget_ms} is too small: {error}") from None
