"""Fitting the planner to a time: closed forms of what a plan costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent import budget
from mppi_agent.budget import fit_expert, fit_to_budget, measure_plan
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import make_dynamics
from mppi_agent.expert import MPPIAgent
from mppi_agent.interfaces import EnvState
from mppi_agent.planning import MPPIConfig

CONFIG = MPPIConfig(num_samples=64, horizon=20, iterations=2, elites=4)


def machine(ms_per_step: float, overhead_ms: float = 0.0):
    """Return what measures plans on a machine of known speed, and the settings it was asked for."""
    asked = []

    def measure(config: MPPIConfig) -> float:
        asked.append(config)
        return overhead_ms + ms_per_step * config.steps_per_plan

    return measure, asked


@pytest.mark.parametrize("overhead_ms", [0.0, 5.0])
@pytest.mark.parametrize("budget_ms", [20.0, 50.0, 500.0])
def test_the_budget_is_used_and_kept(budget_ms, overhead_ms):
    measure, _ = machine(0.02, overhead_ms)
    fitted = fit_to_budget(CONFIG, budget_ms, measure)
    assert 0.85 * budget_ms < measure(fitted) <= budget_ms
    assert fitted.horizon == CONFIG.horizon


def test_a_budget_in_time_overrules_one_in_steps():
    measure, _ = machine(0.02)
    fitted = fit_to_budget(replace(CONFIG, budget_steps=10**6), 50.0, measure)
    assert 0.85 * 50.0 < measure(fitted) <= 50.0


def test_a_budget_for_fewer_than_a_few_samples_shortens_the_horizon():
    measure, _ = machine(0.1)
    fitted = fit_to_budget(CONFIG, 10.0, measure)
    assert fitted.horizon < 20 and fitted.num_samples >= 8
    assert measure(fitted) <= 10.0


@pytest.mark.parametrize(("budget_ms", "lqr_steps"), [(50.0, 3), (10.0, 0)])
def test_derivatives_go_where_they_would_take_far_more_than_the_budget(budget_ms, lqr_steps):
    def measure(config: MPPIConfig) -> float:
        return 0.005 * config.steps_per_plan + 6.0 * config.lqr_steps

    fitted = fit_to_budget(replace(CONFIG, lqr_steps=3), budget_ms, measure)
    assert fitted.lqr_steps == lqr_steps
    assert measure(fitted) <= budget_ms and fitted.horizon == CONFIG.horizon


def test_a_small_budget_verifies_less():
    config = MPPIConfig(horizon=50, verify_steps=250)
    measure, _ = machine(0.01)
    fitted = fit_to_budget(config, 10.0, measure)
    assert 0 < fitted.verify_steps < 250 and measure(fitted) <= 10.0


def test_it_measures_again_because_large_batches_are_faster():
    def measure(config: MPPIConfig) -> float:
        return 20 + 0.001 * config.steps_per_plan

    fitted = fit_to_budget(CONFIG, 50.0, measure)
    assert 40.0 < measure(fitted) <= 50.0


def test_settings_within_the_budget_are_only_enlarged():
    # Most of the time goes into steps that all samples take together, as where plans fall early.
    measure, _ = machine(ms_per_step=0.001, overhead_ms=70.0)
    fitted = fit_to_budget(CONFIG, 100.0, measure)
    assert fitted.horizon == CONFIG.horizon and fitted.iterations >= CONFIG.iterations
    assert fitted.num_samples >= CONFIG.num_samples


@pytest.mark.parametrize("budget_ms", [0.0, -1.0, float("nan")])
def test_a_budget_that_is_none_is_refused(budget_ms):
    with pytest.raises(ValueError, match="budget_ms must be > 0 and finite"):
        fit_to_budget(CONFIG, budget_ms, machine(1.0)[0])


def test_a_budget_too_small_for_any_plan_says_so():
    with pytest.raises(ValueError, match=r"budget_ms=1.0 is too small: .* raise the budget"):
        fit_to_budget(CONFIG, 1.0, machine(1.0)[0])


class Clocked:
    """Dynamics with a clock of its own, which stands still but for simulated steps.

    One takes what `cost` says, in seconds, of the env's elapsed steps and of the most samples that
    plans had in the first 40.
    """

    def __init__(self, env: Cloneable, cost: Callable[[int, int], float]) -> None:
        self.seconds = 0.0
        self._dynamics, self._env, self._cost = make_dynamics(env), env, cost
        self._most_samples = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dynamics, name)

    def rollout(self, states: Sequence[EnvState], actions: np.ndarray, **options: Any) -> Any:
        elapsed = self._env.get_wrapper_attr("_elapsed_steps")
        if elapsed < 40:
            self._most_samples = max(self._most_samples, actions.shape[1]) if elapsed else 0
        self.seconds += self._cost(elapsed, self._most_samples) * np.prod(actions.shape[:3])
        return self._dynamics.rollout(states, actions, **options)


@pytest.fixture
def clocked(monkeypatch) -> Callable[..., Clocked]:
    """Return what makes `Clocked` dynamics, by whose clock plans are timed."""

    def make(env: Cloneable, cost: Callable[[int, int], float]) -> Clocked:
        dynamics = Clocked(env, cost)
        monkeypatch.setattr(budget.time, "perf_counter", lambda: dynamics.seconds)
        return dynamics

    return make


def test_plans_are_measured_where_acting_leads(clocked):
    env = Cloneable(gym.make("Pendulum-v1"))
    env.reset(seed=0)
    before = env.snapshot()
    dynamics = clocked(env, lambda elapsed, _: 3e-6 if elapsed >= 40 else 1e-6)
    measure = measure_plan(lambda config: MPPIAgent(env, config, dynamics=dynamics), CONFIG)
    assert env.get_wrapper_attr("_elapsed_steps") == 0
    for config in (CONFIG, CONFIG.resized(num_samples=8, horizon=5)):
        assert measure(config) == pytest.approx(3e-3 * config.steps_per_plan)
        assert (env.snapshot().physics == before.physics).all()
        assert env.get_wrapper_attr("_elapsed_steps") == 0


def test_acting_until_then_does_not_take_for_ever(clocked):
    env = Cloneable(gym.make("Pendulum-v1"))
    env.reset(seed=0)
    dynamics = clocked(env, lambda *_: 1.0)
    measure_plan(lambda config: MPPIAgent(env, config, dynamics=dynamics), CONFIG)
    assert dynamics.seconds == CONFIG.steps_per_plan


def test_plans_keep_to_the_budget_where_they_lead_themselves(clocked):
    # As a Hopper: it stands until larger plans make it hop, and then samples fall no more.
    env = Cloneable(gym.make("Pendulum-v1"))
    env.reset(seed=0)
    dynamics = clocked(
        env,
        lambda elapsed, samples: 3e-6 if elapsed >= 40 and samples > CONFIG.num_samples else 1e-6,
    )

    def make_expert(config: MPPIConfig) -> MPPIAgent:
        return MPPIAgent(env, config, dynamics=dynamics)

    where_config_leads = measure_plan(make_expert, CONFIG)
    budget_ms = 6 * where_config_leads(CONFIG)
    too_large = fit_to_budget(CONFIG, budget_ms, where_config_leads)
    assert measure_plan(make_expert, too_large)(too_large) > 2 * budget_ms
    fitted = fit_expert(make_expert, CONFIG, budget_ms)
    assert 0.8 * budget_ms < measure_plan(make_expert, fitted)(fitted) <= budget_ms
    assert env.get_wrapper_attr("_elapsed_steps") == 0


@pytest.mark.parametrize("acted_on", [10, 20, 30])
def test_plans_of_any_horizon_are_measured(acted_on):
    env = Cloneable(gym.make("Pendulum-v1"))
    env.reset(seed=0)
    shape = {"num_samples": 8, "iterations": 1}
    config = replace(CONFIG, **shape).resized(horizon=acted_on)
    measure = measure_plan(lambda config: MPPIAgent(env, config), config)
    assert measure(replace(config, horizon=20)) > 0


@pytest.mark.parametrize("limit", [1, 2, 40])
def test_an_episode_that_ends_before_plans_are_measured_is_no_error(limit):
    env = Cloneable(gym.make("Pendulum-v1", max_episode_steps=limit))
    env.reset(seed=0)
    assert measure_plan(lambda config: MPPIAgent(env, config), CONFIG)(CONFIG) > 0
    assert env.get_wrapper_attr("_elapsed_steps") == 0


def test_reflexes_are_part_of_the_warm_start():
    config = replace(CONFIG, reflex_std=0.3)
    env = Cloneable(gym.make("InvertedPendulum-v5"))
    env.reset(seed=0)
    assert measure_plan(lambda config: MPPIAgent(env, config), config)(config) > 0
