"""The planner: closed-form optimum, and the promises that `Plan` makes."""

from dataclasses import replace

import numpy as np
import pytest
from linear_quadratic import LinearQuadratic, double_integrator, make_states, random_problem

from mppi_agent.interfaces import RolloutBatch
from mppi_agent.planning import (
    MPPI,
    BoxScaling,
    LeafValue,
    MPPIConfig,
    discounted_returns,
    effective_sample_size,
)

STARTS = np.array([[0.3, 0.0], [-0.2, 0.2]])


def as_is(dynamics):
    bound = np.ones(dynamics.b.shape[1])
    return BoxScaling(-bound, bound)


def plan(dynamics, starts=STARTS, *, nominals=None, seed=0, leaf_value=None, **settings):
    config = MPPIConfig(**{"horizon": 10, "discount": 1.0, "num_samples": 16} | settings)
    if nominals is None:
        nominals = np.zeros((len(starts), 1, config.horizon, dynamics.b.shape[1]))
    planner = MPPI(config, dynamics, as_is(dynamics))
    rng = np.random.default_rng(seed)
    return planner.plan(make_states(starts), nominals, rng, leaf_value=leaf_value)


class Opposite:
    """A model on which all that is good looks bad."""

    def __init__(self, dynamics):
        self._dynamics = dynamics

    def rollout(self, states, actions, *, keep_observations=False):
        true = self._dynamics.rollout(states, actions, keep_observations=keep_observations)
        return replace(true, rewards=-true.rewards)


class Cliff:
    """A model that pays 1 per step until a control goes past the edge."""

    def __init__(self, edge):
        self._edge = edge

    def rollout(self, states, actions, *, keep_observations=False):
        gone = actions[..., 0] > self._edge  # (S, K, H)
        horizon = gone.shape[-1]
        lengths = np.where(gone.any(axis=-1), gone.argmax(axis=-1) + 1, horizon)
        alive = np.arange(horizon) < lengths[..., None]
        return RolloutBatch(
            rewards=np.where(alive, 1.0, 0.0),
            terminated=gone.any(axis=-1),
            diverged=np.zeros(lengths.shape, dtype=bool),
            lengths=lengths,
            final_observations=np.zeros((*lengths.shape, 1)),
            sim_steps=int(lengths.sum()),
        )


def search_on(search, dynamics, nominals, **settings):
    config = MPPIConfig(**{"horizon": 10, "discount": 1.0, "num_samples": 16} | settings)
    planner = MPPI(config, dynamics, as_is(dynamics), search=search)
    return planner.plan(make_states(STARTS), nominals, np.random.default_rng(0))


def measure(dynamics, starts, controls, discount=1.0):
    rollout = dynamics.rollout(make_states(starts), controls[:, None])
    return discounted_returns(rollout, discount)[:, 0]


def test_planning_reaches_the_linear_quadratic_optimum():
    dynamics = double_integrator()
    found = plan(dynamics, num_samples=128, iterations=20, noise_decay=0.8)
    for state, start in enumerate(STARTS):
        controls, best_return = dynamics.optimum(start, horizon=10)
        assert abs(best_return - found.best_returns[state]) < 2e-3 * abs(best_return)
        np.testing.assert_allclose(found.controls[state], controls, atol=0.03)


def test_two_iterations_close_most_of_the_gap_and_more_close_more():
    dynamics = double_integrator()
    optimum = np.array([dynamics.optimum(start, 10)[1] for start in STARTS])
    gaps = [optimum - plan(dynamics, iterations=i, num_samples=64).best_returns for i in (1, 2, 5)]
    gap_before = optimum - measure(dynamics, STARTS, np.zeros((2, 10, 1)))
    assert (gaps[1] < 0.15 * gap_before).all()
    assert (gaps[0] > gaps[1]).all() and (gaps[1] > gaps[2]).all()


