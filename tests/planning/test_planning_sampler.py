"""The sampler: noisy copies of the mean, pairs, bounds, and what only parts of a plan get."""

from __future__ import annotations

import numpy as np
import pytest

from mppi_agent.planning import BoxScaling, CategoryScaling, MPPIConfig
from mppi_agent.planning.sampler import Sampler

BOX = BoxScaling(np.array([-2.0]), np.array([2.0]))


def draw(mean, config, scaling=BOX, *, num_gains=0, iteration=0, num_samples=401):
    sampler = Sampler(config, scaling, num_gains, snaps=not num_gains)
    rng = np.random.default_rng(0)
    return sampler.draw(mean, num_samples, iteration, rng, with_mean=True)


def test_samples_lie_around_the_mean_which_comes_first():
    mean = np.array([[[0.3], [-0.2]], [[0.0], [0.1]]])
    samples = draw(mean, MPPIConfig(horizon=2, noise_std=0.1))
    assert samples.shape == (2, 401, 2, 1)
    np.testing.assert_array_equal(samples[:, 0], mean)
    np.testing.assert_allclose(samples.mean(axis=1), mean, atol=1e-12)  # pairs are mirrored
    np.testing.assert_allclose(samples[:, 1:].std(axis=1), 0.1, rtol=0.15)


def test_noise_shrinks_by_iteration():
    mean, config = np.zeros((1, 3, 1)), MPPIConfig(horizon=3, noise_std=0.2, noise_decay=0.5)
    first, third = (draw(mean, config, iteration=iteration) for iteration in (0, 2))
    np.testing.assert_allclose(third, first / 4)


def test_controls_keep_to_their_bounds_and_gains_have_none():
    config = MPPIConfig(horizon=2, noise_std=0.5, reflex_std=5.0)
    samples = draw(np.full((1, 5, 1), 0.9), config, num_gains=3)
    controls, gains = samples[:, 1:, :2], samples[:, 1:, 2:]
    assert np.abs(controls).max() == 1.0
    # What all of them do together where each observation is a standard deviation off.
    np.testing.assert_allclose(gains.sum(axis=2).std(), 5.0, rtol=0.1)


def test_categories_are_drawn_one_by_one():
    scaling = CategoryScaling(3, 0)
    mean = np.zeros((1, 2, scaling.action_dims))
    samples = draw(mean, MPPIConfig(horizon=2, noise_std=1.0), scaling)[:, 1:]
    np.testing.assert_array_equal(samples, scaling.snap(samples))
    assert {tuple(row) for row in samples.reshape(-1, 3)} == {
        tuple(row) for row in scaling.snap(np.eye(3))
    }


@pytest.mark.parametrize("with_mean", [True, False])
def test_as_many_are_drawn_as_asked_for(with_mean):
    sampler = Sampler(MPPIConfig(horizon=2), BOX, 0, snaps=True)
    mean, rng = np.zeros((1, 2, 1)), np.random.default_rng(0)
    samples = sampler.draw(mean, 7, 0, rng, with_mean=with_mean)
    assert samples.shape == (1, 7, 2, 1)
    assert (samples[0, 0] == 0).all() == with_mean
