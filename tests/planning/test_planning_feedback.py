"""Plans that react: what they do is what a plain loop does, and the search finds good gains."""

import numpy as np
import pytest
from linear_quadratic import Simulated, double_integrator, make_states

from mppi_agent.dynamics.rollout import ClosedLoop
from mppi_agent.planning import MPPI, BoxScaling, Following, MPPIConfig, Reflexes, noise_matrix
from mppi_agent.planning.feedback import Reacting
from mppi_agent.planning.noise import with_gain_noise

STARTS = np.array([[0.3, 0.0], [-0.2, 0.2]])
UNIT = BoxScaling(-np.ones(1), np.ones(1))


def reacting(num=2):
    return Reflexes(np.zeros(num), np.ones(num), ClosedLoop)


def plan(problem, *, gains=None, seed=0, reflex_std=0.3, **settings):
    config = MPPIConfig(
        **{"horizon": 10, "discount": 1.0, "num_samples": 16, "reflex_std": reflex_std} | settings
    )
    planner = MPPI(config, Simulated(problem), UNIT, feedback=reacting())
    nominals = np.zeros((len(STARTS), 1, config.horizon, 1))
    rng = np.random.default_rng(seed)
    return planner.plan(make_states(STARTS), nominals, rng, gains=gains)


def riccati_gain(problem, horizon):
    """Return u = gain' x of the first step, by the Riccati recursion."""
    value, gain = problem.q, None
    for _ in range(horizon):
        gain = -np.linalg.solve(
            problem.r + problem.b.T @ value @ problem.b, problem.b.T @ value @ problem.a
        )
        closed = problem.a + problem.b @ gain
        value = problem.q + gain.T @ problem.r @ gain + closed.T @ value @ closed
    return gain


def test_what_is_done_equals_a_plain_loop_over_samples_and_steps():
    problem = double_integrator(terminate_at=0.5)
    rng = np.random.default_rng(1)
    parameters = rng.normal(scale=1.0, size=(2, 5, 8 + 3, 1))
    reflexes = Reflexes(np.array([0.1, -0.2]), np.array([0.5, 0.0]), ClosedLoop)
    roll = Reacting(Simulated(problem), UNIT, reflexes)
    roll(make_states(STARTS), parameters[:, :2], keep_observations=False)  # fewer, before
    controls, actions, rollout = roll(make_states(STARTS), parameters, keep_observations=False)
    assert rollout.terminated.any() and not rollout.terminated.all()
    for s, start in enumerate(STARTS):
        for k in range(5):
            x, done = start, []
            for h in range(8):
                first = np.clip((x[0] - 0.1) / 0.5, -5, 5)
                reaction = first * parameters[s, k, 8] + parameters[s, k, 10]  # one has no spread
                u = np.clip(parameters[s, k, h] + reaction, -1, 1)
                x = problem.a @ x + problem.b @ u
                done.append(u)
                if abs(x[0]) > 0.5:
                    break
            assert rollout.lengths[s, k] == len(done)
            np.testing.assert_allclose(controls[s, k, : len(done)], done, atol=1e-12)
            np.testing.assert_array_equal(controls[s, k, len(done) :], 0)
            np.testing.assert_allclose(rollout.final_observations[s, k], x, atol=1e-12)
    np.testing.assert_array_equal(actions, controls)


def test_a_plan_that_reacts_is_worth_what_its_controls_are_worth():
    problem = double_integrator()
    found = plan(problem, iterations=3)
    assert (np.abs(found.gains) > 0).any()
    again = problem.rollout(make_states(STARTS), found.controls[:, None]).rewards.sum(axis=-1)
    np.testing.assert_allclose(again[:, 0], found.best_returns)
    assert (found.best_returns >= found.nominal_returns).all()


def test_planning_with_reflexes_reaches_the_linear_quadratic_optimum():
    problem = double_integrator()
    found = plan(problem, num_samples=128, iterations=20, noise_decay=0.8)
    for state, start in enumerate(STARTS):
        best = problem.optimum(start, horizon=10)[1]
        assert abs(best - found.best_returns[state]) < 5e-3 * abs(best)


