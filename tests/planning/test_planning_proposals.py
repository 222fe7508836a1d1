"""Proposers: which recorded actions, and for how long."""

from __future__ import annotations

import numpy as np
import pytest
from linear_quadratic import make_states

from mppi_agent.planning import ConstantPlan, Demonstrations


def episode(first, steps):
    """Observations first, first + 1, ... and controls that name them."""
    observations = first + np.arange(steps, dtype=float)[:, None]
    return observations, observations / 100


def test_what_followed_the_nearest_recorded_state_is_proposed():
    proposer = Demonstrations([episode(0, 5), episode(10, 5)], num=2)
    plans = proposer(make_states(np.array([[1.2], [13.4]])), horizon=3)
    assert plans.shape == (2, 2, 3, 1)
    np.testing.assert_allclose(plans[0, :, :, 0], [[0.01, 0.02, 0.03], [0.02, 0.03, 0.04]])
    # The last action goes on at the end of an episode, not into the next one.
    np.testing.assert_allclose(plans[1, :, :, 0], [[0.13, 0.14, 0.14], [0.14, 0.14, 0.14]])


def test_each_number_of_an_observation_counts_in_its_own_spread():
    observations = np.array([[0.0, 0.0], [1.0, 1000.0], [0.0, 1000.0]])
    proposer = Demonstrations([(observations, np.array([[0.1], [0.2], [0.3]]))], num=1)
    (plan,) = proposer(make_states(np.array([[0.9, 600.0]])), horizon=1)
    np.testing.assert_allclose(plan, [[[0.2]]])


def test_a_constant_plan_does_one_thing():
    plans = ConstantPlan(np.array([0.5, -1.0]))(make_states(np.zeros((2, 1))), horizon=3)
    np.testing.assert_array_equal(plans, np.tile([0.5, -1.0], (2, 1, 3, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Demonstrations([(np.zeros((4, 1)), np.zeros((3, 1)))]), "leave out the observat"),
        (lambda: Demonstrations([(np.zeros(4), np.zeros((4, 1)))]), r"shape \(T, d\)"),
        (lambda: Demonstrations([episode(0, 3)], num=4), r"num must be in \[1, 3\].* got 4"),
        (lambda: ConstantPlan(0.0), r"controls must have shape \(nu,\), got \(\)"),
        (
            lambda: Demonstrations([episode(0, 3)])(make_states(np.zeros((1, 2))), horizon=2),
            r"have observations of shape \(1,\), the env \(2,\)",
        ),
    ],
)
def test_bad_demonstrations_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