@pytest.mark.parametrize("seed", range(40))
def test_the_plan_is_measured_within_bounds_and_never_worse_than_a_proposal(seed):
    rng = np.random.default_rng(seed)
    dynamics = random_problem(rng)
    starts = rng.uniform(-1.5, 1.5, (3, len(dynamics.a)))
    nominals = rng.uniform(-1.2, 1.2, (3, 3, 8, dynamics.b.shape[1]))
    found = plan(
        dynamics, starts, nominals=nominals, seed=seed, horizon=8, elites=seed % 3, discount=0.9
    )
    proposed = [measure(dynamics, starts, np.clip(nominals[:, p], -1, 1), 0.9) for p in range(3)]
    assert (np.abs(found.controls) <= 1).all()
    np.testing.assert_allclose(found.nominal_returns, proposed[0])
    assert (found.best_returns >= np.max(proposed, axis=0) - 1e-9).all()
    np.testing.assert_allclose(found.best_returns, measure(dynamics, starts, found.controls, 0.9))
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
    np.testing.assert_allclose(found.ess, effective_sample_size(found.weights))
    hopeless = np.isneginf(found.returns).all(axis=1, keepdims=True)
    assert (found.weights[np.isneginf(found.returns) & ~hopeless] == 0).all()


def test_a_perfect_nominal_is_kept():
    dynamics = double_integrator()
    optimal = np.stack([dynamics.optimum(start, 10)[0] for start in STARTS])
    found = plan(dynamics, nominals=optimal[:, None])
    np.testing.assert_array_equal(found.controls, optimal)


def test_a_good_proposal_is_used_and_a_bad_one_does_no_harm():
    dynamics = double_integrator(diverge_at=0.9)
    optimal = np.stack([dynamics.optimum(start, 10)[0] for start in STARTS])
    bad = np.ones_like(optimal)
    assert np.isneginf(measure(dynamics, STARTS, bad)).all()
    zero = np.zeros_like(optimal)
    helped = plan(dynamics, nominals=np.stack([zero, bad, optimal], axis=1))
    assert (helped.best_returns >= measure(dynamics, STARTS, optimal)).all()
    harmed = plan(dynamics, nominals=np.stack([zero, bad], axis=1))
    assert (harmed.best_returns > 0.5 * harmed.nominal_returns).all()
    assert (harmed.diverged >= 1).all()


def test_each_iteration_is_one_call_and_the_final_mean_is_evaluated():
    dynamics = double_integrator()
    found = plan(dynamics, iterations=3, elites=4)
    assert [call.shape[:2] for call in dynamics.calls] == [(2, 16), (2, 12), (2, 12), (2, 1)]
    assert found.sim_steps == sum(call.shape[0] * call.shape[1] * 10 for call in dynamics.calls)
    assert found.returns.shape == found.weights.shape == (2, 16)


def test_what_samples_leave_of_the_budget_pays_for_more_iterations_within_it():
    def sims(budget_steps, edge):
        config = MPPIConfig(horizon=10, num_samples=16, budget_steps=budget_steps)
        planner = MPPI(config, Cliff(edge), BoxScaling(-np.ones(1), np.ones(1)))
        nominals = np.zeros((2, 1, 10, 1))
        found = planner.plan(make_states(STARTS), nominals, np.random.default_rng(0))
        return found.sim_steps / 2

    most = MPPIConfig(horizon=10, num_samples=16).steps_per_plan
    assert sims(None, edge=0.1) < 0.75 * most
    assert sims(None, edge=0.1) < 0.8 * sims(most, edge=0.1) and sims(most, edge=0.1) <= most
    assert sims(most, edge=1.0) == sims(None, edge=1.0) == most  # nothing falls, nothing is left
    assert sims(5 * most, edge=1.0) > 4 * most
    assert sims(1, edge=1.0) == most  # what was asked for is done


def test_iterations_beyond_those_asked_for_end_where_the_noise_does():
    dynamics = double_integrator()
    plan(dynamics, iterations=1, noise_decay=0.1, budget_steps=10**9)
    assert len(dynamics.calls) == 3 + 1  # noise of 1, 0.1 and 0.01 of the first, the mean


