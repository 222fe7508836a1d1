"""What plans are ranked by, where that is more than the env's own return.

RolloutBatch --terms--> scores, violations --> weights; the measured return stays the env's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mppi_agent.interfaces import EnvState, Observation, RolloutBatch

__all__ = ["Objective", "Scoring", "Term", "Trajectories", "discounted_sum"]


@dataclass(frozen=True)
class Trajectories:
    """Show the terms of an objective what S x K sampled plans do.

    Attributes:
        starts: The S states that plans start from.
        controls: Normalised, or scores of categories, shape (S, K, H, nu).
        actions: The same in env units, shape (S, K, H, *action).
        rollout: What the simulator returned; its observations are there only for a `Term` that
            says `reads_observations`.
        returns: The env's own discounted return, and the leaf value where there is one, shape
            (S, K); -inf if the simulation diverged.
        discount: Of rewards per control step, in (0, 1].
        has_leaf_value: Whether `returns` value what follows the horizon.
        previous_controls: What was done right before, shape (S, nu), NaN where that is not known;
            None: not known of any state.
    """

    starts: Sequence[EnvState]
    controls: np.ndarray
    actions: np.ndarray
    rollout: RolloutBatch
    returns: np.ndarray
    discount: float
    has_leaf_value: bool = False
    previous_controls: np.ndarray | None = None

    @property
    def observations(self) -> Observation:
        """Observations after every step, (S, K, H, *obs); the last one repeats after the end.

        Raises:
            ValueError: If no term of the objective asked for them.
        """
        if self.rollout.observations is None:
            raise ValueError(
                "this rollout kept no observations: set reads_observations = True on the term"
            )
        return self.rollout.observations

    @property
    def is_alive(self) -> np.ndarray:
        """True for the steps that were simulated, the terminating one included, (S, K, H)."""
        return self.rollout.is_alive

    def discounted_sum(self, per_step: np.ndarray) -> np.ndarray:
        """Add up a quantity per step, shape (S, K, H), as rewards are: (S, K).

        Raises:
            ValueError: If it has another shape.
        """
        shape = self.rollout.rewards.shape
        if np.shape(per_step) != shape:
            raise ValueError(
                f"a quantity per step must have shape (S, K, H) = {shape}, got "
                f"{np.shape(per_step)}; reduce the axes of observations or actions first"
            )
        return discounted_sum(np.where(self.is_alive, per_step, 0.0), self.discount)


def discounted_sum(per_step: np.ndarray, discount: float) -> np.ndarray:
    """Add up a quantity per step, shape (S, K, H): (S, K), to the last digit the same at any K."""
    return np.einsum("skh,h->sk", per_step, discount ** np.arange(per_step.shape[-1]))


class Term(Protocol):
    """Add `scale * value` to the return that plans are ranked by.

    `scale` is asked once per call of the planner, with what it rolls out first: the proposals where
    there are several, else the samples of the first iteration. So a term can size itself by the
    spread of their returns, and still ranks all iterations alike.
    """

    @property
    def reads_observations(self) -> bool:
        """Whether `Trajectories.observations` must be there; costs a little time."""
        ...

    @property
    def comes_first(self) -> bool:
        """Whether -value is a violation that no return makes up for."""
        ...

    def scale(self, first: Trajectories) -> np.ndarray | float:
        """Return the weight of the term, shape (S,) or a number."""
        ...

    def value(self, trajectories: Trajectories) -> np.ndarray:
        """Return what is good about each sample, shape (S, K); ignored where it diverged."""
        ...


@dataclass(frozen=True)
class Objective:
    """Rank plans by the env's return and any number of terms.

    Where a term `comes_first`, plans of smaller violation rank before all others, whatever they
    return: weights go to plans without violation, and to the smallest violations where there are
    no such plans.

    Attributes:
        terms: They add up.

    Raises:
        TypeError: If a term is none.

    Source: Deb 2000, "An efficient constraint handling method for genetic algorithms", section 3.
    """

    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        """Check the terms."""
        for term in self.terms:
            if not all(hasattr(term, name) for name in ("scale", "value", "reads_observations")):
                raise TypeError(
                    f"objective holds {term!r}, which is no term; wrap a function of Trajectories "
                    "in RewardTerm or Constraint from mppi_agent.planning"
                )

    @property
    def reads_observations(self) -> bool:
        """Whether rollouts must keep their observations."""
        return any(term.reads_observations for term in self.terms)

    def scoring(self) -> Scoring:
        """Return what scores all samples of one call of the planner."""
        return Scoring(self.terms)


class Scoring:
    """Score the samples of one call of the planner; the first ones fix the scale of each term.

    Args:
        terms: They add up.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = terms
        self._scales: list[np.ndarray] | None = None

    def __call__(self, trajectories: Trajectories) -> tuple[np.ndarray, np.ndarray]:
        """Return what samples are ranked by.

        Args:
            trajectories: Of S x K samples.

        Returns:
            Scores, shape (S, K), -inf where the simulation diverged; and violations of what comes
            first, shape (S, K), >= 0, inf where it diverged.

        Raises:
            ValueError: If a term returns another shape, or a number that is not finite.
        """
        lost = np.isneginf(trajectories.returns)
        scores = trajectories.returns.copy()
        violations = np.where(lost, np.inf, 0.0)
        if self._scales is None:
            self._scales = [_scale(term, trajectories) for term in self._terms]
        for term, scale in zip(self._terms, self._scales, strict=True):
            value = np.asarray(term.value(trajectories), dtype=np.float64)
            if value.shape != lost.shape or not np.isfinite(value[~lost]).all():
                raise ValueError(
                    f"{type(term).__name__}.value must be finite and of shape (S, K) = "
                    f"{lost.shape}, got shape {value.shape} and {int((~np.isfinite(value)).sum())} "
                    "numbers that are not finite; check what it computes"
                )
            weighted = np.where(lost, 0.0, scale[:, None] * np.where(lost, 0.0, value))
            if term.comes_first:
                violations -= weighted
            else:
                scores += weighted
        return scores, violations


def _scale(term: Term, first: Trajectories) -> np.ndarray:
    scale = np.asarray(term.scale(first), dtype=np.float64)
    num_states = len(first.returns)
    if scale.shape not in ((), (num_states,)) or not np.isfinite(scale).all():
        raise ValueError(
            f"{type(term).__name__}.scale must be finite and of shape (S,) = ({num_states},), or a "
            f"number, got {scale}"
        )
    return np.broadcast_to(scale, num_states)
