"""The tasks of the multi-task arm: what each wants, how it is paid, where its target comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from mppi_envs.base import Fields

__all__ = ["AT_PLACE", "AT_SPEED", "GOALS", "TASKS", "ArmTask", "DrawTarget", "Rule", "tip_place"]

LINK_LENGTH = 0.3  # metres, each of the two
GOALS = ((0.45, 0.2), (-0.45, 0.2), (0.3, -0.4), (0.0, 0.55))  # metres, x and z
PLACE_TOLERANCE = 0.05  # metres
SPEED_TOLERANCE = 0.3  # radians per second
TRACK_SPEEDS = (1.0, 3.0)  # radians per second, either way round


@dataclass(frozen=True)
class Rule:
    """Say how far a state is from what one kind of task wants.

    Attributes:
        error: Maps fields and targets, shape (N, 2), to errors >= 0, shape (N,).
        tolerance: Errors below are a success; in the unit of the errors.
    """

    error: Callable[[Fields, np.ndarray], np.ndarray]
    tolerance: float

    def rewards(self, after: Fields, targets: np.ndarray) -> np.ndarray:
        """Return 1 without error, 1/2 at the tolerance and a long smooth tail, shape (N,)."""
        return 1.0 / (1.0 + np.square(self.error(after, targets) / self.tolerance))

    def successes(self, after: Fields, targets: np.ndarray) -> np.ndarray:
        """Return True where the error is within the tolerance, shape (N,)."""
        return self.error(after, targets) < self.tolerance


def tip_place(after: Fields) -> np.ndarray:
    """Return x and z of the tip, metres, shape (N, 2)."""
    shoulder, elbow = after["qpos"].T
    forearm = shoulder + elbow
    return LINK_LENGTH * np.column_stack(
        (np.cos(shoulder) + np.cos(forearm), np.sin(shoulder) + np.sin(forearm))
    )


def tip_error(after: Fields, targets: np.ndarray) -> np.ndarray:
    """Return the distance from the tip to the target place, metres, shape (N,)."""
    return np.linalg.norm(tip_place(after) - targets, axis=1)


def speed_error(after: Fields, targets: np.ndarray) -> np.ndarray:
    """Return how far the shoulder's speed is from the first number of the target, shape (N,)."""
    return np.abs(after["qvel"][:, 0] - targets[:, 0])


AT_PLACE = Rule(tip_error, PLACE_TOLERANCE)
AT_SPEED = Rule(speed_error, SPEED_TOLERANCE)


DrawTarget = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""Map a generator and the tip's start place, shape (2,), to a target, shape (2,)."""


@dataclass(frozen=True)
class ArmTask:
    """Hold one task that the arm can be given.

    Attributes:
        rule: Pays for it.
        draw_target: Draws its target.
    """

    rule: Rule
    draw_target: DrawTarget


def always(place: tuple[float, float]) -> DrawTarget:
    """Return a draw that has one outcome."""
    return lambda rng, start: np.array(place)


def where_it_starts(rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
    """Return the start place."""
    return start


def draw_speed(rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
    """Draw a speed to track, radians per second; the second number is not used."""
    return np.array((rng.choice((-1.0, 1.0)) * rng.uniform(*TRACK_SPEEDS), 0.0))


TASKS: Mapping[str, ArmTask] = MappingProxyType(
    {
        **{f"reach_{k}": ArmTask(AT_PLACE, always(goal)) for k, goal in enumerate(GOALS)},
        "hold": ArmTask(AT_PLACE, where_it_starts),
        "track": ArmTask(AT_SPEED, draw_speed),
    }
)