def test_the_nominal_is_the_first_sample_and_later_means_are():
    dynamics = double_integrator()
    nominals = np.full((2, 1, 10, 1), 0.1)
    plan(dynamics, nominals=nominals, iterations=2, temperature=1e9, antithetic=True)
    first, second, final = dynamics.calls
    np.testing.assert_array_equal(first[:, 0], nominals[:, 0])
    # An endless temperature weighs alike, so the next mean is the plain mean of the samples.
    np.testing.assert_allclose(second[:, 0], first.mean(axis=1), atol=1e-6)
    assert final.shape == (2, 1, 10, 1)


def test_several_proposals_are_samples_and_sampling_starts_around_the_best():
    dynamics = double_integrator()
    optimal = np.stack([dynamics.optimum(start, 10)[0] for start in STARTS])
    nominals = np.stack([np.ones_like(optimal), optimal, -np.ones_like(optimal)], axis=1)
    found = plan(dynamics, nominals=nominals, iterations=2, temperature=1e9, elites=2)
    proposed, first, second, final = dynamics.calls
    np.testing.assert_array_equal(proposed, nominals)
    assert [call.shape[1] for call in (first, second, final)] == [13, 14, 1]
    # Mirrored noise cancels, but for one sample left over and clipping at +-1.
    np.testing.assert_allclose(first[:, :12].mean(axis=1), optimal, atol=0.15)
    everything = np.concatenate([proposed, first], axis=1)
    np.testing.assert_allclose(second[:, 0], everything.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.nominal_returns, measure(dynamics, STARTS, nominals[:, 0]))


def test_a_bad_leading_proposal_costs_no_more_than_itself():
    def gap(nominals):
        best = [dynamics.optimum(start, 10)[1] for start in STARTS]
        found = [plan(dynamics, nominals=nominals, seed=seed).best_returns for seed in range(20)]
        return np.mean(np.array(best) - found)

    dynamics = double_integrator()
    good = 0.7 * np.stack([dynamics.optimum(start, 10)[0] for start in STARTS])
    bad = np.where(np.arange(10) % 2 == 0, 1.0, -1.0)[None, :, None] * np.ones_like(good)
    alone, poisoned = gap(good[:, None]), gap(np.stack([bad, good], axis=1))
    assert poisoned < 1.5 * alone  # started around the bad one: 10 times and more
    assert gap(bad[:, None]) > 3 * alone


def test_noise_shrinks_from_one_iteration_to_the_next():
    dynamics = double_integrator()
    plan(dynamics, num_samples=200, iterations=2, noise_std=0.2, noise_decay=0.5, elites=0)
    spread = [np.std(call[:, 1:] - call[:, :1]) for call in dynamics.calls[:2]]
    np.testing.assert_allclose(spread, [0.2, 0.1], rtol=0.1)  # 4,000 numbers: std below 2 %


def test_elites_keep_their_returns_in_the_next_pool():
    dynamics = double_integrator()
    found = plan(dynamics, iterations=2, elites=4)
    first = dynamics.rollout(make_states(STARTS), dynamics.calls[0])
    best = -np.sort(-discounted_returns(first, 1.0), axis=1)[:, :4]
    np.testing.assert_allclose(found.returns[:, -4:], best)


def test_diverged_samples_get_no_weight_and_are_counted():
    dynamics = double_integrator(diverge_at=0.4)
    found = plan(dynamics, iterations=1, noise_std=1.0)
    lost = np.isneginf(found.returns)
    assert lost.any() and not lost.all()
    assert (found.weights[lost] == 0).all()
    np.testing.assert_array_equal(found.diverged, lost.sum(axis=1))


def test_a_state_where_all_diverged_keeps_its_nominal_and_spares_the_others():
    dynamics = double_integrator(diverge_at=5.0)
    starts = np.array([[0.3, 0.0], [100.0, 0.0]])
    nominals = np.full((2, 1, 10, 1), 0.2)
    found = plan(dynamics, starts, nominals=nominals)
    np.testing.assert_array_equal(found.controls[1], nominals[1, 0])
    assert np.isneginf(found.best_returns[1]) and np.isneginf(found.nominal_returns[1])
    assert found.diverged.tolist() == [0, 16 + 12 + 1]
    assert found.best_returns[0] > found.nominal_returns[0]
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)


