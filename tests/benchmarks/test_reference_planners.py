from __future__ import annotations

import numpy as np
import pytest
from reference_planners import CEM, ICEM, PredictiveSampling, coloured_noise

from tests.planning.linear_quadratic import double_integrator, make_states

HORIZON = 12
START = np.array([0.8, -0.4])
# Settings with which many samples converge; the published ones aim at few.
PLANNERS = {
    "predictive sampling": (PredictiveSampling, {"num_knots": HORIZON, "noise_std": 0.05}),
    "CEM": (CEM, {"iterations": 12}),
    "iCEM": (ICEM, {"beta": 0.25, "num_elites": 50, "iterations": 15, "decay": 1.0}),
}


class Recorder:
    """Answers as an objective and remembers what it was asked."""

    def __init__(self, returns_of):
        self.returns_of = returns_of
        self.calls = []

    def __call__(self, controls):
        returns = self.returns_of(controls)
        self.calls.append((controls.copy(), returns))
        return returns

    @property
    def num_rollouts(self):
        return sum(len(returns) for _, returns in self.calls)

    @property
    def best(self):
        controls = np.concatenate([controls for controls, _ in self.calls])
        returns = np.concatenate([returns for _, returns in self.calls])
        return controls[returns.argmax()], returns.max()


def linear_quadratic(start=START):
    problem = double_integrator()
    return lambda controls: problem.rollout(make_states([start]), controls[None]).rewards[0].sum(1)


def towards(target):
    return lambda controls: -np.square(controls - target).sum(axis=(1, 2))


@pytest.mark.parametrize("kind", PLANNERS)
@pytest.mark.parametrize("seed", range(3))
def test_a_linear_quadratic_problem_is_solved(kind, seed):
    best_controls, best_return = double_integrator().optimum(START, HORIZON)
    assert np.abs(best_controls).max() < 1  # the bounds do not matter
    make, settings = PLANNERS[kind]
    planner = make(HORIZON, 1, 5000, np.random.default_rng(seed), **settings)
    recorder = Recorder(linear_quadratic())
    action = planner.act(recorder)
    of_zeros = linear_quadratic()(np.zeros((1, HORIZON, 1)))[0]
    assert recorder.best[1] > best_return + 0.01 * (of_zeros - best_return)
    np.testing.assert_allclose(action, best_controls[0], atol=0.06)


@pytest.mark.parametrize("kind", PLANNERS)
def test_a_linear_quadratic_problem_is_solved_step_by_step(kind):
    problem = double_integrator()
    planner = PLANNERS[kind][0](HORIZON, 1, 300, np.random.default_rng(0))
    x, total, steps = START, 0.0, 40
    for _ in range(steps):
        u = planner.act(linear_quadratic(x))
        x = problem.a @ x + problem.b @ u
        total -= x @ problem.q @ x + u @ problem.r @ u
    _, best_return = problem.optimum(START, steps)
    assert total > 1.2 * best_return  # both are negative; doing nothing costs 144 times that


@pytest.mark.parametrize("kind", PLANNERS)
@pytest.mark.parametrize("num_rollouts", [8, 9, 20, 41, 100, 500])
def test_the_budget_is_used_and_never_exceeded(kind, num_rollouts):
    planner = PLANNERS[kind][0](HORIZON, 2, num_rollouts, np.random.default_rng(0))
    for _ in range(3):
        recorder = Recorder(towards(0.5))
        planner.act(recorder)
        assert 0.75 * num_rollouts <= recorder.num_rollouts <= num_rollouts


@pytest.mark.parametrize("kind", PLANNERS)
def test_controls_stay_within_their_bounds(kind):
    planner = PLANNERS[kind][0](HORIZON, 2, 100, np.random.default_rng(0))
    recorder = Recorder(lambda controls: controls.sum(axis=(1, 2)))
    for _ in range(5):
        action = planner.act(recorder)
    assert max(np.abs(controls).max() for controls, _ in recorder.calls) <= 1
    assert (action > 0.8).all()


@pytest.mark.parametrize("kind", PLANNERS)
def test_diverged_rollouts_are_not_followed(kind):
    def returns_of(controls):
        return np.where(controls[:, 0, 0] > 0, -np.inf, controls[:, 0, 0])

    planner = PLANNERS[kind][0](HORIZON, 1, 100, np.random.default_rng(0))
    assert planner.act(returns_of)[0] <= 0


@pytest.mark.parametrize("kind", PLANNERS)
def test_too_small_a_budget_is_refused(kind):
    with pytest.raises(ValueError, match="num_rollouts must be >= 8, got 7"):
        PLANNERS[kind][0](HORIZON, 1, 7, np.random.default_rng(0))


def test_predictive_sampling_never_leaves_its_nominal_for_worse():
    planner = PredictiveSampling(HORIZON, 1, 100, np.random.default_rng(0), num_knots=4)
    recorder = Recorder(linear_quadratic())
    planner.act(recorder)
    best_of_round = [returns.max() for _, returns in recorder.calls]
    assert len(best_of_round) == 10
    assert best_of_round == sorted(best_of_round)
    for (_, earlier), (_, later) in zip(recorder.calls, recorder.calls[1:], strict=False):
        assert later[0] == pytest.approx(earlier.max())