def test_the_first_nominal_reacts_by_the_gains_handed_in():
    problem = double_integrator()
    gains = np.concatenate([riccati_gain(problem, 60).T, np.zeros((1, 1))])
    found = plan(problem, gains=np.stack([gains, gains]), horizon=60, num_samples=8, iterations=1)
    for state, start in enumerate(STARTS):
        best = problem.optimum(start, horizon=60)[1]
        # The gain of the infinite horizon is a little off near the end of a finite one.
        assert best * 1.01 < found.nominal_returns[state] <= best


def test_same_seed_same_plan_and_states_do_not_touch_each_other():
    problem = double_integrator()
    first, again = plan(problem, iterations=2), plan(problem, iterations=2)
    np.testing.assert_array_equal(first.gains, again.gains)
    np.testing.assert_array_equal(first.controls, again.controls)
    assert not np.array_equal(first.gains[0], first.gains[1])


@pytest.mark.parametrize(("share", "least"), [(1.0, 0.0), (0.5, 0.5)])
def test_deviations_make_up_for_what_a_policy_lacks(share, least):
    problem, horizon = double_integrator(), 60
    gain = share * riccati_gain(problem, horizon).T
    config = MPPIConfig(horizon=horizon, discount=1.0, iterations=20, noise_std=0.2)
    policy = Following(lambda seen: seen @ gain, ClosedLoop)
    planner = MPPI(config, Simulated(problem), UNIT, feedback=policy)
    nominals = np.zeros((len(STARTS), 1, horizon, 1))
    found = planner.plan(make_states(STARTS), nominals, np.random.default_rng(0))
    best = np.array([problem.optimum(start, horizon=horizon)[1] for start in STARTS])
    lost, left = best - found.nominal_returns, best - found.best_returns
    assert (left >= -1e-9).all()
    assert (left <= (1 - least) * lost).all()
    assert (lost < 0.01 * -best).all() == (share == 1.0)
    assert found.gains.shape == (2, 0, 1)


def test_without_reflexes_a_plan_is_its_controls():
    problem = double_integrator()
    planner = MPPI(MPPIConfig(horizon=5), problem, UNIT)
    found = planner.plan(make_states(STARTS), np.zeros((2, 1, 5, 1)), np.random.default_rng(0))
    np.testing.assert_array_equal(found.feedforward, found.controls)
    assert found.gains.shape == (2, 0, 1)


def test_noise_of_gains_adds_up_to_its_share_of_the_noise_of_controls():
    joint = with_gain_noise(noise_matrix(6, 2, 0.0), num_gains=4, ratio=3.0)
    assert joint.shape == (10, 4 + 4)
    white = np.random.default_rng(0).standard_normal((20_000, joint.shape[1]))
    noise = white @ joint.T
    # 20,000 draws: the std of an estimated std is 0.5 %, so 5 % fails less than once in 1e20.
    assert noise[:, :6].std() == pytest.approx(1.0, rel=0.05)
    assert noise[:, 6:].sum(axis=1).std() == pytest.approx(3.0, rel=0.05)
    assert abs(np.corrcoef(noise[:, 0], noise[:, 7])[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        (np.zeros((2, 2, 1)), r"gains must be finite and of shape \(S, d, nu\) = \(2, 3, 1\), got"),
        (np.full((2, 3, 1), np.nan), "gains must be finite"),
    ],
)
def test_bad_gains_are_named(gains, message):
    with pytest.raises(ValueError, match=message):
        plan(double_integrator(), gains=gains)


@pytest.mark.parametrize("reflex_std", [-0.1, np.inf, np.nan])
def test_a_bad_reflex_std_is_named(reflex_std):
    with pytest.raises(ValueError, match=r"reflex_std=.* must be >= 0 and finite; use 0\.3"):
        MPPIConfig(reflex_std=reflex_std)


@pytest.mark.parametrize("noise_fade", [-0.1, np.inf, np.nan])
def test_a_bad_noise_fade_is_named(noise_fade):
    with pytest.raises(ValueError, match=r"noise_fade=.* must be >= 0 and finite; use 4 on top"):
        MPPIConfig(noise_fade=noise_fade)
