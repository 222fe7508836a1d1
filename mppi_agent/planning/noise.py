"""Exploration noise: white numbers -> correlated knots -> one value per control step.

Both stages are linear, so they are folded into one matrix, built once per planner.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = [
    "KnotBasis",
    "cubic_basis",
    "linear_basis",
    "noise_matrix",
    "sample_noise",
    "with_gain_noise",
]

KnotBasis = Callable[[int, int], np.ndarray]
"""Map (horizon, knot_spacing) to a matrix from knots to control steps, shape (H, num_knots)."""


def linear_basis(horizon: int, knot_spacing: int) -> np.ndarray:
    """Interpolate knots by straight lines.

    Args:
        horizon: Control steps H, >= 1.
        knot_spacing: Control steps from one knot to the next, >= 1; the first knot is at step 0.

    Returns:
        Matrix from knots to control steps, shape (H, num_knots), each row summing to 1.
    """
    left, fraction, knots = _segments(horizon, knot_spacing)
    right = np.minimum(left + 1, len(knots) - 1)
    return (1.0 - fraction) * knots[left] + fraction * knots[right]


def cubic_basis(horizon: int, knot_spacing: int) -> np.ndarray:
    """Interpolate knots by cubic Hermite pieces whose slopes are central differences.

    Passes through every knot with a continuous slope; may overshoot between knots.

    Args:
        horizon: Control steps H, >= 1.
        knot_spacing: Control steps from one knot to the next, >= 1; the first knot is at step 0.

    Returns:
        Matrix from knots to control steps, shape (H, num_knots), each row summing to 1.

    Source: Catmull and Rom 1974, "A class of local interpolating splines".
    """
    left, u, knots = _segments(horizon, knot_spacing)
    if len(knots) == 1:
        return knots[left]
    right = left + 1
    slopes = np.gradient(knots, axis=0)  # one-sided at both ends
    return (
        (1 + 2 * u) * (1 - u) ** 2 * knots[left]
        + u * (1 - u) ** 2 * slopes[left]
        + u**2 * (3 - 2 * u) * knots[right]
        + u**2 * (u - 1) * slopes[right]
    )


def noise_matrix(
    horizon: int,
    knot_spacing: int,
    correlation: float,
    basis: KnotBasis = linear_basis,
    *,
    fade: float = 0.0,
) -> np.ndarray:
    """Build the matrix that turns white noise into noise for each control step.

    Neighbouring knots follow a first-order autoregression. Rows are rescaled so that control step t
    has standard deviation exp(-fade t / H); plain interpolation would explore less between knots.

    Args:
        horizon: Control steps H, >= 1.
        knot_spacing: Control steps from one knot to the next, >= 1.
        correlation: Of neighbouring knots, in [0, 1); 0 is white noise.
        basis: Interpolation of the knots.
        fade: >= 0; 0: all steps alike.

    Returns:
        Shape (H, num_knots), rows of norm exp(-fade t / H).
    """
    interpolation = basis(horizon, knot_spacing)
    steps = np.arange(interpolation.shape[1])
    covariance = float(correlation) ** np.abs(steps[:, None] - steps[None, :])
    matrix = interpolation @ np.linalg.cholesky(covariance)
    std = np.exp(-fade * np.arange(horizon) / horizon)[:, None]
    return std * matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def with_gain_noise(matrix: np.ndarray, num_gains: int, ratio: float) -> np.ndarray:
    """Add noise for gains below the noise for each control step.

    Args:
        matrix: From `noise_matrix`, shape (H, num_knots).
        num_gains: Gains per control, d, >= 1.
        ratio: Standard deviation of what all gains together do to a control where features are of
            unit size, as a multiple of the noise of a control step, > 0.

    Returns:
        Shape (H + d, num_knots + d).
    """
    horizon, num_knots = matrix.shape
    joint = np.zeros((horizon + num_gains, num_knots + num_gains))
    joint[:horizon, :num_knots] = matrix
    joint[horizon:, num_knots:] = np.eye(num_gains) * ratio / np.sqrt(num_gains)
    return joint


def sample_noise(
    matrix: np.ndarray,
    shape: tuple[int, int, int],
    rng: np.random.Generator,
    *,
    antithetic: bool = False,
    tail_scale: float = 0.0,
) -> np.ndarray:
    """Draw noise, of unit variance where the matrix does not fade.

    Args:
        matrix: From `noise_matrix`, shape (H, num_knots), gains below it or not.
        shape: (S, K, nu).
        rng: Source of randomness.
        antithetic: Whether the second half of the K samples mirrors the first half, which makes
            their mean exactly 0 when K is even.
        tail_scale: Std of the logarithm of a random factor per sample, >= 0. Above 0 a few samples
            reach far and most stay near, at the same overall variance.

    Returns:
        Shape (S, K, H, nu).

    Source: Pinneri et al. 2020, "Sample-efficient cross-entropy method", section 3.1 (correlated
        noise); Mohamed et al. 2022, "Autonomous navigation with a log-MPPI" (heavy tails).
    """
    num_states, num_samples, action_dims = shape
    drawn = (num_samples + 1) // 2 if antithetic else num_samples
    white = rng.standard_normal((num_states, drawn, matrix.shape[1], action_dims))
    noise = matrix @ white  # (S, drawn, H, nu)
    if tail_scale > 0:
        # exp(t z - t^2) has mean square 1 for z ~ N(0, 1): noise_std keeps its meaning.
        spread = tail_scale * rng.standard_normal((num_states, drawn, 1, 1))
        noise *= np.exp(spread - tail_scale**2)
    if antithetic:
        noise = np.concatenate([noise, -noise], axis=1)[:, :num_samples]
    return noise


def _segments(horizon: int, knot_spacing: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each step's left knot (H,), its place in the segment (H, 1), the unit knots."""
    num_knots = -(-(horizon - 1) // knot_spacing) + 1
    position = np.arange(horizon) / knot_spacing
    left = np.minimum(position.astype(int), max(num_knots - 2, 0))
    return left, (position - left)[:, None], np.eye(num_knots)