def test_a_state_where_all_diverged_keeps_its_first_proposal():
    dynamics = double_integrator(diverge_at=5.0)
    starts = np.array([[0.3, 0.0], [100.0, 0.0]])
    nominals = np.stack([np.full((2, 10, 1), 0.2), np.full((2, 10, 1), -0.3)], axis=1)
    found = plan(dynamics, starts, nominals=nominals)
    np.testing.assert_array_equal(found.controls[1], nominals[1, 0])
    assert np.isneginf(found.best_returns[1])
    assert np.isfinite(found.best_returns[0])


def test_reflexes_are_refused_where_plans_do_not_react():
    dynamics = double_integrator()
    with pytest.raises(ValueError, match=r"reflex_std=0.3 needs plans that react.*MPPIAgent"):
        MPPI(MPPIConfig(reflex_std=0.3), dynamics, as_is(dynamics))


def test_a_diverging_nominal_is_replaced():
    dynamics = double_integrator(diverge_at=1.5)
    found = plan(dynamics, nominals=np.full((2, 1, 10, 1), 0.4), num_samples=64)
    assert np.isneginf(found.nominal_returns).all()
    assert np.isfinite(found.best_returns).all()


def test_same_seed_same_plan_and_inputs_are_left_alone():
    dynamics = double_integrator()
    nominals = np.full((2, 2, 10, 1), 1.5)
    states = make_states(STARTS)
    physics = [state.physics.copy() for state in states]
    planner = MPPI(MPPIConfig(horizon=10), dynamics, as_is(dynamics))
    plans = [planner.plan(states, nominals, np.random.default_rng(s)) for s in (3, 3, 4)]
    np.testing.assert_array_equal(plans[0].controls, plans[1].controls)
    np.testing.assert_array_equal(plans[0].returns, plans[1].returns)
    assert not np.array_equal(plans[0].controls, plans[2].controls)
    assert (nominals == 1.5).all()
    for state, before in zip(states, physics, strict=True):
        np.testing.assert_array_equal(state.physics, before)


def test_states_do_not_affect_each_other():
    dynamics = double_integrator()
    one = plan(dynamics, STARTS, iterations=1)
    other = plan(dynamics, np.array([STARTS[0], [5.0, -3.0]]), iterations=1)
    np.testing.assert_array_equal(one.controls[0], other.controls[0])
    np.testing.assert_array_equal(one.weights[0], other.weights[0])


def test_a_mean_within_the_slack_is_preferred_to_the_best_sample():
    dynamics = double_integrator()
    greedy = {"iterations": 1, "temperature": 1e9, "antithetic": False, "seed": 1}
    sampled = plan(dynamics, mean_preference=0.0, **greedy)
    averaged = plan(dynamics, mean_preference=0.999, **greedy)
    samples, mean = dynamics.calls[0], dynamics.calls[1]
    assert (sampled.controls[:, None] == samples).all(axis=(2, 3)).any(axis=1).all()
    assert (averaged.best_returns >= averaged.nominal_returns).all()
    is_mean = (averaged.controls == mean[:, 0]).all(axis=(1, 2))
    is_nominal = (averaged.controls == 0).all(axis=(1, 2))
    assert (is_mean | is_nominal).all()


def test_of_plans_that_survive_alike_the_one_away_from_the_cliff_is_taken():
    nominals = np.full((1, 1, 10, 1), 0.3)
    config = MPPIConfig(horizon=10, num_samples=64, noise_std=0.2, knot_spacing=10)
    planner = MPPI(config, Cliff(edge=0.32), BoxScaling(-np.ones(1), np.ones(1)))
    found = planner.plan(make_states(np.zeros((1, 1))), nominals, np.random.default_rng(0))
    assert found.best_returns == found.nominal_returns
    assert found.controls.mean() < 0.2


