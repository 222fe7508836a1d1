"""Iterative LQR: exact where the problem is linear-quadratic, and only ever a proposal."""

import numpy as np
import pytest
from linear_quadratic import Simulated, double_integrator, make_states

from mppi_agent.dynamics.coordinates import VectorCoordinates
from mppi_agent.planning import MPPI, BoxScaling, IterativeLQR, MPPIConfig
from mppi_agent.planning.lqr import most_env_steps

UNIT = BoxScaling(-np.ones(1), np.ones(1))
PLAIN = VectorCoordinates(2)
HORIZON = 10


def make_lqr(problem, steps=1, discount=1.0):
    config = MPPIConfig(horizon=HORIZON, discount=discount, lqr_steps=steps)
    return IterativeLQR(config, Simulated(problem), UNIT, PLAIN)


def improved(problem, starts, controls=None, **settings):
    if controls is None:
        controls = np.zeros((len(starts), HORIZON, 1))
    return make_lqr(problem, **settings).improve(make_states(starts), controls)[0]


def returns(problem, starts, controls):
    return problem.rollout(make_states(starts), controls[:, None]).rewards.sum(axis=-1)[:, 0]


def test_one_step_solves_a_linear_quadratic_problem():
    problem, starts = double_integrator(), np.array([[0.3, 0.0], [-0.2, 0.2]])
    controls = improved(problem, starts)
    for start, found, reached in zip(
        starts, controls, returns(problem, starts, controls), strict=True
    ):
        best, best_return = problem.optimum(start, HORIZON)
        np.testing.assert_allclose(found, best, atol=2e-3)
        assert reached == pytest.approx(best_return, abs=1e-5)


def test_more_steps_come_closer_to_the_optimum():
    problem, starts = double_integrator(), np.array([[0.3, 0.0]])
    _, best = problem.optimum(starts[0], HORIZON)
    once, thrice = (improved(problem, starts, steps=steps) for steps in (1, 3))
    gaps = [best - returns(problem, starts, controls)[0] for controls in (once, thrice)]
    assert 0 <= gaps[1] < gaps[0]


def test_an_unstable_plan_is_caught():
    problem = double_integrator(terminate_at=0.8)
    problem.a[0, 0] = 1.2  # what strays by 0.2 is past the end after eight steps
    starts = np.array([[0.2, 0.0]])
    kept = problem.rollout(make_states(starts), improved(problem, starts, steps=3)[:, None])
    nothing = problem.rollout(make_states(starts), np.zeros((1, 1, HORIZON, 1)))
    assert nothing.terminated.all() and not kept.terminated.any()


def test_controls_stay_in_their_bounds():
    starts = np.array([[20.0, 0.0]])
    controls = improved(double_integrator(), starts, steps=3)
    assert np.abs(controls).max() == 1.0
    assert (returns(double_integrator(), starts, controls) > -np.inf).all()


def test_a_control_at_its_bound_comes_back_from_it():
    problem, starts = double_integrator(), np.array([[0.0, 0.0]])
    controls = improved(problem, starts, np.ones((1, HORIZON, 1)), steps=2)
    assert np.abs(controls).max() < 0.05


def test_what_cannot_be_improved_comes_back_as_it_was():
    problem, starts = double_integrator(), np.array([[0.3, 0.0]])
    problem.b[:] = 0.0  # controls only cost
    assert not improved(problem, starts).any()


def test_what_is_given_is_left_alone():
    given = np.full((1, HORIZON, 1), 0.3)
    before = given.copy()
    assert not np.array_equal(improved(double_integrator(), [[0.3, 0.0]], given), before)
    assert np.array_equal(given, before)


def test_a_plan_that_falls_at_once_is_caught_from_the_start():
    problem = double_integrator(terminate_at=0.5)
    problem.a[0, 0] = 1.2
    starts, given = np.array([[0.2, 0.0]]), np.ones((1, HORIZON, 1))
    fallen = problem.rollout(make_states(starts), given[:, None])
    kept = problem.rollout(make_states(starts), improved(problem, starts, given)[:, None])
    assert fallen.lengths[0, 0] < 5 and not kept.terminated.any()


