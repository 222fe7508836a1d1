"""Action heads: what is drawn has the likelihood that is claimed, for every kind of action."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from toy_envs import make_policy

from mppi_agent.gps.action_heads import action_head
from mppi_agent.gps.policies import normalised_units

DISCRETE = spaces.Discrete(3)
MULTI = spaces.MultiDiscrete([2, 4])
BOX = spaces.Box(np.float32([-1.0, 0.0]), np.float32([3.0, 0.2]))


def opinionated(space: spaces.Space) -> Any:
    """A policy whose choices are far from even."""
    th.manual_seed(0)
    policy = make_policy(action_space=space)
    with th.no_grad():
        policy.action_net.weight.normal_(0.0, 1.0)
    return policy


def seen_at(num: int, x: float = 0.3) -> th.Tensor:
    return th.tensor([[x, 1.0]]).expand(num, 2)


def distribution_at(policy: Any, num: int, x: float = 0.3) -> Any:
    with th.no_grad():
        return policy.get_distribution(seen_at(num, x))


def every_action(space: Any) -> np.ndarray:
    counts = [space.n] if isinstance(space, spaces.Discrete) else list(space.nvec)
    grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1)
    return grid.reshape(-1, *space.shape)


@pytest.mark.parametrize("space", [DISCRETE, MULTI], ids=str)
@pytest.mark.parametrize("random_share", [0.0, 0.3])
def test_categories_are_drawn_as_often_as_their_likelihood_says(space, random_share):
    head, policy, num = action_head(space, random_share), opinionated(space), 20_000
    with th.no_grad():
        drawn = head.draw(policy, seen_at(num), np.random.default_rng(0))
    assert all(space.contains(action) for action in drawn[:50])
    possible = every_action(space)
    targets = head.as_targets(policy, possible)
    claimed = head.log_prob(distribution_at(policy, len(possible)), targets).exp().numpy()
    np.testing.assert_allclose(claimed.sum(), 1, rtol=1e-5)
    rows = (drawn.reshape(num, 1, -1) == possible.reshape(1, len(possible), -1)).all(axis=2)
    # Five standard errors for each of at most eight shares: failure probability 5e-6.
    assert (np.abs(rows.mean(axis=0) - claimed) < 5 * np.sqrt(claimed / num)).all()
    entropy = head.entropy(distribution_at(policy, 1)).item()
    np.testing.assert_allclose(entropy, -(claimed * np.log(claimed)).sum(), rtol=1e-5)


@pytest.mark.parametrize("space", [DISCRETE, MULTI], ids=str)
def test_without_random_choices_likelihood_and_entropy_are_sb3s(space):
    head, policy = action_head(space), opinionated(space)
    possible = every_action(space)
    distribution = distribution_at(policy, len(possible))
    ours = head.log_prob(distribution, head.as_targets(policy, possible))
    np.testing.assert_allclose(ours, distribution.log_prob(th.as_tensor(possible)), rtol=1e-5)
    np.testing.assert_allclose(head.entropy(distribution), distribution.entropy(), rtol=1e-5)


def test_random_choices_are_the_floor_of_every_likelihood_and_teach_nothing_else():
    policy = opinionated(MULTI)
    with th.no_grad():
        policy.action_net.bias.copy_(th.tensor([100.0, 0, 100, 0, 0, 0]))  # certain of (0, 0)
    distribution = distribution_at(policy, 1)
    head = action_head(MULTI, 0.2)
    targets = head.as_targets(policy, np.array([[1, 3]]))
    np.testing.assert_allclose(head.log_prob(distribution, targets).exp(), 0.1 * 0.05, rtol=1e-5)
    # Labels are for the policy itself, which has no random choices.
    np.testing.assert_allclose(
        head.errors(distribution, targets, 0.2), -distribution.log_prob(targets), rtol=1e-5
    )


def test_errors_are_cross_entropies_of_categories_and_huber_losses_of_numbers():
    policy = opinionated(DISCRETE)
    distribution = distribution_at(policy, 3)
    head = action_head(DISCRETE)
    errors = head.errors(distribution, head.as_targets(policy, np.arange(3)), 0.2)
    probabilities = distribution.distribution.probs[0]
    np.testing.assert_allclose(errors, -probabilities.log(), rtol=1e-5)
    policy, head = opinionated(BOX), action_head(BOX)
    with normalised_units(policy, 0.0, 1.0):
        distribution = distribution_at(policy, 2)
        mean = distribution.distribution.mean[0]
        targets = mean + th.tensor([[0.1, 0.0], [0.0, -2.0]])
        errors = head.errors(distribution, targets, 0.2)
    np.testing.assert_allclose(errors, [0.1**2 / 2, 0.2 * (2.0 - 0.1)], rtol=1e-4)


@pytest.mark.parametrize("space", [DISCRETE, MULTI], ids=str)
def test_logits_have_no_units(space):
    policy = opinionated(space)
    before = distribution_at(policy, 1).entropy().item()
    with normalised_units(policy, 30.0, 20.0):
        assert distribution_at(policy, 1).entropy().item() == before
    assert distribution_at(policy, 1).entropy().item() == before


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiBinary(2), r"needs a bounded Box of floats, a Discrete or .*\[2\] \* n"),
        (spaces.Box(0, 5, (1,), np.int32), "needs a bounded Box of floats"),
        (spaces.Discrete(3, start=1), "actions count from 0 along one axis; convert them with"),
        (spaces.MultiDiscrete([[2, 2], [2, 2]]), "actions count from 0 along one axis"),
        (spaces.Box(-np.inf, 1.0, (1,)), "unbounded: MPPIGPS samples between bounds"),
    ],
    ids=str,
)
def test_other_spaces_are_refused_with_the_cure(space, message):
    with pytest.raises(ValueError, match=message):
        action_head(space)
