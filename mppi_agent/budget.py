"""Fit the planner to a time per control step, by measuring on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.expert import MPPIAgent
from mppi_agent.interfaces import EnvState
from mppi_agent.planning import MPPIConfig

__all__ = ["fit_expert", "fit_to_budget", "measure_plan"]

_MOST_ROUNDS = 5
_CLOSE = 0.9  # of the budget: close enough
_SHORTER = 0.75  # of the horizon and what is verified, where not even a few samples fit
_MOST_FOR_LQR = 1.5  # budgets; where derivatives would take more, a shorter horizon is no cure
_SHORTEST = 4  # control steps
_MOST_STEPS_AHEAD = 40  # before plans are timed: a Pusher meets its object after about 30
_MOST_SECONDS_AHEAD = 60.0


def fit_expert(
    make_expert: Callable[[MPPIConfig], MPPIAgent], config: MPPIConfig, budget_ms: float
) -> MPPIConfig:
    """Choose samples and iterations with which an expert keeps to a planning time while it acts.

    What a plan costs depends on where the env is, and that on the plans: where a Hopper stands,
    samples soon fall and cost little; larger plans make it hop, and theirs live on. So there are
    two fits: where the given settings lead, and where the first fit's lead.

    Args:
        make_expert: Makes the expert for given settings; its env, a `Cloneable`, has been reset and
            is left as it was.
        config: See `fit_to_budget`.
        budget_ms: The same.

    Returns:
        The second fit's settings.

    Raises:
        ValueError: See `fit_to_budget`.
    """
    first = fit_to_budget(config, budget_ms, measure_plan(make_expert, config))
    return fit_to_budget(config, budget_ms, measure_plan(make_expert, first))


def fit_to_budget(
    config: MPPIConfig, budget_ms: float, measure: Callable[[MPPIConfig], float]
) -> MPPIConfig:
    """Choose samples and iterations for a planning time.

    More time than the settings take goes into samples and iterations alike.
    Derivatives that would take far more than it are left out. Where not even a few samples fit,
    the horizon and what is verified beyond it are shortened.
    The speed is measured again with what was chosen, because it depends on the size of the batch.

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


def measure_plan(
    make_expert: Callable[[MPPIConfig], MPPIAgent], config: MPPIConfig
) -> Callable[[MPPIConfig], float]:
    """Return what measures plans of an expert that has been acting for a while.

    Plans from a reset would mislead: an arm that has met the object needs more physics than at
    rest.

    Args:
        make_expert: Makes the expert for given settings; its env, a `Cloneable`, has been reset and
            is left as it was.
        config: What to act with until then.
    """
    with closing(make_expert(config)) as expert:
        env = expert.env
        assert isinstance(env, Cloneable)
        start = env.snapshot()
        ahead, memory = _act(expert, env)
        env.restore(start)

    def measure(candidate: MPPIConfig) -> float:
        warm_start = memory and (_resized(memory[0], candidate.horizon), *memory[1:])
        env.restore(ahead)
        milliseconds = []
        with closing(make_expert(candidate)) as expert:
            for _ in range(3):
                began = time.perf_counter()
                expert.predict(env.last_observation, warm_start)
                milliseconds.append(1e3 * (time.perf_counter() - began))
        env.restore(start)
        return float(np.median(milliseconds))

    return measure


def _act(expert: MPPIAgent, env: Cloneable) -> tuple[EnvState, tuple[np.ndarray, ...] | None]:
    """Act for a while, not beyond the episode; return the state there and the warm start."""
    memory: tuple[np.ndarray, ...] | None = None
    began = time.perf_counter()
    for _ in range(_MOST_STEPS_AHEAD):
        before = env.snapshot(), memory
        action, memory = expert.predict(env.last_observation, memory)
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return before
        if time.perf_counter() - began > _MOST_SECONDS_AHEAD:
            break
    return env.snapshot(), memory


def _resized(nominals: np.ndarray, horizon: int) -> np.ndarray:
    """Cut controls (n, H, nu) to a horizon, or fill them up with zeros."""
    missing = max(0, horizon - nominals.shape[1])
    return np.pad(nominals[:, :horizon], [(0, 0), (0, missing), (0, 0)])


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
