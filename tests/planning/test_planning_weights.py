"""Weights: hand-computed values, limits, and the rule that sets the temperature."""

import numpy as np
import pytest

from mppi_agent.planning import effective_sample_size, softmax_weights, temperature_for_ess
from mppi_agent.planning.weights import weigh


def test_weights_match_hand_computed_values():
    weights = softmax_weights(np.array([0.0, np.log(2.0), np.log(5.0)]), 1.0)
    np.testing.assert_allclose(weights, [1 / 8, 2 / 8, 5 / 8])
    halved = softmax_weights(np.array([0.0, 2 * np.log(3.0)]), 2.0)
    np.testing.assert_allclose(halved, [1 / 4, 3 / 4])


def test_each_row_has_its_own_temperature():
    returns = np.array([[0.0, 1.0], [0.0, 1.0]])
    weights = softmax_weights(returns, np.array([1.0, 3.0]))
    np.testing.assert_array_equal(weights[0], softmax_weights(returns[0], 1.0))
    np.testing.assert_array_equal(weights[1], softmax_weights(returns[1], 3.0))


def test_weights_ignore_a_constant_and_do_not_overflow():
    returns = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(softmax_weights(returns + 1e6, 1.0), softmax_weights(returns, 1.0))
    np.testing.assert_array_equal(softmax_weights(np.array([-1e300, 1e300]), 1e-3), [0, 1])


def test_small_temperature_picks_the_best_and_large_is_uniform():
    returns = np.array([3.0, 5.0, 4.0, -1.0])
    np.testing.assert_allclose(softmax_weights(returns, 1e-9), [0, 1, 0, 0])
    np.testing.assert_allclose(softmax_weights(returns, 1e9), 0.25, rtol=1e-8)


def test_diverged_samples_get_no_weight():
    np.testing.assert_array_equal(softmax_weights(np.array([-np.inf, 7.0]), 1.0), [0, 1])


def test_weights_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"temperature must be > 0, got 0"):
        softmax_weights(np.zeros(3), 0.0)
    with pytest.raises(ValueError, match=r"no finite return among 3 samples.*lower noise_std"):
        softmax_weights(np.full((2, 3), -np.inf), 1.0)


def test_effective_sample_size_counts_equal_samples():
    weights = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_allclose(effective_sample_size(weights), [1, 2, 4])


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_temperature_hits_the_wanted_sample_size_at_every_scale(fraction, scale):
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((5, 64))
    skewed = -np.exp(2 * rng.standard_normal((5, 64)))
    outlier = np.concatenate([normal[:, 1:], np.full((5, 1), -1e9)], axis=1)
    returns = scale * np.concatenate([normal, skewed, outlier])
    temperature = temperature_for_ess(returns, fraction, floor=0.0)
    ess = effective_sample_size(softmax_weights(returns, temperature))
    np.testing.assert_allclose(ess, max(fraction * 64, 1), rtol=2e-3)


def test_temperature_counts_only_samples_that_did_not_diverge():
    rng = np.random.default_rng(1)
    alive = rng.standard_normal((1, 20))
    with_dead = np.concatenate([np.full((1, 44), -np.inf), alive], axis=1)
    np.testing.assert_allclose(
        temperature_for_ess(with_dead, 0.2, 0.0), temperature_for_ess(alive, 0.2, 0.0)
    )


def test_flat_returns_get_nearly_uniform_weights():
    noise = 1e-7 * np.random.default_rng(2).standard_normal((1, 50))
    returns = 20.0 + noise
    unguarded = softmax_weights(returns, temperature_for_ess(returns, 0.2, floor=0.0))
    guarded = softmax_weights(returns, temperature_for_ess(returns, 0.2, floor=1e-4))
    assert effective_sample_size(unguarded)[0] < 11  # the nonsense that the floor prevents
    np.testing.assert_allclose(guarded, 1 / 50, rtol=1e-3)


def test_floor_leaves_returns_that_differ_alone():
    returns = 20.0 + np.random.default_rng(3).standard_normal((4, 64))
    np.testing.assert_array_equal(
        temperature_for_ess(returns, 0.2, floor=1e-4), temperature_for_ess(returns, 0.2, floor=0.0)
    )


@pytest.mark.parametrize(
    "returns",
    [np.zeros((1, 8)), np.full((1, 8), 5.0), np.array([[-np.inf] * 7 + [3.0]])],
    ids=["all zero", "all equal", "one alive"],
)
def test_degenerate_returns_share_the_weight_among_the_best(returns):
    weights = softmax_weights(returns, temperature_for_ess(returns, 0.2, 1e-4))
    alive = np.isfinite(returns)
    np.testing.assert_allclose(weights[alive], 1 / alive.sum())


def test_a_hopeless_row_leaves_the_others_unchanged():
    returns = np.random.default_rng(4).standard_normal((2, 16))
    together = temperature_for_ess(np.vstack([returns, np.full((1, 16), -np.inf)]), 0.2, 1e-4)
    assert (together > 0).all()
    np.testing.assert_array_equal(together[:2], temperature_for_ess(returns, 0.2, 1e-4))


def test_a_given_temperature_is_used_and_none_is_found():
    returns = np.array([[0.0, 1.0, 4.0], [3.0, -np.inf, 3.5]])
    temperature, weights = weigh(returns, 2.0, ess_fraction=0.5, floor=0.0)
    np.testing.assert_array_equal(temperature, [2.0, 2.0])
    np.testing.assert_array_equal(weights, softmax_weights(returns, 2.0))
    temperature, weights = weigh(returns, None, ess_fraction=0.5, floor=0.0)
    np.testing.assert_array_equal(temperature, temperature_for_ess(returns, 0.5, 0.0))
    np.testing.assert_allclose(effective_sample_size(weights), [1.5, 1.0], rtol=1e-2)


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_where_all_diverged_the_first_sample_has_all_weight(temperature):
    returns = np.array([[-np.inf, -np.inf], [0.0, 0.0]])
    _, weights = weigh(returns, temperature, ess_fraction=0.5, floor=1e-4)
    np.testing.assert_array_equal(weights, [[1.0, 0.0], [0.5, 0.5]])
    assert np.isneginf(returns[0]).all()  # what was given stays as it was
