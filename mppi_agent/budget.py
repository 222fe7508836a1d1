"""Fit the planner to a time per control step, by measuring on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mppi_agent.expert import MPPIAgent
from mppi_agent.planning import MPPIConfig

__all__ = ["PlanCost", "fit_to_budget", "measure_plan"]

_MOST_ROUNDS = 5
_CLOSE = 0.9  # of the budget: close enough
_SHORTER = 0.75  # of the horizon, where not even a few samples fit
_SHORTEST = 4  # control steps


class PlanCost(NamedTuple):
    """What one plan costs.

    Attributes:
        milliseconds: Of wall-clock.
        sim_steps: Env steps that it simulates.
    """

    milliseconds: float
    sim_steps: int


def fit_to_budget(
    config: MPPIConfig, budget_ms: float, measure: Callable[[MPPIConfig], PlanCost]
) -> MPPIConfig:
    """Choose samples and iterations, and a shorter horizon if it must be, for a planning time.

    The speed is measured again with what was chosen, because it depends on the size of the batch.

    Args:
        config: What to plan with if there were time; not more iterations or steps than it has.
        budget_ms: Wall-clock per plan, ms, > 0.
        measure: Says what one plan costs with given settings.

    Returns:
        The largest settings measured that keep to the budget; where none did, the fastest.

    Raises:
        ValueError: If the budget is too small for the shortest horizon.
    """
    if not 0 < budget_ms < np.inf:
        raise ValueError(f"budget_ms must be > 0 and finite, got {budget_ms}")
    cost = measure(config)
    tried: list[tuple[PlanCost, MPPIConfig]] = []
    for _ in range(_MOST_ROUNDS):
        chosen = _fitted(config, budget_ms, 1e3 * cost.sim_steps / cost.milliseconds)
        if any(chosen == earlier for _, earlier in tried):
            break
        cost = measure(chosen)
        tried.append((cost, chosen))
        if _CLOSE * budget_ms <= cost.milliseconds <= budget_ms:
            return chosen
    within = [pair for pair in tried if pair[0].milliseconds <= budget_ms]
    if within:
        return max(within, key=lambda pair: pair[0].sim_steps)[1]
    return min(tried, key=lambda pair: pair[0].milliseconds)[1]


def measure_plan(
    make_expert: Callable[[MPPIConfig], MPPIAgent],
) -> Callable[[MPPIConfig], PlanCost]:
    """Return what measures plans from the reset state of an expert's env.

    Args:
        make_expert: Makes the expert for given settings; its env has been reset.
    """

    def measure(config: MPPIConfig) -> PlanCost:
        expert = make_expert(config)
        states = expert.states()
        expert.label(states)
        milliseconds = []
        before = expert.sim_steps
        for _ in range(3):
            start = time.perf_counter()
            expert.label(states)
            milliseconds.append(1e3 * (time.perf_counter() - start))
        return PlanCost(float(np.median(milliseconds)), (expert.sim_steps - before) // 3)

    return measure


def _fitted(config: MPPIConfig, budget_ms: float, steps_per_second: float) -> MPPIConfig:
    horizon = config.horizon
    while True:
        shorter = replace(config, horizon=horizon, knot_spacing=min(config.knot_spacing, horizon))
        try:
            return shorter.fitted_to(budget_ms, steps_per_second)
        except ValueError:
            horizon = int(_SHORTER * horizon)
            if horizon < _SHORTEST:
                raise
