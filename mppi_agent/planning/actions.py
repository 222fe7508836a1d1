"""The border between normalised controls and the env's own action units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

__all__ = ["ActionScaling", "BoxScaling", "CategoryScaling", "shift_nominal"]

_CHOSEN = 0.5  # score of a chosen category; the default noise then changes a quarter of the choices


class ActionScaling(Protocol):
    """Say what the planner's controls mean as actions of one env."""

    @property
    def action_dims(self) -> int:
        """Return nu, the number of controls per step."""
        ...

    def to_env(self, controls: np.ndarray) -> np.ndarray:
        """Return the actions, env units, shape (..., *action), of controls of shape (..., nu)."""
        ...

    def to_normalised(self, actions: np.ndarray) -> np.ndarray:
        """Return controls in [-1, 1], shape (..., nu), that stand for `actions`."""
        ...

    def snap(self, controls: np.ndarray) -> np.ndarray:
        """Return the controls of the actions that noisy `controls` lead to, shape (..., nu)."""
        ...


@dataclass(frozen=True, eq=False)
class BoxScaling:
    """Scale normalised controls to a bounded Box and back, exactly for bounds of +-1.

    Attributes:
        low: Smallest action, env units, shape (*action).
        high: Largest action, env units, shape (*action).
    """

    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: If the shapes differ or the bounds are infinite or not in order.
        """
        low, high = np.array(self.low, dtype=np.float64), np.array(self.high, dtype=np.float64)
        if low.shape != high.shape:
            raise ValueError(f"low and high must have one shape, got {low.shape} and {high.shape}")
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError(
                f"action bounds must be finite, got low={low}, high={high}; "
                "give the env some with TransformAction(env, lambda action: action, "
                "Box(low, high)) of gymnasium.wrappers"
            )
        if not (low < high).all():
            raise ValueError(
                f"low must be < high in every dimension, got low={low}, high={high}; "
                "drop action dimensions that cannot move"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def action_dims(self) -> int:
        """Return nu, the number of normalised action dimensions."""
        return int(self.low.size)

    def to_env(self, controls: np.ndarray) -> np.ndarray:
        """Scale normalised controls to actions.

        Args:
            controls: In [-1, 1], shape (..., nu); values beyond are clipped.

        Returns:
            In env units and within the bounds, shape (..., *action).
        """
        actions = controls.reshape(*controls.shape[:-1], *self.low.shape)
        low, high, centre, half_range = self._bounds
        scaled = actions * half_range
        scaled += centre
        return np.clip(scaled, low, high, out=scaled)

    def to_normalised(self, actions: np.ndarray) -> np.ndarray:
        """Scale actions to normalised controls.

        Args:
            actions: In env units, shape (..., *action); values beyond the bounds are clipped.

        Returns:
            In [-1, 1], shape (..., nu).
        """
        _, _, centre, half_range = self._bounds
        scaled = (np.asarray(actions, dtype=np.float64) - centre) / half_range
        leading = scaled.shape[: scaled.ndim - self.low.ndim]
        return np.clip(scaled, -1.0, 1.0).reshape(*leading, self.action_dims)

    def snap(self, controls: np.ndarray) -> np.ndarray:
        """Clip controls to [-1, 1], shape (..., nu)."""
        return np.clip(controls, -1.0, 1.0)

    @cached_property
    def _bounds(self) -> list[Any]:
        """Return low, high, centre and half range, as numbers where all dimensions are alike.

        Arithmetic with a number is several times faster than with one number per dimension.
        """
        bounds = [self.low, self.high, 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)]
        is_uniform = all((bound == bound.flat[0]).all() for bound in bounds)
        return [float(bound.flat[0]) for bound in bounds] if is_uniform else bounds


@dataclass(frozen=True, eq=False)
class CategoryScaling:
    """Choose among categories by score: one control per category, the highest one wins.

    A chosen category scores 0.5 and the others 0, so that an average of samples holds how often
    each category was chosen. Noise on top of it draws the next samples: changed often where the
    average is undecided, seldom where it is not.

    Attributes:
        counts: Categories of each choice, >= 1, shape (*action); () for a single choice.
        start: The smallest action, shape (*action).
    """

    counts: np.ndarray
    start: np.ndarray

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: If the shapes differ or a choice has no category.
        """
        counts, start = np.array(self.counts, dtype=np.int64), np.array(self.start, dtype=np.int64)
        if counts.shape != start.shape:
            raise ValueError(
                f"counts and start must have one shape, got {counts.shape} and {start.shape}"
            )
        if not (counts.size and (counts >= 1).all()):
            raise ValueError(f"counts must be >= 1 in every choice, got {counts}")
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "start", start)

    @property
    def action_dims(self) -> int:
        """Return nu, the number of categories of all choices."""
        return int(self.counts.sum())

    def to_env(self, controls: np.ndarray) -> np.ndarray:
        """Choose the category of the highest score, the first of equal ones.

        Args:
            controls: Scores, shape (..., nu).

        Returns:
            Integers, shape (..., *action).
        """
        scores = np.split(controls, np.cumsum(self.counts.ravel())[:-1], axis=-1)
        chosen = np.stack([part.argmax(axis=-1) for part in scores], axis=-1)
        return chosen.reshape(*controls.shape[:-1], *self.counts.shape) + self.start

    def to_normalised(self, actions: np.ndarray) -> np.ndarray:
        """Score the chosen categories 0.5 and the others 0.

        Args:
            actions: Integers, shape (..., *action).

        Returns:
            Shape (..., nu).

        Raises:
            ValueError: If an action does not exist.
        """
        chosen = np.asarray(actions) - self.start
        if not ((chosen >= 0) & (chosen < self.counts)).all():
            raise ValueError(
                f"actions must lie in {self.start} to {self.start + self.counts - 1}, got "
                f"{np.min(actions)} to {np.max(actions)}; check the policy that took them"
            )
        leading = chosen.shape[: chosen.ndim - self.counts.ndim]
        chosen = chosen.reshape(*leading, self.counts.size)
        scores = [_CHOSEN * np.eye(n)[chosen[..., i]] for i, n in enumerate(self.counts.ravel())]
        return np.concatenate(scores, axis=-1)

    def snap(self, controls: np.ndarray) -> np.ndarray:
        """Score the chosen categories 0.5 and the others 0, shape (..., nu)."""
        return self.to_normalised(self.to_env(controls))


def shift_nominal(
    controls: np.ndarray, steps: int = 1, tail: np.ndarray | None = None
) -> np.ndarray:
    """Move plans on in time: drop the actions that were executed, extend the end.

    Args:
        controls: Shape (S, H, nu).
        steps: Control steps that were executed, in [0, H].
        tail: What to append, shape (S, steps, nu), for instance a policy's actions at the end of
            the plan; None repeats each plan's last action.

    Returns:
        A new array, shape (S, H, nu).

    Raises:
        ValueError: If `steps` is outside [0, H] or `tail` has another shape.
    """
    num_states, horizon, action_dims = controls.shape
    if not 0 <= steps <= horizon:
        raise ValueError(f"steps must be in [0, {horizon}], the horizon, got {steps}")
    if tail is None:
        tail = np.repeat(controls[:, -1:], steps, axis=1)
    if tail.shape != (num_states, steps, action_dims):
        wanted = (num_states, steps, action_dims)
        raise ValueError(f"tail must have shape (S, steps, nu) = {wanted}, got {tail.shape}")
    return np.concatenate([controls[:, steps:], tail], axis=1)