def test_leaf_value_counts_discounted_and_only_where_the_episode_goes_on():
    rollout = RolloutBatch(
        rewards=np.array([[[1.0, 2.0], [1.0, 0.0], [np.nan, np.nan]]]),
        terminated=np.array([[False, True, False]]),
        diverged=np.array([[False, False, True]]),
        lengths=np.array([[2, 1, 2]]),
        final_observations=np.zeros((1, 3, 1)),
        sim_steps=5,
    )
    leaf = np.array([[100.0, 100.0, np.nan]])
    np.testing.assert_allclose(discounted_returns(rollout, 0.5), [[2.0, 1.0, -np.inf]])
    np.testing.assert_allclose(discounted_returns(rollout, 0.5, leaf), [[27.0, 1.0, -np.inf]])


def test_rewards_after_termination_and_infinite_sums_do_not_count():
    rollout = RolloutBatch(
        rewards=np.array([[[1.0, 9.0], [np.inf, 0.0]]]),
        terminated=np.array([[True, False]]),
        diverged=np.zeros((1, 2), dtype=bool),
        lengths=np.array([[1, 2]]),
        final_observations=np.zeros((1, 2, 1)),
        sim_steps=3,
    )
    np.testing.assert_array_equal(discounted_returns(rollout, 1.0), [[1.0, -np.inf]])


def test_leaf_value_steers_the_plan():
    still = LinearQuadratic(a=np.eye(1), b=np.eye(1), q=np.zeros((1, 1)), r=np.zeros((1, 1)))
    starts = np.zeros((2, 1))
    right = plan(still, starts, leaf_value=LeafValue(lambda x: x[:, 0], 1.0), iterations=4)
    left = plan(still, starts, leaf_value=LeafValue(lambda x: -x[:, 0], 1.0), iterations=4)
    assert (right.controls.sum(axis=(1, 2)) > 3).all()
    assert (left.controls.sum(axis=(1, 2)) < -3).all()


@pytest.mark.parametrize(("own", "of_values", "counts"), [(0.5, 0.9, 0.9), (1.0, 0.9, 1.0)])
def test_rewards_before_a_leaf_value_are_discounted_as_it_is_or_less(own, of_values, counts):
    start = STARTS[:1]
    nominals = np.full((1, 1, 10, 1), 0.3)
    worth_nothing = LeafValue(lambda x: np.zeros(len(x)), of_values)
    dynamics = double_integrator()
    valued = plan(dynamics, start, nominals=nominals, leaf_value=worth_nothing, discount=own)
    expected = measure(dynamics, start, nominals[:, 0], discount=counts)
    np.testing.assert_allclose(valued.nominal_returns, expected)


def test_leaf_value_sees_every_entry_of_a_dict_observation():
    class DictDynamics(LinearQuadratic):
        def rollout(self, states, actions, *, keep_observations=False):
            batch = super().rollout(states, actions)
            final = {"x": batch.final_observations, "flag": batch.terminated}
            return RolloutBatch(**vars(batch) | {"final_observations": final})

    seen = []

    def value(observations):
        seen.append({name: part.shape for name, part in observations.items()})
        return observations["x"][:, 0]

    base = double_integrator()
    plan(
        DictDynamics(base.a, base.b, base.q, base.r), leaf_value=LeafValue(value, 1.0), iterations=1
    )
    assert seen == [{"x": (32, 2), "flag": (32,)}, {"x": (2, 2), "flag": (2,)}]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, r"leaf_value must return shape \(N,\) = \(32,\), got \(32, 2\)"),
        (
            lambda x: np.full(len(x), np.nan),
            r"leaf_value must be finite .* check the value network",
        ),
    ],
)
def test_bad_leaf_values_are_named(value, message):
    with pytest.raises(ValueError, match=message):
        plan(double_integrator(), leaf_value=LeafValue(value, 1.0))


