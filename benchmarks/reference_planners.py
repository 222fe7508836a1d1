"""Published sampling planners in their smallest form, to measure ours against.

state --objective--> returns of sampled controls --planner--> the action to take

Each one sees the simulator as an `Objective` and keeps its own warm start between calls. Controls
are normalised to [-1, 1], so a noise of 1 is half the action range. Returns are summed without
discount, as published.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mppi_agent.planning import cubic_basis

__all__ = ["CEM", "ICEM", "Objective", "PredictiveSampling", "coloured_noise"]

Objective = Callable[[np.ndarray], np.ndarray]
"""Map controls of shape (K, H, nu) to returns of shape (K,); -inf where the rollout diverged."""

_FEWEST_ROLLOUTS = 8


class PredictiveSampling:
    """Perturb the knots of a spline and keep the best of them.

    Args:
        horizon: Control steps of a plan, H.
        action_dims: Controls per step, nu.
        num_rollouts: Most rollouts per call, >= 8.
        rng: Source of the noise.
        noise_std: Of each knot, > 0.
        num_knots: Of the spline over the horizon, >= 2; fewer where they would lie closer than a
            step.
        num_samples: Rollouts of one round, the nominal among them; the rounds share `num_rollouts`,
            as a planner that repeats until the time is up.

    Raises:
        ValueError: If `num_rollouts` < 8 or `num_knots` < 2.

    Source: Howell et al. 2022, "Predictive sampling: real-time behaviour synthesis with MuJoCo",
        Algorithm 1; the defaults are those of MuJoCo MPC (10 samples, noise 0.1, cubic splines),
        where each task brings a number of knots of its own.
    """

    def __init__(
        self,
        horizon: int,
        action_dims: int,
        num_rollouts: int,
        rng: np.random.Generator,
        *,
        noise_std: float = 0.1,
        num_knots: int = 5,
        num_samples: int = 10,
    ) -> None:
        _require_rollouts(num_rollouts)
        if num_knots < 2:
            raise ValueError(f"num_knots must be >= 2, got {num_knots}; 3 to 10 are usual")
        spacing = max(1, math.ceil((horizon - 1) / (num_knots - 1)))
        self._basis = cubic_basis(horizon, spacing)  # (H, num_knots)
        last = (self._basis.shape[1] - 1) * spacing
        on_time = np.arange(self._basis.shape[1]) * spacing
        one_later = np.minimum(on_time + 1, last)
        self._shift = cubic_basis(last + 1, spacing)[one_later]  # (num_knots, num_knots)
        self._knots = np.zeros((self._basis.shape[1], action_dims))
        self._rounds = max(1, num_rollouts // num_samples)
        self._num_samples = num_rollouts // self._rounds
        self._noise_std = noise_std
        self._rng = rng

    def act(self, objective: Objective) -> np.ndarray:
        """Return the controls to take now, shape (nu,)."""
        for _ in range(self._rounds):
            noise = self._rng.standard_normal((self._num_samples, *self._knots.shape))
            noise[0] = 0.0
            candidates = np.clip(self._knots + self._noise_std * noise, -1.0, 1.0)
            returns = objective(np.clip(self._basis @ candidates, -1.0, 1.0))
            self._knots = candidates[np.argmax(returns)]
        action = self._knots[0]
        # The same spline, read one control step later.
        self._knots = np.clip(self._shift @ self._knots, -1.0, 1.0)
        return action


class CEM:
    """Refit a normal distribution to the best samples, and act on its mean.

    Args:
        horizon: Control steps of a plan, H.
        action_dims: Controls per step, nu.
        num_rollouts: Most rollouts per call, >= 8.
        rng: Source of the noise.
        init_std: Of the first iteration, > 0.
        iterations: Refits; fewer where an iteration would get less than 4 samples.
        elite_share: Of the samples that the distribution is fitted to; at least 2 and, as far as
            half the samples allow, 5.
        momentum: Share of the old mean and variance that a refit keeps, in [0, 1).

    Raises:
        ValueError: If `num_rollouts` < 8.

    Source: Chua et al. 2018, "Deep reinforcement learning in a handful of trials", section 5 and
        its code: 5 iterations, 10 % elites, momentum 0.1, normal cut off at 2 standard deviations,
        which are at most the distance to the bounds; the mean is shifted and ends with zero.
    """

    def __init__(
        self,
        horizon: int,
        action_dims: int,
        num_rollouts: int,
        rng: np.random.Generator,
        *,
        init_std: float = 0.5,
        iterations: int = 5,
        elite_share: float = 0.1,
        momentum: float = 0.1,
    ) -> None:
        _require_rollouts(num_rollouts)
        self._iterations = min(iterations, num_rollouts // 4)
        self._num_samples = num_rollouts // self._iterations
        at_least = max(2, min(5, self._num_samples // 2))
        self._num_elites = max(round(elite_share * self._num_samples), at_least)
        self._init_std = init_std
        self._momentum = momentum
        self._rng = rng
        self._mean = np.zeros((horizon, action_dims))

    def act(self, objective: Objective) -> np.ndarray:
        """Return the controls to take now, shape (nu,)."""
        mean = self._mean
        variance = np.full(mean.shape, self._init_std**2)
        for _ in range(self._iterations):
            to_bound = np.minimum(1.0 + mean, 1.0 - mean)
            std = np.sqrt(np.minimum(variance, (to_bound / 2) ** 2))
            noise = _truncated_normal((self._num_samples, *mean.shape), self._rng)
            controls = np.clip(mean + std * noise, -1.0, 1.0)
            elites = _best(controls, objective(controls), self._num_elites)
            mean = _mix(elites.mean(axis=0), mean, self._momentum)
            variance = _mix(elites.var(axis=0), variance, self._momentum)
        self._mean = np.concatenate([mean[1:], np.zeros((1, mean.shape[1]))])
        return mean[0]


class ICEM:
    """CEM with coloured noise, memory of elites and fewer samples in each iteration.

    Args:
        horizon: Control steps of a plan, H.
        action_dims: Controls per step, nu.
        num_rollouts: Most rollouts per call, >= 8.
        rng: Source of the noise.
        beta: Exponent of the noise's power spectrum, >= 0: 0 is white, 2 a random walk. The paper
            picks it per task, from 0.25 (HalfCheetah) to 3.5; its code defaults to 3.
        init_std: Of the first iteration, > 0.
        iterations: Refits, 1 or more.
        num_elites: Samples that the distribution is fitted to; fewer where two times as many would
            not fit into each iteration.
        momentum: Share of the old mean and standard deviation that a refit keeps, in [0, 1).
        decay: Factor by which the number of samples falls from one iteration to the next, >= 1.
        reused_share: Of the elites, which enter the next iteration and, shifted, the next call.

    Raises:
        ValueError: If `num_rollouts` < 8.

    Source: Pinneri et al. 2020, "Sample-efficient cross-entropy method for real-time planning",
        Algorithm 1; defaults from its code. Kept elites are not simulated again.
    """

    def __init__(
        self,
        horizon: int,
        action_dims: int,
        num_rollouts: int,
        rng: np.random.Generator,
        *,
        beta: float = 3.0,
        init_std: float = 0.5,
        iterations: int = 3,
        num_elites: int = 10,
        momentum: float = 0.1,
        decay: float = 1.25,
        reused_share: float = 0.3,
    ) -> None:
        _require_rollouts(num_rollouts)
        iterations = min(iterations, num_rollouts // 4)
        self._num_elites = num_elites
        while (
            self._num_elites > 2
            and sum(self._counts(0, iterations, decay)) + int(reused_share * self._num_elites)
            > num_rollouts
        ):
            self._num_elites -= 1
        self._num_reused = int(reused_share * self._num_elites)
        first = 2 * self._num_elites
        while sum(self._counts(first + 1, iterations, decay)) + self._num_reused <= num_rollouts:
            first += 1
        self.num_samples = self._counts(first, iterations, decay)
        self._beta, self._init_std, self._momentum = beta, init_std, momentum
        self._rng = rng
        self._mean = np.zeros((horizon, action_dims))
        self._elites = np.zeros((0, horizon, action_dims))

    def act(self, objective: Objective) -> np.ndarray:
        """Return the controls to take now, shape (nu,)."""
        mean, std = self._mean, np.full(self._mean.shape, self._init_std)
        elites, elite_returns = self._elites[:0], np.zeros(0)
        for iteration, num in enumerate(self.num_samples):
            controls = self._sample(mean, std, num)
            if iteration == 0:
                controls = np.concatenate([controls, self._shifted_elites(mean, std)])
            if iteration == len(self.num_samples) - 1:
                controls[0] = mean
            kept = slice(self._num_reused)
            pool = np.concatenate([controls, elites[kept]])
            returns = np.concatenate([objective(controls), elite_returns[kept]])
            best = np.argsort(-returns, kind="stable")[: self._num_elites]
            elites, elite_returns = pool[best], returns[best]
            mean = _mix(elites.mean(axis=0), mean, self._momentum)
            std = _mix(elites.std(axis=0), std, self._momentum)
        self._mean = np.concatenate([mean[1:], mean[-1:]])
        self._elites = elites
        return elites[0, 0]

    def _counts(self, first: int, iterations: int, decay: float) -> list[int]:
        """Return the samples of each iteration, at least twice the elites."""
        fewest = 2 * self._num_elites
        return [max(fewest, int(first / decay**i)) for i in range(iterations)]

    def _sample(self, mean: np.ndarray, std: np.ndarray, num: int) -> np.ndarray:
        noise = coloured_noise(self._beta, (num, *mean.shape), self._rng)
        return np.clip(mean + std * noise, -1.0, 1.0)

    def _shifted_elites(self, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        """Return the last call's best elites one step later, their last step drawn anew."""
        reused = self._elites[: self._num_reused]
        return np.concatenate([reused[:, 1:], self._sample(mean, std, len(reused))[:, -1:]], axis=1)


