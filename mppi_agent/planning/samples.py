"""Sampled controls with their measured returns, and what is read off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Samples"]


@dataclass(frozen=True)
class Samples:
    """Hold K measured plans for each of S states.

    Attributes:
        controls: Normalised, shape (S, K, H, nu).
        returns: Shape (S, K); -inf if the simulation diverged.
    """

    controls: np.ndarray
    returns: np.ndarray

    @classmethod
    def none_like(cls, controls: np.ndarray) -> Samples:
        """Return no samples (K = 0) for controls of shape (S, any, H, nu)."""
        return cls(controls[:, :0], np.empty((controls.shape[0], 0)))

    @classmethod
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """Put samples of the same states side by side, in the order given."""
        return cls(
            np.concatenate([part.controls for part in parts], axis=1),
            np.concatenate([part.returns for part in parts], axis=1),
        )

    @property
    def count(self) -> int:
        """Return K."""
        return self.returns.shape[1]

    @property
    def diverged(self) -> np.ndarray:
        """Return how many samples diverged, shape (S,)."""
        return np.isneginf(self.returns).sum(axis=1)

    def first(self, count: int) -> Samples:
        """Return the first `count` samples of each state."""
        return Samples(self.controls[:, :count], self.returns[:, :count])

    def best(self, count: int) -> Samples:
        """Return the `count` samples of highest return, best first; ties keep their order."""
        order = np.argsort(-self.returns, axis=1, kind="stable")[:, :count]
        return Samples(
            np.take_along_axis(self.controls, order[:, :, None, None], axis=1),
            np.take_along_axis(self.returns, order, axis=1),
        )

    def weighted_mean(self, weights: np.ndarray) -> np.ndarray:
        """Average the controls.

        Args:
            weights: Shape (S, K), each row summing to 1.

        Returns:
            Shape (S, H, nu), in [-1, 1] as the samples are.
        """
        num_states, _, horizon, action_dims = self.controls.shape
        flat = self.controls.reshape(num_states, self.count, horizon * action_dims)
        mean = (weights[:, None] @ flat).reshape(num_states, horizon, action_dims)
        return np.clip(mean, -1.0, 1.0)  # rounding may pass the bounds by one digit

    def median_return(self) -> np.ndarray:
        """Return the (upper) median return of the samples that did not diverge, shape (S,).

        Where all diverged it is 0.
        """
        ordered = -np.sort(-self.returns, axis=1)  # best first, diverged last
        alive = self.count - self.diverged
        middle = np.maximum(alive - 1, 0) // 2
        median = np.take_along_axis(ordered, middle[:, None], axis=1)[:, 0]
        return np.where(alive > 0, median, 0.0)