@pytest.mark.parametrize(
    ("nominals", "message"),
    [
        (np.zeros((2, 10, 1)), r"nominals must have shape .* = \(2, P, 10, 1\).*\[:, None\]"),
        (np.zeros((2, 1, 10, 3)), r"shape .* = \(2, P, 10, 1\), got \(2, 1, 10, 3\)"),
        (np.zeros((3, 1, 10, 1)), r"got \(3, 1, 10, 1\)"),
        (np.zeros((2, 1, 9, 1)), r"got \(2, 1, 9, 1\)"),
        (np.zeros((2, 0, 10, 1)), r"1 to num_samples / 2 = 8 proposals per state, got 0"),
        (np.zeros((2, 9, 10, 1)), r"got 9; pass fewer or raise num_samples"),
        (np.full((2, 1, 10, 1), np.nan), r"nominals must be finite.*check the policy"),
    ],
)
def test_bad_nominals_are_named(nominals, message):
    with pytest.raises(ValueError, match=message):
        plan(double_integrator(), nominals=nominals)


def test_a_temperature_schedule_is_followed():
    found = plan(double_integrator(), iterations=3, temperature=lambda i: 0.1 * 0.5**i)
    np.testing.assert_allclose(found.temperature, 0.025)
    longer = {"iterations": 2, "temperature": lambda i: [0.1, 0.05][i], "budget_steps": 5000}
    np.testing.assert_allclose(plan(double_integrator(), **longer).temperature, 0.05)


def test_the_wanted_effective_sample_size_is_reached_in_the_plan():
    found = plan(double_integrator(), num_samples=50, ess_fraction=0.3)
    np.testing.assert_allclose(found.ess, 15.0, rtol=2e-3)


def test_cubic_correlated_noise_plans_too():
    from mppi_agent.planning import cubic_basis

    found = plan(
        double_integrator(), knot_spacing=3, knot_interpolation=cubic_basis, noise_correlation=0.4
    )
    assert (found.best_returns > 0.6 * found.nominal_returns).all()


def test_a_search_on_the_model_itself_finds_the_same_plan():
    dynamics = double_integrator()
    nominals = np.zeros((2, 1, 10, 1))
    alone = search_on(None, dynamics, nominals)
    verified = search_on(double_integrator(), dynamics, nominals)
    np.testing.assert_array_equal(alone.controls, verified.controls)
    np.testing.assert_array_equal(alone.best_returns, verified.best_returns)
    assert verified.sim_steps == alone.sim_steps + 2 * 3 * 10  # three candidates measured again


@pytest.mark.parametrize(("iterations", "candidates"), [(1, 3), (2, 4)])
def test_a_proposal_that_is_the_best_mean_is_verified_once(iterations, candidates):
    search, dynamics = double_integrator(), double_integrator()
    search_on(search, dynamics, np.zeros((2, 1, 10, 1)), iterations=iterations)
    (verified,) = dynamics.calls  # the proposal, the best mean, the last one, the best sample
    assert verified.shape[:2] == (2, candidates)


def test_what_diverges_only_where_the_search_is_verified_is_counted():
    broken = double_integrator(diverge_at=-1.0)
    found = search_on(double_integrator(), broken, np.zeros((2, 1, 10, 1)))
    assert np.isfinite(found.returns).all()  # of the search
    assert found.diverged.tolist() == [4, 4]  # nominal, best mean, last mean, best sample


def test_a_search_on_a_model_that_misleads_does_no_harm():
    dynamics = double_integrator()
    nominals = np.zeros((2, 1, 10, 1))
    found = search_on(Opposite(dynamics), dynamics, nominals)
    np.testing.assert_array_equal(found.controls, nominals[:, 0])
    np.testing.assert_allclose(found.best_returns, measure(dynamics, STARTS, found.controls))
    np.testing.assert_array_equal(found.nominal_returns, found.best_returns)


def test_a_search_on_a_model_that_misleads_does_not_lose_the_last_plan():
    dynamics = double_integrator()
    last = np.stack([dynamics.optimum(start, 10)[0] for start in STARTS])
    nominals = np.stack([np.zeros_like(last), last], axis=1)  # a policy that rests leads
    found = search_on(Opposite(dynamics), dynamics, nominals)
    np.testing.assert_allclose(found.controls, last)
    np.testing.assert_allclose(found.nominal_returns, measure(dynamics, STARTS, nominals[:, 0]))