def test_env_steps_are_counted_and_bounded():
    problem = double_integrator()
    simulated = Simulated(problem)
    stepped = []
    made = simulated.simulations

    def counting(num):
        simulations = made(num)
        step = simulations.step

        def count(actions, indices=None):
            stepped.append(len(actions))
            return step(actions, indices)

        simulations.step = count
        return simulations

    simulated.simulations = counting
    lqr = IterativeLQR(MPPIConfig(horizon=HORIZON, lqr_steps=1), simulated, UNIT, PLAIN)
    _, sim_steps = lqr.improve(make_states([[0.3, 0.0]]), np.zeros((1, HORIZON, 1)))
    assert sim_steps == sum(stepped) <= most_env_steps(PLAIN, 1, HORIZON)


def plan(config, **parts):
    problem = Simulated(double_integrator())
    planner = MPPI(config, problem, UNIT, **parts)
    nominals = np.zeros((1, 1, config.horizon, 1))
    return planner.plan(make_states([[0.3, 0.0]]), nominals, np.random.default_rng(0))


def test_the_planner_takes_it_among_its_proposals():
    settings = {"horizon": HORIZON, "num_samples": 8, "discount": 1.0}
    sampled = plan(MPPIConfig(**settings))
    helped = plan(MPPIConfig(**settings, lqr_steps=1), coordinates=PLAIN)
    _, best = double_integrator().optimum(np.array([0.3, 0.0]), HORIZON)
    assert helped.best_returns[0] == pytest.approx(best, abs=1e-5)
    assert sampled.best_returns[0] < best - 1e-3
    assert helped.nominal_returns == sampled.nominal_returns  # still that of the given nominal
    extra = helped.sim_steps - sampled.sim_steps
    assert 0 < extra <= most_env_steps(PLAIN, 1, HORIZON)


def test_a_planner_without_coordinates_says_what_is_missing():
    with pytest.raises(ValueError, match="lqr_steps=1 needs coordinates"):
        plan(MPPIConfig(horizon=HORIZON, lqr_steps=1))


def test_a_budget_that_samples_use_up_leaves_no_steps_for_it():
    config = MPPIConfig(horizon=HORIZON, num_samples=8, iterations=1, lqr_steps=3)
    tight = MPPIConfig(**{**vars(config), "budget_steps": config.steps_per_plan})
    once = tight.steps_per_plan + most_env_steps(PLAIN, 1, HORIZON)
    roomy = MPPIConfig(**{**vars(config), "budget_steps": once})
    start = MPPIConfig(**{**vars(config), "budget_steps": tight.steps_per_plan + 100})
    assert plan(tight, coordinates=PLAIN).sim_steps <= tight.steps_per_plan
    around_start = plan(start, coordinates=PLAIN)
    assert tight.steps_per_plan < around_start.sim_steps <= tight.steps_per_plan + 100
    assert tight.steps_per_plan < plan(roomy, coordinates=PLAIN).sim_steps <= once


def test_derivatives_do_not_depend_on_how_many_simulations_run_at_once(monkeypatch):
    starts = np.array([[0.3, 0.1]])
    at_once = improved(double_integrator(), starts)
    monkeypatch.setattr("mppi_agent.planning.lqr._MOST_SIMULATIONS", 7)
    assert np.array_equal(improved(double_integrator(), starts), at_once)


@pytest.mark.filterwarnings("error")
def test_derivatives_beyond_all_bounds_do_no_harm():
    problem = double_integrator()
    problem.a *= 1e40
    controls = improved(problem, np.array([[0.3, 0.1]]), steps=2)
    assert np.isfinite(controls).all() and np.abs(controls).max() <= 1.0


def test_actuators_that_do_the_same_are_no_trouble():
    problem, starts = double_integrator(), np.array([[0.3, 0.0]])
    problem.b = np.repeat(problem.b, 2, axis=1)
    problem.r = np.zeros((2, 2))
    scaling = BoxScaling(-np.ones(2), np.ones(2))
    config = MPPIConfig(horizon=HORIZON, discount=1.0, lqr_steps=2)
    lqr = IterativeLQR(config, Simulated(problem), scaling, PLAIN)
    nothing = np.zeros((1, HORIZON, 2))
    controls, _ = lqr.improve(make_states(starts), nothing)
    assert returns(problem, starts, controls)[0] > returns(problem, starts, nothing)[0]