def coloured_noise(
    beta: float, shape: tuple[int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Draw noise whose power falls with frequency f as f^-beta.

    Args:
        beta: >= 0; 0 is white, 1 pink, 2 a random walk.
        shape: (K, H, nu); correlated along H.
        rng: Source of randomness.

    Returns:
        Shape (K, H, nu). The frequencies from 1/H on have variance 1 in sum; the constant part,
        as strong as the lowest of them, comes on top, as in the noise that iCEM was published with.

    Source: Timmer and König 1995, "On generating power law noise".
    """
    num, horizon, action_dims = shape
    if horizon == 1:
        return rng.standard_normal(shape)
    frequencies = np.maximum(np.fft.rfftfreq(horizon), 1.0 / horizon)
    amplitudes = frequencies ** (-beta / 2)
    parts = rng.standard_normal((2, num, len(frequencies), action_dims))
    spectrum = amplitudes[:, None] * (parts[0] + 1j * parts[1])
    # The constant, and at even H the highest frequency, are real.
    is_real = [0, -1] if horizon % 2 == 0 else [0]
    spectrum[:, is_real] = np.sqrt(2) * spectrum[:, is_real].real
    weights = np.full(len(frequencies), 4.0)
    weights[is_real] = 2.0
    weights[0] = 0.0
    std = np.sqrt(weights @ amplitudes**2) / horizon
    return np.fft.irfft(spectrum, horizon, axis=1) / std


def _truncated_normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw standard normal numbers until all lie within 2 standard deviations."""
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


def _best(controls: np.ndarray, returns: np.ndarray, count: int) -> np.ndarray:
    return controls[np.argsort(-returns, kind="stable")[:count]]


def _mix(new: np.ndarray, old: np.ndarray, momentum: float) -> np.ndarray:
    return (1 - momentum) * new + momentum * old


def _require_rollouts(num_rollouts: int) -> None:
    if num_rollouts < _FEWEST_ROLLOUTS:
        raise ValueError(
            f"num_rollouts must be >= {_FEWEST_ROLLOUTS}, got {num_rollouts}; "
            "raise the budget or shorten the horizon"
        )