@pytest.mark.parametrize("num_knots", [HORIZON, 4])
def test_predictive_sampling_starts_from_its_plan_one_step_later(num_knots):
    planner = PredictiveSampling(
        HORIZON, 1, 100, np.random.default_rng(0), num_knots=num_knots, num_samples=100
    )
    before = Recorder(towards(np.linspace(0.5, -0.5, HORIZON)[:, None]))
    action = planner.act(before)
    after = Recorder(towards(0.0))
    planner.act(after)
    winner, nominal = before.best[0], after.calls[0][0][0]
    np.testing.assert_allclose(action, winner[0])
    # With a knot on every step exactly; the others are read off the old curve at the knots.
    knots = np.arange(0, HORIZON - 1, 1 if num_knots == HORIZON else 4)
    np.testing.assert_allclose(nominal[knots], winner[knots + 1], atol=1e-12)


def test_predictive_sampling_needs_two_knots():
    with pytest.raises(ValueError, match="num_knots must be >= 2, got 1"):
        PredictiveSampling(HORIZON, 1, 100, np.random.default_rng(0), num_knots=1)


def test_cem_samples_within_two_standard_deviations():
    recorder = Recorder(towards(0.0))
    CEM(HORIZON, 1, 1000, np.random.default_rng(0), init_std=0.1, iterations=1).act(recorder)
    (controls, _) = recorder.calls[0]
    assert 0.19 < np.abs(controls).max() <= 0.2


def test_cem_acts_on_the_mean_of_its_elites():
    recorder = Recorder(towards(0.3))
    planner = CEM(HORIZON, 1, 100, np.random.default_rng(0), iterations=1, momentum=0.25)
    action = planner.act(recorder)
    controls, returns = recorder.calls[0]
    elites = controls[np.argsort(-returns)[:10]]
    np.testing.assert_allclose(action, 0.75 * elites[:, 0].mean(axis=0))


def test_icem_has_the_published_numbers_of_samples():
    assert ICEM(30, 1, 100, np.random.default_rng(0)).num_samples == [40, 32, 25]


def test_icem_acts_on_the_best_sample_that_it_measured():
    planner = ICEM(HORIZON, 1, 100, np.random.default_rng(0))
    for _ in range(3):
        recorder = Recorder(linear_quadratic())
        np.testing.assert_array_equal(planner.act(recorder), recorder.best[0][0])


def test_icem_tries_its_shifted_elites_again():
    planner = ICEM(HORIZON, 1, 100, np.random.default_rng(0))
    before, after = Recorder(towards(0.2)), Recorder(towards(0.2))
    planner.act(before)
    planner.act(after)
    everything = np.concatenate([controls for controls, _ in before.calls])
    returns = np.concatenate([returns for _, returns in before.calls])
    elites = everything[np.argsort(-returns)[:3]]
    np.testing.assert_array_equal(after.calls[0][0][-3:, :-1], elites[:, 1:])


def test_icem_evaluates_its_mean_in_the_last_iteration():
    planner = ICEM(HORIZON, 1, 100, np.random.default_rng(0), momentum=0.0)
    recorder = Recorder(towards(0.2))
    planner.act(recorder)
    kept = np.zeros((0, HORIZON, 1)), np.zeros(0)
    for controls, returns in recorder.calls[:-1]:
        pool = np.concatenate([controls, kept[0]])
        order = np.argsort(-np.concatenate([returns, kept[1]]), kind="stable")[:10]
        elites, elite_returns = pool[order], np.concatenate([returns, kept[1]])[order]
        kept = elites[:3], elite_returns[:3]
    np.testing.assert_allclose(recorder.calls[-1][0][0], elites.mean(axis=0))


@pytest.mark.parametrize("horizon", [30, 31])
@pytest.mark.parametrize("beta", [0.0, 0.25, 2.0])
def test_noise_has_the_colour_asked_for(beta, horizon):
    # 4,000 sequences: the relative error of each power is about 2 %, so 12 % is 6 sigma.
    noise = coloured_noise(beta, (2000, horizon, 2), np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(noise, axis=1))).mean(axis=(0, 2))
    frequency = np.fft.rfftfreq(horizon)
    expected = power[1] * (frequency[1:] / frequency[1]) ** -beta
    np.testing.assert_allclose(power[1:], expected, rtol=0.12)
    assert power[0] == pytest.approx(power[1], rel=0.12)  # the constant part
    varying = noise - noise.mean(axis=1, keepdims=True)
    assert np.square(varying).mean() == pytest.approx(1.0, rel=0.05)


def test_noise_of_a_single_step_is_white():
    noise = coloured_noise(2.0, (4000, 1, 1), np.random.default_rng(0))
    assert noise.std() == pytest.approx(1.0, rel=0.07)  # 6 sigma
