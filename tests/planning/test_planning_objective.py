"""Terms that rank plans: their closed forms, and what they change and leave alone in a plan."""

from __future__ import annotations

import numpy as np
import pytest
from linear_quadratic import LinearQuadratic, double_integrator, make_states

from mppi_agent.interfaces import RolloutBatch
from mppi_agent.planning import (
    MPPI,
    ActionRate,
    BoxScaling,
    Constraint,
    LeafValue,
    LostFuture,
    MPPIConfig,
    Novelty,
    Objective,
    OngoingReward,
    PolicyPrior,
    RewardTerm,
    Trajectories,
    discounted_returns,
    softmax_weights,
)

STARTS = np.array([[0.3, 0.0], [-0.2, 0.2]])
DISCOUNT = 0.5


def plan(dynamics, *terms, starts=STARTS, previous=None, leaf_value=None, seed=0, **settings):
    config = MPPIConfig(**{"horizon": 10, "discount": 1.0, "num_samples": 32} | settings)
    bound = np.ones(dynamics.b.shape[1])
    planner = MPPI(config, dynamics, BoxScaling(-bound, bound), Objective(terms))
    return planner.plan(
        make_states(starts),
        np.zeros((len(starts), 1, config.horizon, dynamics.b.shape[1])),
        np.random.default_rng(seed),
        leaf_value=leaf_value,
        previous_controls=previous,
    )


def own_return(dynamics, controls, starts=STARTS, discount=1.0):
    rollout = dynamics.rollout(make_states(starts), controls[:, None])
    return discounted_returns(rollout, discount)[:, 0]


def path_of(dynamics, controls, starts=STARTS):
    states = make_states(starts)
    return dynamics.rollout(states, controls[:, None], keep_observations=True).observations[:, 0]


def trajectories(rewards, *, lengths=None, terminated=None, controls=None, observations=None, **k):
    """Return what terms see of rewards (S, K, H)."""
    rewards = np.asarray(rewards, dtype=float)
    shape = rewards.shape
    lengths = np.full(shape[:2], shape[2]) if lengths is None else np.asarray(lengths)
    terminated = np.zeros(shape[:2], bool) if terminated is None else np.asarray(terminated)
    rollout = RolloutBatch(
        rewards=rewards,
        terminated=terminated,
        diverged=np.zeros(shape[:2], bool),
        lengths=lengths,
        final_observations=np.zeros((*shape[:2], 1)),
        sim_steps=int(lengths.sum()),
        observations=observations,
    )
    controls = np.zeros((*shape, 1)) if controls is None else controls
    return Trajectories(
        starts=make_states(np.zeros((shape[0], 1))),
        controls=controls,
        actions=controls,
        rollout=rollout,
        returns=discounted_returns(rollout, DISCOUNT),
        discount=DISCOUNT,
        **k,
    )


def test_without_terms_plans_are_ranked_by_their_return():
    found = plan(double_integrator())
    np.testing.assert_array_equal(found.scores, found.returns)


def test_a_reward_term_is_discounted_and_ends_with_the_episode():
    seen = trajectories([[[1, 1, 1], [1, 1, 0]]], lengths=[[3, 2]], terminated=[[False, True]])
    term = RewardTerm(lambda t: np.where(t.is_alive, 8.0, np.nan), weight=2.0)
    np.testing.assert_allclose(term.value(seen), [[8 + 4 + 2, 8 + 4]])
    scores, violations = Objective((term,)).scoring()(seen)
    np.testing.assert_allclose(scores, seen.returns + 2 * np.array([[14, 12]]))
    assert (violations == 0).all()


def test_a_plan_reports_the_envs_own_return_and_weighs_by_the_score():
    dynamics = double_integrator()
    pull = RewardTerm(lambda t: t.observations[..., 0], weight=3.0)
    plain, pulled = plan(dynamics), plan(dynamics, pull)
    for found in (plain, pulled):
        np.testing.assert_allclose(found.best_returns, own_return(dynamics, found.controls))
        expected = softmax_weights(found.scores, found.temperature)
        np.testing.assert_allclose(found.weights, expected)
        own = dynamics.rollout(make_states(STARTS), found.samples)
        np.testing.assert_allclose(found.returns, discounted_returns(own, 1.0))
    ends = [path_of(dynamics, found.controls)[:, -1, 0] for found in (plain, pulled)]
    assert (ends[1] > ends[0] + 0.5).all()
    assert (pulled.best_returns < plain.best_returns).all()


