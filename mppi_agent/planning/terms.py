"""Terms of an objective: what plans are ranked by beside the env's own return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_agent.interfaces import Observation
from mppi_agent.planning.objective import Trajectories

__all__ = [
    "ActionRate",
    "Constraint",
    "LostFuture",
    "OngoingReward",
    "PolicyPrior",
    "RewardTerm",
]

PerStep = Callable[[Trajectories], np.ndarray]
"""Map what S x K samples do to a number per step, shape (S, K, H)."""


@dataclass(frozen=True)
class RewardTerm:
    """Add an extra reward per step, discounted as the env's rewards are.

    Attributes:
        reward: Maps `Trajectories` to rewards, shape (S, K, H); what it says of steps after the
            end of a rollout does not count.
        weight: Factor on them.
        reads_observations: Whether `reward` reads them.
    """

    reward: PerStep
    weight: float = 1.0
    reads_observations: bool = True
    comes_first = False

    def __post_init__(self) -> None:
        """Check the fields."""
        _require_callable("reward", self.reward)
        _require("weight", self.weight, np.isfinite(self.weight), "finite")

    def scale(self, first: Trajectories) -> float:
        """Return the weight."""
        return self.weight

    def value(self, trajectories: Trajectories) -> np.ndarray:
        """Return the discounted sum of the rewards, shape (S, K)."""
        return trajectories.discounted_sum(self.reward(trajectories))


@dataclass(frozen=True)
class Constraint:
    """Keep plans from violating something.

    Attributes:
        violation: Maps `Trajectories` to how much each step violates, shape (S, K, H), >= 0; what
            it says of steps after the end of a rollout does not count.
        price: Reward units per unit of the discounted sum of violations, > 0. None: plans that
            violate less rank first, whatever they return.
        reads_observations: Whether `violation` reads them.
    """

    violation: PerStep
    price: float | None = None
    reads_observations: bool = True

    def __post_init__(self) -> None:
        """Check the fields."""
        _require_callable("violation", self.violation)
        ok = self.price is None or 0 < self.price < np.inf
        _require("price", self.price, ok, "> 0 and finite, or None (before any return)")

    @property
    def comes_first(self) -> bool:
        """Whether no return makes up for a violation."""
        return self.price is None

    def scale(self, first: Trajectories) -> float:
        """Return the price; 1 where it comes first."""
        return 1.0 if self.price is None else self.price

    def value(self, trajectories: Trajectories) -> np.ndarray:
        """Return minus the discounted sum of the violations, shape (S, K)."""
        violation = self.violation(trajectories)
        if (trajectories.is_alive & (np.asarray(violation) < 0)).any():
            raise ValueError(
                f"violation must be >= 0, got {np.min(violation)}; "
                "use np.maximum(0, amount beyond the limit)"
            )
        return -trajectories.discounted_sum(violation)


@dataclass(frozen=True)
class ActionRate:
    """Make plans smooth: each change from one action to the next costs its square.

    The change from the action done right before counts, too, so that successive plans join.

    Attributes:
        weight: Reward units per squared change of the normalised controls (half-range units),
            summed over dimensions, >= 0.
    """

    weight: float
    reads_observations = False
    comes_first = False

    def __post_init__(self) -> None:
        """Check the weight."""
        _require("weight", self.weight, 0 <= self.weight < np.inf, ">= 0 and finite")

    def scale(self, first: Trajectories) -> float:
        """Return the weight."""
        return self.weight

    def value(self, trajectories: Trajectories) -> np.ndarray:
        """Return minus the discounted sum of squared changes, shape (S, K)."""
        controls = trajectories.controls
        before = controls[:, :, :1]
        if trajectories.previous_controls is not None:
            previous = trajectories.previous_controls[:, None, None]
            before = np.where(np.isnan(previous), before, previous)
        changes = np.diff(controls, axis=2, prepend=before)  # (S, K, H, nu)
        return -trajectories.discounted_sum(np.square(changes).sum(axis=-1))


@dataclass(frozen=True)
class LostFuture:
    """Count what a terminated plan misses beyond the horizon, by the reward rate of going on.

    A plan that ends the episode earns nothing after the horizon; one that does not would go on as
    it did. Without this, falling at the last step of a plan costs nothing. The sign follows from
    the task: where each step costs, an episode that ends is worth more. Where a leaf value is
    given, that says what follows, and this is 0.

    The rate is that of the best sample which goes on, or of the best sample before its last step
    where all end: what ends an episode brings once does not count as a rate.

    Attributes:
        further: Steps beyond the horizon that count, as a multiple of the horizon, >= 0.
    """

    further: float = 1.0
    reads_observations = False
    comes_first = False

    def __post_init__(self) -> None:
        """Check the field."""
        _require("further", self.further, 0 <= self.further < np.inf, ">= 0 and finite")

    def scale(self, first: Trajectories) -> np.ndarray:
        """Return the reward per step of going on, shape (S,)."""
        rollout = first.rollout
        steps = np.arange(rollout.rewards.shape[-1])
        is_last = rollout.terminated[..., None] & (steps == rollout.lengths[..., None] - 1)
        counts = first.is_alive & ~is_last & ~rollout.diverged[..., None]
        total = np.where(counts, rollout.rewards, 0.0).sum(axis=-1)
        rate = total / np.maximum(counts.sum(axis=-1), 1)  # (S, K)
        goes_on = ~(rollout.terminated | rollout.diverged)
        is_asked = goes_on | ~goes_on.any(axis=1, keepdims=True)
        best = np.where(is_asked, first.returns, -np.inf).argmax(axis=1)
        return np.take_along_axis(rate, best[:, None], axis=1)[:, 0]

    def value(self, trajectories: Trajectories) -> np.ndarray:
        """Return minus the discounted steps that are missed, shape (S, K)."""
        missed = _steps_beyond(trajectories, self.further)
        return np.where(trajectories.rollout.terminated, -missed, 0.0)


@dataclass(frozen=True)
class OngoingReward:
    """Take it that a plan goes on to earn what it earns at its end.

    What a plan reaches then counts, not only what it earns on the way: of two that ran as far, the
    one that still runs is worth more than the one that is falling over, which may not end the
    episode. Where a plan ends the episode, or a leaf value says what follows, this is 0.

    Attributes:
        further: Steps beyond the horizon that count, as a multiple of the horizon, >= 0.
        share: Last part of the plan whose mean reward goes on, in (0, 1].
    """

    further: float
    share: float = 0.25
    reads_observations = False
    comes_first = False

    def __post_init__(self) -> None:
        """Check the fields."""
        _require("further", self.further, 0 <= self.further < np.inf, ">= 0 and finite")
        _require("share", self.share, 0 < self.share <= 1, "in (0, 1]")

    def scale(self, first: Trajectories) -> float:
        """Return the discounted steps beyond the horizon."""
        return _steps_beyond(first, self.further)

    def value(self, trajectories: Trajectories) -> np.ndarray:
        """Return the reward per step at the end of each sample, shape (S, K)."""
        rewards = trajectories.rollout.rewards
        last = max(1, round(self.share * rewards.shape[-1]))
        return np.where(trajectories.rollout.terminated, 0.0, rewards[..., -last:].mean(axis=-1))


@dataclass(frozen=True)
class PolicyPrior:
    """Pull plans towards what a policy would do in the states that they visit.

    Scale-free: the disagreement is priced so that its range over the better half of the first
    samples is worth `weight` times the range of their returns. Where the policy disagrees with
    all samples alike, it pulls hardly at all.

    Attributes:
        controls: Maps observations with leading axis N to normalised controls, shape (N, nu).
        weight: > 0; 1: as much as the returns.

    Source: Pinneri et al. 2021, "Extracting strong policies for robotics tasks from zero-order
        trajectory optimizers", equation 5.
    """

    controls: Callable[[Observation], np.ndarray]
    weight: float
    reads_observations = True
    comes_first = False

    def __post_init__(self) -> None:
        """Check the fields."""
        _require_callable("controls", self.controls)
        _require("weight", self.weight, 0 < self.weight < np.inf, "> 0 and finite")

    def scale(self, first: Trajectories) -> np.ndarray:
        """Return reward units per unit of disagreement, shape (S,)."""
        half = np.argsort(-first.returns, axis=1, kind="stable")[
            :, : -(-first.returns.shape[1] // 2)
        ]
        better = np.take_along_axis(first.returns, half, axis=1)
        disagreement = np.take_along_axis(self.value(first), half, axis=1)
        counts = np.isfinite(better)
        spread, disagreements = (
            np.where(counts, part, -np.inf).max(axis=1) - np.where(counts, part, np.inf).min(axis=1)
            for part in (better, disagreement)
        )
        is_useful = counts.any(axis=1) & (disagreements > 0)
        ratio = np.where(is_useful, spread, 0.0) / np.where(is_useful, disagreements, 1.0)
        return self.weight * ratio

    def value(self, trajectories: Trajectories) -> np.ndarray:
        """Return minus the discounted sum of squared differences, shape (S, K)."""
        controls = trajectories.controls
        wanted = self.controls(_before_each_step(trajectories)).reshape(controls.shape)
        return -trajectories.discounted_sum(np.square(controls - wanted).sum(axis=-1))


def _steps_beyond(trajectories: Trajectories, further: float) -> float:
    """Return how many steps beyond the horizon count, discounted; 0 where a leaf value does."""
    if trajectories.has_leaf_value:
        return 0.0
    horizon = trajectories.rollout.rewards.shape[-1]
    beyond = np.arange(horizon, horizon + round(further * horizon))
    return float((trajectories.discount**beyond).sum())


def _before_each_step(trajectories: Trajectories) -> Observation:
    """Return the observation that each step starts from, with one axis of S * K * H."""
    return _shifted([state.observation for state in trajectories.starts], trajectories.observations)


def _shifted(starts: Sequence[Any], after: Any) -> Any:
    if isinstance(after, dict):
        return {key: _shifted([start[key] for start in starts], after[key]) for key in after}
    first = np.repeat(np.stack(starts)[:, None, None], after.shape[1], axis=1)
    before = np.concatenate([first, after[:, :, :-1]], axis=2)
    return before.reshape(-1, *before.shape[3:])


def _require(name: str, value: object, ok: bool | np.bool_, wanted: str) -> None:
    if not ok:
        raise ValueError(f"{name} must be {wanted}, got {value}")


def _require_callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r}")
