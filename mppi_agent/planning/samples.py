"""Sampled controls with their measured returns and scores, and what is read off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Samples"]


@dataclass(frozen=True)
class Samples:
    """Hold K measured plans for each of S states.

    Attributes:
        parameters: What the search varies, shape (S, K, H + d, nu): the controls, or feedforward
            controls and d rows of gains.
        controls: As they were done, normalised, shape (S, K, H, nu).
        returns: The env's own, shape (S, K); -inf if the simulation diverged.
        scores: What samples are ranked by, shape (S, K); -inf if the simulation diverged.
        violations: Of what comes before any score, shape (S, K), >= 0; inf if it diverged.
    """

    parameters: np.ndarray
    controls: np.ndarray
    returns: np.ndarray
    scores: np.ndarray
    violations: np.ndarray

    @classmethod
    def none_like(cls, parameters: np.ndarray, horizon: int) -> Samples:
        """Return no samples (K = 0) for parameters of shape (S, any, H + d, nu)."""
        none, nothing = np.empty((parameters.shape[0], 0)), parameters[:, :0]
        controls = nothing if parameters.shape[2] == horizon else nothing[:, :, :horizon]
        return cls(nothing, controls, none, none, none)

    @classmethod
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """Put samples of the same states side by side, in the order given."""
        parts = [part for part in parts if part.count] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        parameters = np.concatenate([part.parameters for part in parts], axis=1)
        controls = parameters
        if not all(part.controls is part.parameters for part in parts):
            controls = np.concatenate([part.controls for part in parts], axis=1)
        return cls(
            parameters,
            controls,
            np.concatenate([part.returns for part in parts], axis=1),
            np.concatenate([part.scores for part in parts], axis=1),
            np.concatenate([part.violations for part in parts], axis=1),
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
        return self._at((slice(None), slice(count)))

    def split(self) -> list[Samples]:
        """Return each sample by itself, K = 1."""
        return [self._at((slice(None), slice(k, k + 1))) for k in range(self.count)]

    def best(self, count: int) -> Samples:
        """Return the `count` samples that rank highest, best first; ties keep their order."""
        if self.count == 1:
            return self.first(count)
        return self.pick(np.lexsort((-self.scores, self.violations), axis=1)[:, :count])

    def pick(self, index: np.ndarray) -> Samples:
        """Return the samples `index`, shape (S, any), of each state."""
        return self._at((_rows(index), index))

    def shortened(self, horizon: int) -> Samples:
        """Return the same with the first `horizon` controls alone; what followed still counts."""
        if self.controls.shape[2] == horizon:
            return self
        cut = slice(horizon)
        return replace(
            self, parameters=self.parameters[:, :, cut], controls=self.controls[:, :, cut]
        )

    def standing(self) -> np.ndarray:
        """Return by how much samples count for the weights, shape (S, K).

        The score where nothing is violated and -inf elsewhere; where a state has no such sample,
        minus the violation.
        """
        is_sound = self.violations == 0
        has_sound = is_sound.any(axis=1, keepdims=True)
        return np.where(has_sound, np.where(is_sound, self.scores, -np.inf), -self.violations)

    def weighted_mean(self, weights: np.ndarray) -> np.ndarray:
        """Average the parameters.

        Args:
            weights: Shape (S, K), each row summing to 1.

        Returns:
            Shape (S, H + d, nu), the first H rows in [-1, 1] as those of the samples are.
        """
        num_states, _, rows, action_dims = self.parameters.shape
        flat = self.parameters.reshape(num_states, self.count, rows * action_dims)
        # Not a matrix product: numpy's have threads, which take the cores of the next rollout.
        mean = np.einsum("sk,skj->sj", weights, flat).reshape(num_states, rows, action_dims)
        planned = mean[:, : self.controls.shape[2]]
        np.clip(planned, -1.0, 1.0, out=planned)  # rounding may pass the bounds by one digit
        return mean

    def median_return(self) -> np.ndarray:
        """Return the (upper) median return of the samples that did not diverge, shape (S,).

        Where all diverged it is 0.
        """
        ordered = -np.sort(-self.returns, axis=1)  # best first, diverged last
        alive = self.count - self.diverged
        middle = np.maximum(alive - 1, 0) // 2
        median = ordered[_rows(ordered)[:, 0], middle]
        return np.where(alive > 0, median, 0.0)

    def _at(self, index: tuple[Any, Any]) -> Samples:
        """Return the samples at an index of the first two axes, (S, any)."""
        parameters = self.parameters[index]
        controls = parameters
        if self.controls is not self.parameters:
            controls = self.controls[index]
        return Samples(
            parameters,
            controls,
            self.returns[index],
            self.scores[index],
            self.violations[index],
        )


def _rows(array: np.ndarray) -> np.ndarray:
    """Return the first half of an index that picks per row; `take_along_axis` is slow."""
    return np.arange(len(array))[:, None]