def test_a_priced_violation_is_traded_against_the_return():
    dynamics = double_integrator()

    def beyond(t):
        return np.maximum(0.0, -t.observations[..., 1] - 0.05)  # speed below -0.05

    slow = [plan(dynamics, Constraint(beyond, price=p), starts=STARTS[:1]) for p in (1e-6, 100.0)]
    worst = [-path_of(dynamics, found.controls, STARTS[:1])[..., 1].min() for found in slow]
    assert worst[0] > 0.15 and worst[1] < 0.1
    assert slow[1].best_returns[0] < slow[0].best_returns[0]


def test_a_constraint_without_a_price_comes_before_any_return():
    dynamics = double_integrator()

    def beyond(t):
        return np.maximum(0.0, -t.observations[..., 1] - 0.05)

    starts = np.array([[0.3, 0.0]])
    assert path_of(dynamics, plan(dynamics, starts=starts).controls, starts)[..., 1].min() < -0.15
    for seed in range(10):
        found = plan(dynamics, Constraint(beyond), starts=starts, seed=seed)
        assert path_of(dynamics, found.controls, starts)[..., 1].min() >= -0.05
        lawful = path_of(dynamics, found.samples[0], np.repeat(starts, 32, axis=0))[..., 1]
        assert (found.weights[0][lawful.min(axis=1) < -0.05] == 0).all()
        np.testing.assert_allclose(found.best_returns, own_return(dynamics, found.controls, starts))


def test_where_every_plan_violates_the_least_violation_wins():
    dynamics = double_integrator()
    starts = np.array([[0.0, 1.0]])

    def speed(t):
        return np.abs(t.observations[..., 1])

    found = plan(
        dynamics, Constraint(speed), RewardTerm(lambda t: 1e6 * t.controls[..., 0]), starts=starts
    )
    still = np.abs(path_of(dynamics, np.zeros((1, 10, 1)), starts)[..., 1]).sum()
    assert np.abs(path_of(dynamics, found.controls, starts)[..., 1]).sum() < 0.5 * still


def test_diverged_samples_rank_last_whatever_the_terms_say():
    dynamics = double_integrator(diverge_at=0.4)
    found = plan(dynamics, RewardTerm(lambda t: 1e3 * t.observations[..., 0]), noise_std=1.0)
    lost = np.isneginf(found.returns)
    assert lost.any() and np.isneginf(found.scores[lost]).all() and (found.weights[lost] == 0).all()
    constrained = plan(dynamics, Constraint(lambda t: 1.0 + t.rollout.rewards * 0), noise_std=1.0)
    lost = np.isneginf(constrained.returns)
    assert lost.any() and (constrained.weights[lost] == 0).all()
    assert np.isfinite(constrained.best_returns).all()


def test_the_action_rate_is_the_sum_of_squared_changes_the_first_one_included():
    controls = np.array([[[[1.0], [0.5], [-0.5]]]])
    known = trajectories(np.zeros((1, 1, 3)), controls=controls, previous_controls=np.ones((1, 1)))
    term = ActionRate(2.0)
    np.testing.assert_allclose(term.value(known), [[-(0.0 + 0.5 * 0.25 + 0.25 * 1.0)]])
    moved = trajectories(np.zeros((1, 1, 3)), controls=controls, previous_controls=-np.ones((1, 1)))
    np.testing.assert_allclose(term.value(moved), [[-(4.0 + 0.375)]])
    unknown = np.full((1, 1), np.nan)
    fresh = trajectories(np.zeros((1, 1, 3)), controls=controls, previous_controls=unknown)
    np.testing.assert_allclose(term.value(fresh), [[-0.375]])
    np.testing.assert_allclose(
        Objective((term,)).scoring()(moved)[0], moved.returns + 2.0 * term.value(moved)
    )


def test_an_endless_action_rate_weight_holds_on_to_the_last_action():
    settings = {"horizon": 3, "iterations": 25, "noise_decay": 0.8, "num_samples": 64}
    found = plan(double_integrator(), ActionRate(1e6), previous=np.full((2, 1), 0.2), **settings)
    np.testing.assert_allclose(found.controls, 0.2, atol=0.01)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_lost_future_is_priced_by_the_rate_of_going_on_with_the_sign_of_the_task(sign):
    # Sample 0 ends with a bonus, sample 1 goes on, sample 2 goes on at a worse rate.
    rewards = sign * np.array([[[2, 2, 0, 0], [2, 3, 2, 3], [2, 3, 2, 3]]], dtype=float)
    rewards[0, 0, 1] += 100.0
    rewards[0, 2] -= 1.0
    seen = trajectories(rewards, lengths=[[2, 4, 4]], terminated=[[True, False, False]])
    scores, _ = Objective((LostFuture(1.0),)).scoring()(seen)
    beyond = sum(DISCOUNT**h for h in range(4, 8))
    np.testing.assert_allclose(scores - seen.returns, [[-sign * 2.5 * beyond, 0, 0]])


