"""Discrete choices: scores and categories, and plans against exhaustive search."""

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from linear_quadratic import make_states

from mppi_agent.interfaces import RolloutBatch
from mppi_agent.planning import MPPI, CategoryScaling, MPPIConfig

CHOICES = [
    CategoryScaling(4, 0),
    CategoryScaling(3, -5),
    CategoryScaling([2, 3], [0, 7]),
    CategoryScaling([[2, 1], [4, 3]], np.zeros((2, 2))),
]


def all_actions(scaling):
    """Return every action there is, shape (count, *action)."""
    ranges = [range(n) for n in scaling.counts.ravel()]
    chosen = np.array(list(product(*ranges))).reshape(-1, *scaling.counts.shape)
    return chosen + scaling.start


@pytest.mark.parametrize("scaling", CHOICES)
def test_every_action_comes_back(scaling):
    actions = all_actions(scaling)
    controls = scaling.to_normalised(actions)
    assert controls.shape == (len(actions), scaling.action_dims)
    assert len(np.unique(controls, axis=0)) == len(actions)
    np.testing.assert_array_equal(scaling.to_env(controls), actions)
    np.testing.assert_array_equal(scaling.snap(controls), controls)


@pytest.mark.parametrize("scaling", CHOICES)
def test_the_highest_score_of_each_choice_wins(scaling):
    scores = np.random.default_rng(0).normal(size=(5, 6, scaling.action_dims))
    actions = scaling.to_env(scores)
    assert actions.shape == (5, 6, *scaling.counts.shape)
    for row, action in zip(scores.reshape(30, -1), actions.reshape(30, -1), strict=True):
        first = 0
        for n, start, a in zip(scaling.counts.ravel(), scaling.start.ravel(), action, strict=True):
            assert a == start + max(range(n), key=lambda i: row[first + i])
            first += n
    np.testing.assert_array_equal(scaling.to_env(scaling.snap(scores)), actions)


def test_noise_changes_a_chosen_category_as_often_as_the_normal_distribution_says():
    scaling = CategoryScaling(2, 0)
    noise = 0.5 * np.random.default_rng(0).normal(size=(100_000, 2))
    changed = scaling.to_env(scaling.to_normalised(np.array(0)) + noise).mean()
    expected = NormalDist(0, 0.5 * 2**0.5).cdf(-0.5)  # 0.24, standard error 0.0014
    assert abs(changed - expected) < 0.007


def test_noise_on_undecided_scores_favours_no_category():
    scaling = CategoryScaling(5, 0)
    noise = 2.0 * np.random.default_rng(0).normal(size=(100_000, 5))
    shares = np.bincount(scaling.to_env(noise)) / len(noise)
    np.testing.assert_allclose(shares, 0.2, atol=0.007)  # 5.5 standard errors


@pytest.mark.parametrize(
    ("counts", "start", "message"),
    [
        ([2, 0], [0, 0], r"counts must be >= 1 in every choice, got \[2 0\]"),
        ([2, 3], 0, r"one shape, got \(2,\) and \(\)"),
    ],
)
def test_bad_choices_are_named(counts, start, message):
    with pytest.raises(ValueError, match=message):
        CategoryScaling(counts, start)


@pytest.mark.parametrize("action", [0, 4])
def test_an_action_that_does_not_exist_is_named(action):
    with pytest.raises(ValueError, match=rf"actions must lie in 1 to 3, got {action} to {action}"):
        CategoryScaling(3, 1).to_normalised(np.array([action]))


