"""Importance weights of sampled plans: returns -> temperature -> weights."""

from __future__ import annotations

import numpy as np

__all__ = ["effective_sample_size", "softmax_weights", "temperature_for_ess", "weigh"]

# The bracket spans about 8 units of log temperature: cut in 16 four times, relative error < 1e-3.
_SECTIONS = 16
_ROUNDS = 4
_SMALLEST_TEMPERATURE = 1e-12  # reward units; reached only when the best returns tie at 0


def weigh(
    returns: np.ndarray, temperature: float | None, ess_fraction: float, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weigh sampled plans at a given temperature, or at the one that an effective size wants.

    Args:
        returns: Of each sample, shape (S, K), reward units; -inf marks a diverged rollout. Where
            all of a state's are, sample 0 gets all weight.
        temperature: For all states, > 0; None: of each by `temperature_for_ess`.
        ess_fraction: As there.
        floor: As there.

    Returns:
        The temperature, shape (S,), and the weights, shape (S, K), each row summing to 1.
    """
    hopeless = np.isneginf(returns).all(axis=1)
    returns = returns.copy()
    returns[hopeless, 0] = 0.0
    if temperature is None:
        temperatures = temperature_for_ess(returns, ess_fraction, floor)
    else:
        temperatures = np.full(len(returns), float(temperature))
    return temperatures, softmax_weights(returns, temperatures)


def softmax_weights(returns: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Weigh sampled plans by their return.

    The best return is subtracted first: the weights are unchanged and no exponent overflows.

    Args:
        returns: Return of each sample, shape (..., K), reward units; -inf marks a diverged rollout.
        temperature: Spread of the weights, same unit as `returns`, > 0, shape (...) or a number
            for all. Small: best sample wins.

    Returns:
        Non-negative weights, shape (..., K), each row summing to 1.

    Raises:
        ValueError: If `temperature` <= 0 or a row has no finite return.

    Source: Williams et al. 2017, "Information theoretic MPC", Algorithm 2 (costs negated).
    """
    temperature = np.asarray(temperature, dtype=np.float64)
    if not (temperature > 0).all():
        raise ValueError(f"temperature must be > 0, got {temperature.min()}")
    best = returns.max(axis=-1, keepdims=True)
    if not np.isfinite(best).all():
        raise ValueError(
            f"no finite return among {returns.shape[-1]} samples; "
            "the simulation diverged: lower noise_std or the simulator time step"
        )
    weights = np.exp((returns - best) / temperature[..., None])
    return weights / weights.sum(axis=-1, keepdims=True)


def effective_sample_size(weights: np.ndarray) -> np.ndarray:
    """Count the samples that effectively contribute: 1 / sum(weights^2).

    Args:
        weights: Shape (..., K), each row summing to 1.

    Returns:
        From 1 (one sample has all weight) to K (all are equal), shape (...).

    Source: Kong 1992, "A note on importance sampling using standardized weights".
    """
    return 1.0 / np.square(weights).sum(axis=-1)


def temperature_for_ess(returns: np.ndarray, ess_fraction: float, floor: float) -> np.ndarray:
    """Find the temperature at which a given share of the samples effectively contributes.

    Alone, this rule makes confident weights of meaningless differences: it only sees ranks and
    ratios. The floor ties the temperature to the size of the returns: differences far below
    `floor` times the best return leave the weights uniform.

    Args:
        returns: Return of each sample, shape (S, K), reward units; -inf marks a diverged rollout.
        ess_fraction: Effective sample size wanted, as a share of the samples that did not
            diverge, in (0, 1); at least one sample.
        floor: Smallest temperature as a share of the best return's magnitude, >= 0.

    Returns:
        Temperature, shape (S,), reward units, > 0.
    """
    ordered = -np.sort(-returns, axis=-1)  # best first, diverged last
    count = np.isfinite(ordered).sum(axis=-1)  # (S,)
    best = np.where(count > 0, ordered[:, 0], 0.0)
    smallest = np.maximum(floor * np.abs(best), _SMALLEST_TEMPERATURE)

    # The gap to the first sample beyond the target brackets the temperature. With m samples within
    # the gap, ESS >= sum(weights / max weight) >= m exp(-gap / T) gives the upper end; at the
    # lower end all samples beyond it have weights below exp(-50).
    target = np.maximum(ess_fraction * count, 1.0)
    beyond = np.floor(target).astype(int)
    has_gap = beyond < count
    at_gap = np.take_along_axis(ordered, np.where(has_gap, beyond, 0)[:, None], axis=-1)[:, 0]
    gap = np.where(has_gap, best - np.where(has_gap, at_gap, best), 0.0)
    positive_gap = np.where(gap > 0, gap, 1.0)
    low = np.log(positive_gap / 50.0)
    high = np.log(positive_gap / np.log((beyond + 1) / target))

    advantages = np.where(count[:, None] > 0, ordered - best[:, None], 0.0)
    # Bisection, but with many cuts at a time: fewer and larger array operations.
    shares = np.arange(1, _SECTIONS) / _SECTIONS
    width = high - low
    for _ in range(_ROUNDS):
        inverse = np.exp(-(low[:, None] + shares * width[:, None]))  # (S, sections - 1)
        unnormalised = np.exp(advantages[:, None] * inverse[..., None])
        total, squares = unnormalised.sum(axis=-1), np.square(unnormalised).sum(axis=-1)
        num_too_cold = (total**2 <= (target[:, None] * squares)).sum(axis=-1)
        width = width / _SECTIONS
        low = low + num_too_cold * width
    return np.where(gap > 0, np.maximum(np.exp(low + 0.5 * width), smallest), smallest)
