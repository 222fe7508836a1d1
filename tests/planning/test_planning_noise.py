"""Noise: interpolation, unit variance, correlation, mirrored pairs."""

import numpy as np
import pytest

from mppi_agent.planning import cubic_basis, linear_basis, noise_matrix, sample_noise


@pytest.mark.parametrize("basis", [linear_basis, cubic_basis])
@pytest.mark.parametrize(("horizon", "spacing"), [(1, 1), (2, 2), (9, 4), (10, 4), (20, 7), (5, 5)])
def test_interpolation_passes_through_knots_and_keeps_constants_and_lines(basis, horizon, spacing):
    matrix = basis(horizon, spacing)
    knots = np.random.default_rng(0).standard_normal(matrix.shape[1])
    np.testing.assert_allclose(
        (matrix @ knots)[::spacing], knots[: len(range(0, horizon, spacing))]
    )
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    line = 3.0 * spacing * np.arange(matrix.shape[1])
    np.testing.assert_allclose(matrix @ line, 3.0 * np.arange(horizon), atol=1e-12)


def test_linear_interpolation_matches_hand_computed_values():
    np.testing.assert_allclose(linear_basis(5, 2) @ [0.0, 4.0, 2.0], [0, 2, 4, 3, 2])


def test_cubic_interpolation_reproduces_a_parabola_inside():
    matrix = cubic_basis(13, 3)
    values = matrix @ (3.0 * np.arange(matrix.shape[1])) ** 2
    np.testing.assert_allclose(values[3:10], np.arange(3, 10) ** 2.0)


def test_spacing_one_without_correlation_is_white():
    np.testing.assert_array_equal(noise_matrix(6, 1, 0.0), np.eye(6))
    np.testing.assert_allclose(noise_matrix(6, 1, 0.0, cubic_basis), np.eye(6), atol=1e-15)


@pytest.mark.parametrize("basis", [linear_basis, cubic_basis])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("spacing", [1, 4])
def test_every_control_step_has_unit_variance(basis, correlation, spacing):
    matrix = noise_matrix(18, spacing, correlation, basis)
    np.testing.assert_allclose(np.diag(matrix @ matrix.T), 1.0)


def test_noise_fades_along_the_horizon():
    plain, faded = noise_matrix(8, 3, 0.2), noise_matrix(8, 3, 0.2, fade=4.0)
    np.testing.assert_allclose(np.linalg.norm(faded, axis=1), np.exp(-np.arange(8) / 2))
    np.testing.assert_allclose(faded / np.linalg.norm(faded, axis=1, keepdims=True), plain)


def test_neighbouring_knots_have_the_wanted_correlation():
    covariance = (matrix := noise_matrix(10, 3, 0.6)) @ matrix.T
    np.testing.assert_allclose(covariance[0, [0, 3, 6, 9]], [1, 0.6, 0.36, 0.216])


@pytest.mark.parametrize("tail_scale", [0.0, 0.4])
def test_antithetic_samples_are_mirrored_pairs(tail_scale):
    matrix = noise_matrix(7, 2, 0.3)
    noise = sample_noise(
        matrix, (3, 8, 2), np.random.default_rng(0), antithetic=True, tail_scale=tail_scale
    )
    np.testing.assert_array_equal(noise[:, 4:], -noise[:, :4])
    assert not np.array_equal(noise[0, :4], noise[1, :4])  # states do not share noise


def test_an_odd_number_of_antithetic_samples_is_filled():
    noise = sample_noise(np.eye(3), (2, 5, 1), np.random.default_rng(0), antithetic=True)
    np.testing.assert_array_equal(noise[:, 3:], -noise[:, :2])


def test_heavy_tails_keep_the_variance():
    rng = np.random.default_rng(0)
    noise = sample_noise(np.eye(5), (1, 40_000, 2), rng, tail_scale=0.5)
    # Mean square of 400,000 numbers in 40,000 groups: std below 0.012; 0.06 is five of them.
    np.testing.assert_allclose(np.mean(noise**2), 1.0, atol=0.06)
    assert np.mean(noise**4) > 5.0  # a Gaussian has 3; here 3 exp(4 * 0.25) = 8.2