def test_what_ends_an_episode_brings_once_does_not_count_as_a_rate():
    rewards = np.array([[[0, 0, 1.0], [0, 1.0, 0]]])  # a sparse goal that every sample reaches
    seen = trajectories(rewards, lengths=[[3, 2]], terminated=[[True, True]])
    scores, _ = Objective((LostFuture(),)).scoring()(seen)
    np.testing.assert_allclose(scores, seen.returns)


def test_a_leaf_value_replaces_the_lost_future():
    seen = trajectories([[[1, 1], [1, 1]]], terminated=[[True, False]], has_leaf_value=True)
    scores, _ = Objective((LostFuture(),)).scoring()(seen)
    np.testing.assert_allclose(scores, seen.returns)
    dynamics = double_integrator(terminate_at=0.31)
    leaf = LeafValue(lambda x: x[:, 0], 0.9)
    found = plan(dynamics, LostFuture(), leaf_value=leaf)
    np.testing.assert_array_equal(found.scores, found.returns)


def test_an_ongoing_reward_is_that_of_the_last_part_of_a_plan_unless_it_ends_the_episode():
    # A fast start that falls over, one that arrives running, and one that ends the episode.
    rewards = np.array([[[4, 4, 4, 0], [1, 2, 4, 6], [9, 9, 0, 0]]], dtype=float)
    ends = {"lengths": [[4, 4, 2]], "terminated": [[False, False, True]]}
    seen = trajectories(rewards, **ends)
    beyond = sum(DISCOUNT**h for h in range(4, 12))
    for share, rates in (0.25, [0, 6, 0]), (0.5, [2, 5, 0]), (0.01, [0, 6, 0]):
        scores, _ = Objective((OngoingReward(2.0, share=share),)).scoring()(seen)
        np.testing.assert_allclose(scores - seen.returns, [np.multiply(rates, beyond)])
    valued = trajectories(rewards, **ends, has_leaf_value=True)
    scores, _ = Objective((OngoingReward(2.0),)).scoring()(valued)
    np.testing.assert_allclose(scores, valued.returns)


def runner(step_reward, limit):
    """x' = x + u with the reward of the speed, or a cost per step; ends beyond the limit."""
    return Runner(
        a=np.eye(1),
        b=np.eye(1),
        q=np.zeros((1, 1)),
        r=np.zeros((1, 1)),
        terminate_at=limit,
        ripple=step_reward,
    )


class Runner(LinearQuadratic):
    def rollout(self, states, actions, *, keep_observations=False):
        batch = super().rollout(states, actions, keep_observations=keep_observations)
        alive = np.arange(actions.shape[2]) < batch.lengths[..., None]
        speed = actions[..., 0]
        rewards = np.where(alive, 1.0 + speed if self.ripple > 0 else -1.0, 0.0)
        return RolloutBatch(**vars(batch) | {"rewards": rewards})


ONE_SPEED = {"starts": np.zeros((1, 1)), "horizon": 5, "knot_spacing": 5, "num_samples": 64}


def test_plans_dive_at_the_end_of_the_horizon_unless_the_future_is_priced():
    cliff = runner(step_reward=1.0, limit=2.5)
    dived, stayed = plan(cliff, **ONE_SPEED), plan(cliff, LostFuture(), **ONE_SPEED)
    ends = [path_of(cliff, p.controls, np.zeros((1, 1)))[0, -1, 0] for p in (dived, stayed)]
    assert ends[0] > 2.5 >= ends[1] > 2.2
    own = own_return(cliff, stayed.controls, np.zeros((1, 1)))
    np.testing.assert_allclose(stayed.best_returns, own)


def test_a_goal_at_the_last_step_is_seen_where_each_step_costs():
    goal = runner(step_reward=-1.0, limit=4.2)
    blind = plan(goal, noise_std=1.0, **ONE_SPEED)
    assert np.ptp(blind.scores) == 0.0  # the goal brings nothing within the horizon
    found = plan(goal, LostFuture(), noise_std=1.0, **ONE_SPEED)
    assert abs(path_of(goal, found.controls, np.zeros((1, 1)))[0, -1, 0]) > 4.2
    np.testing.assert_allclose(found.best_returns, -5.0)


