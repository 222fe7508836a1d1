"""Scaling between normalised controls and env actions, and moving plans on in time."""

import numpy as np
import pytest

from mppi_agent.planning import BoxScaling, shift_nominal


def test_unit_bounds_are_exact():
    controls = np.random.default_rng(0).uniform(-1, 1, (4, 3, 5, 2))
    scaling = BoxScaling(-np.ones(2, np.float32), np.ones(2, np.float32))
    np.testing.assert_array_equal(scaling.to_env(controls), controls)
    np.testing.assert_array_equal(scaling.to_normalised(controls), controls)


def test_scaling_matches_hand_computed_values():
    scaling = BoxScaling(np.array([-2.0, 0.0]), np.array([2.0, 10.0]))
    np.testing.assert_allclose(
        scaling.to_env(np.array([[0.5, 0.5], [-1, 1]])), [[1, 7.5], [-2, 10]]
    )
    np.testing.assert_allclose(scaling.to_normalised(np.array([1.0, 7.5])), [0.5, 0.5])


def test_scaling_round_trips_and_stays_within_the_bounds():
    rng = np.random.default_rng(1)
    low = rng.uniform(-3, 0, (2, 3)).astype(np.float32)
    high = rng.uniform(0.1, 3, (2, 3)).astype(np.float32)
    scaling = BoxScaling(low, high)
    controls = rng.uniform(-1.5, 1.5, (5, 7, 6))
    actions = scaling.to_env(controls)
    assert actions.shape == (5, 7, 2, 3)
    assert (actions >= low).all() and (actions <= high).all()
    np.testing.assert_allclose(scaling.to_normalised(actions), np.clip(controls, -1, 1), atol=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([-np.inf], [1.0], r"action bounds must be finite.*TransformAction"),
        ([1.0], [1.0], r"low must be < high in every dimension"),
        ([0.0], [1.0, 2.0], r"one shape, got \(1,\) and \(2,\)"),
    ],
)
def test_bad_bounds_are_named(low, high, message):
    with pytest.raises(ValueError, match=message):
        BoxScaling(np.array(low), np.array(high))


def test_shift_drops_executed_actions_and_extends_the_end():
    controls = np.arange(6.0).reshape(2, 3, 1)
    kept = controls.copy()
    np.testing.assert_array_equal(shift_nominal(controls)[..., 0], [[1, 2, 2], [4, 5, 5]])
    np.testing.assert_array_equal(shift_nominal(controls, 3)[..., 0], [[2, 2, 2], [5, 5, 5]])
    tail = np.full((2, 2, 1), 9.0)
    np.testing.assert_array_equal(shift_nominal(controls, 2, tail)[..., 0], [[2, 9, 9], [5, 9, 9]])
    np.testing.assert_array_equal(shift_nominal(controls, 0), controls)
    np.testing.assert_array_equal(controls, kept)


def test_bad_shifts_are_named():
    with pytest.raises(ValueError, match=r"steps must be in \[0, 3\], the horizon, got 4"):
        shift_nominal(np.zeros((1, 3, 1)), 4)
    with pytest.raises(ValueError, match=r"tail must have shape .* = \(1, 1, 1\), got \(1, 2, 1\)"):
        shift_nominal(np.zeros((1, 3, 1)), 1, np.zeros((1, 2, 1)))