class Table:
    """A tiny deterministic MDP: `physics` is [state], joint actions index the tables."""

    def __init__(self, scaling, rng, num_states=4):
        self.scaling = scaling
        self.actions = [tuple(action.ravel()) for action in all_actions(scaling)]
        shape = (num_states, len(self.actions))
        self.following = rng.integers(num_states, size=shape)
        self.reward = rng.normal(size=shape)

    def walk(self, state, actions):
        rewards = []
        for action in actions:
            index = self.actions.index(tuple(action.ravel()))
            rewards.append(self.reward[state, index])
            state = self.following[state, index]
        return rewards

    def rollout(self, states, actions):
        rewards = np.array(
            [
                [self.walk(int(state.physics[0]), plan) for plan in plans]
                for state, plans in zip(states, actions, strict=True)
            ]
        )
        num_states, num_samples, horizon = rewards.shape
        none = np.zeros((num_states, num_samples), dtype=bool)
        return RolloutBatch(
            rewards=rewards,
            terminated=none,
            diverged=none,
            lengths=np.full(none.shape, horizon),
            final_observations=np.zeros((*none.shape, 1)),
            sim_steps=rewards.size,
        )


def plan(table, starts, nominals, *, seed=0, **settings):
    planner = MPPI(MPPIConfig(horizon=nominals.shape[2], **settings), table, table.scaling)
    return planner.plan(make_states(starts), nominals, np.random.default_rng(seed))


@pytest.mark.parametrize(("scaling", "horizon"), [(CHOICES[1], 5), (CHOICES[2], 3)])
def test_the_plan_is_the_best_of_all_action_sequences(scaling, horizon):
    # The first 1,000 samples are uniform over at most 243 sequences: one is missed with p < 0.02.
    for seed in range(2):
        table = Table(scaling, np.random.default_rng(seed))
        starts = np.arange(4.0)[:, None]
        undecided = np.zeros((4, 1, horizon, scaling.action_dims))
        settings = {"num_samples": 1000, "discount": 1.0, "mean_preference": 0.0}
        found = plan(table, starts, undecided, seed=seed, **settings)
        taken = scaling.to_env(found.controls)
        for start, actions, value in zip(range(4), taken, found.best_returns, strict=True):
            best = max(
                sum(table.walk(start, sequence))
                for sequence in product(all_actions(scaling), repeat=horizon)
            )
            assert value == pytest.approx(best)
            assert sum(table.walk(start, actions)) == pytest.approx(best)


def test_the_mean_holds_the_weight_of_each_category():
    scaling = CategoryScaling(3, 0)
    table = Table(scaling, np.random.default_rng(0), num_states=1)
    table.reward[0] = [0.0, 1.0, 3.0]
    nominals = scaling.to_normalised(np.zeros((1, 1, 1), dtype=int))
    found = plan(table, np.zeros((1, 1)), nominals, iterations=1, temperature=1.0)
    shares = [found.weights[found.returns == reward].sum() for reward in table.reward[0]]
    np.testing.assert_allclose(found.controls[0, 0], 0.5 * np.array(shares))
    counts = [(found.returns == reward).sum() for reward in table.reward[0]]
    closed_form = counts * np.exp(table.reward[0])
    np.testing.assert_allclose(shares, closed_form / closed_form.sum())


@pytest.mark.parametrize("seed", range(10))
def test_the_plan_was_measured_and_is_never_worse_than_a_proposal(seed):
    scaling = CHOICES[2]
    rng = np.random.default_rng(seed)
    table = Table(scaling, rng)
    starts = np.array([[0.0], [3.0]])
    nominals = scaling.snap(rng.normal(size=(2, 3, 6, scaling.action_dims)))
    found = plan(table, starts, nominals, seed=seed, num_samples=12, discount=0.9)
    discounts = 0.9 ** np.arange(6)
    for i, start in enumerate((0, 3)):
        worth = discounts @ table.walk(start, scaling.to_env(found.controls[i]))
        assert found.best_returns[i] == pytest.approx(worth)
        proposed = [discounts @ table.walk(start, scaling.to_env(nominals[i, p])) for p in range(3)]
        assert found.best_returns[i] >= max(proposed) - 1e-12
        assert found.nominal_returns[i] == pytest.approx(proposed[0])