def test_a_strong_policy_prior_plans_what_the_policy_does():
    dynamics = double_integrator()

    def policy(x):
        return np.clip(0.5 - x[:, :1], -1, 1)

    found = plan(
        dynamics, PolicyPrior(policy, 1e6), iterations=30, num_samples=128, noise_decay=0.85
    )
    before = np.concatenate([STARTS[:, None], path_of(dynamics, found.controls)[:, :-1]], axis=1)
    wanted = policy(before.reshape(-1, 2)).reshape(found.controls.shape)
    np.testing.assert_allclose(found.controls, wanted, atol=0.05)
    alone = plan(dynamics, iterations=30, num_samples=128, noise_decay=0.85)
    assert np.abs(alone.controls - wanted).max() > 0.3


def test_the_pull_of_a_prior_does_not_depend_on_the_unit_of_reward():
    def policy(x):
        return np.full((len(x), 1), 0.5)

    small = double_integrator()
    large = LinearQuadratic(small.a, small.b, 1000 * small.q, 1000 * small.r)
    plans = [plan(dynamics, PolicyPrior(policy, 0.5)) for dynamics in (small, large)]
    np.testing.assert_allclose(plans[0].controls, plans[1].controls, atol=1e-9)


def test_novelty_is_the_mean_distance_to_the_nearest_visited_states():
    term = Novelty(1.0, neighbours=2)
    observations = np.array([[[[3.0], [5.0]], [[0.0], [0.0]]]])
    seen = trajectories(np.zeros((1, 2, 2)), observations=observations)
    assert (term.value(seen) == 0).all()  # nothing visited: all is as new
    term.visit(make_states(np.array([[0.0], [4.0], [8.0]])))
    std = np.std([0.0, 4.0, 8.0])
    # 3 lies 1 and 3 from its nearest two, 5 lies 1 and 3, 0 lies 0 and 4.
    expected = np.array([[2 + DISCOUNT * 2, 2 + DISCOUNT * 2]]) / std
    np.testing.assert_allclose(term.value(seen), expected)
    again = Novelty(1.0, neighbours=2)
    again.load_state_dict(term.state_dict())
    np.testing.assert_array_equal(again.value(seen), term.value(seen))


def test_novelty_forgets_the_oldest_and_looks_at_its_features_only():
    term = Novelty(1.0, features=lambda x: x[:, 1:], neighbours=1, capacity=2)
    term.visit(make_states(np.array([[0.0, 50.0], [7.0, 0.0], [9.0, 2.0]])))
    observations = np.array([[[[50.0, 3.0]]]])
    seen = trajectories(np.zeros((1, 1, 1)), observations=observations)
    np.testing.assert_allclose(term.value(seen), [[1.0 / np.std([0.0, 2.0])]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constraint(len, price=0.0), r"price must be > 0 and finite, or None .* got 0.0"),
        (lambda: ActionRate(-1.0), "weight must be >= 0 and finite, got -1.0"),
        (lambda: LostFuture(np.inf), "further must be >= 0 and finite, got inf"),
        (lambda: OngoingReward(-1.0), "further must be >= 0 and finite, got -1.0"),
        (lambda: OngoingReward(1.0, share=0.0), r"share must be in \(0, 1\], got 0.0"),
        (lambda: PolicyPrior(len, 0.0), "weight must be > 0 and finite, got 0.0"),
        (lambda: RewardTerm(len, weight=np.nan), "weight must be finite, got nan"),
        (lambda: Novelty(0.0), "weight must be > 0 and finite, got 0.0"),
        (lambda: Novelty(1.0, neighbours=5, capacity=4), "neighbours=5 and capacity=4"),
    ],
)
def test_bad_numbers_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_term_is_refused_with_the_cure():
    with pytest.raises(TypeError, match="wrap a function of Trajectories in RewardTerm"):
        Objective((lambda t: 0.0,))
    with pytest.raises(TypeError, match="reward must be a function, got 3"):
        RewardTerm(3)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (RewardTerm(lambda t: t.observations), r"shape \(S, K, H\) = .*reduce the axes"),
        (RewardTerm(lambda t: t.returns), r"got \(2, 32\)"),
        (Constraint(lambda t: t.rollout.rewards), "violation must be >= 0.*np.maximum"),
        (RewardTerm(lambda t: np.log(-t.rollout.rewards * 0)), "RewardTerm.value must be finite"),
        (
            RewardTerm(lambda t: t.observations[..., 0], reads_observations=False),
            "set reads_observations = True",
        ),
        (Novelty(1.0, features=lambda x: x[:, 0]), r"features must return shape \(N, d\), got"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_terms_are_named(term, message):
    if isinstance(term, Novelty):
        with pytest.raises(ValueError, match=message):
            term.visit(make_states(STARTS))
        return
    with pytest.raises(ValueError, match=message):
        plan(double_integrator(), term)
