"""Confidence intervals of means, and of differences on the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mppi_agent.evaluation import Evaluation

__all__ = ["CONFIDENCE", "PairedDifference", "mean_interval", "paired_difference"]

CONFIDENCE = 0.95


def mean_interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the confidence interval of a mean, by Student's t.

    Args:
        samples: Shape (n, ...), n >= 2; samples are along the first axis.

    Returns:
        Lower and upper end, shape (...). For n = 2 or 3 the interval is wide, and rightly so.

    Raises:
        ValueError: If there are fewer than two samples.

    Source: Student 1908, "The probable error of a mean".
    """
    num = len(samples)
    if num < 2:
        raise ValueError(f"a confidence interval needs at least 2 samples, got {num}")
    half = stats.t.ppf((1 + CONFIDENCE) / 2, num - 1) * stats.sem(samples, axis=0)
    mean = np.mean(samples, axis=0)
    return mean - half, mean + half


@dataclass(frozen=True)
class PairedDifference:
    """Hold by how much one policy returns more than another on the same seeds.

    Attributes:
        mean: Of the differences, reward units.
        low: End of the 95 % confidence interval of the mean.
        high: Its other end.
        wins: Episodes in which the first returns more.
        losses: Episodes in which it returns less.
        episodes: Number of pairs.
    """

    mean: float
    low: float
    high: float
    wins: int
    losses: int
    episodes: int

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{self.mean:+.2f}, {CONFIDENCE:.0%} interval [{self.low:+.2f}, {self.high:+.2f}], "
            f"more in {self.wins} and less in {self.losses} of {self.episodes} episodes"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return {**vars(self), "confidence": CONFIDENCE}


def paired_difference(one: Evaluation, other: Evaluation) -> PairedDifference:
    """Return by how much `one` returns more than `other`.

    Raises:
        ValueError: If the seeds differ or there are fewer than two.
    """
    if one.seeds != other.seeds:
        raise ValueError(
            f"pairs need the same seeds in the same order, got {one.seeds} and {other.seeds}"
        )
    differences = one.returns - other.returns
    low, high = mean_interval(differences)
    return PairedDifference(
        mean=float(differences.mean()),
        low=float(low),
        high=float(high),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        episodes=len(differences),
    )
