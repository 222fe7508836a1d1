"""Balancing tasks: InvertedPendulum and InvertedDoublePendulum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_agent.interfaces import BatchTask

__all__ = [
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "inverted_double_pendulum",
    "inverted_pendulum",
]

# Constants that Gymnasium writes into the body of `step`, not into attributes.
ANGLE_LIMIT = 0.2  # radians
TIP_HEIGHT_LIMIT = 1.0  # metres
TIP_HEIGHT_GOAL = 2.0  # metres
OBSERVATION_LIMIT = 10.0


@dataclass(frozen=True)
class InvertedPendulum:
    """Pay 1 for each step that the pole stands."""

    before_fields: tuple[str, ...] = ()
    after_fields: tuple[str, ...] = ("qpos", "qvel")

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return positions and velocities, shape (N, nq + nv)."""
        return np.concatenate((after["qpos"], after["qvel"]), axis=1)

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return 1 where the pole stands, shape (N,)."""
        return (~self.terminated(after)).astype(np.float64)

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return True where the pole fell, shape (N,)."""
        finite = np.isfinite(self.observations(after)).all(axis=1)
        return ~finite | (np.abs(after["qpos"][:, 1]) > ANGLE_LIMIT)


@dataclass(frozen=True)
class InvertedDoublePendulum:
    """Pay for a tip that stands high, centred and still.

    Attributes:
        healthy_reward: Paid for each step that does not terminate.
    """

    healthy_reward: float
    before_fields: tuple[str, ...] = ()
    after_fields: tuple[str, ...] = ("qpos", "qvel", "qfrc_constraint", "site_xpos")

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return cart position, angles, velocities and the cart's constraint force."""
        angles = after["qpos"][:, 1:]
        return np.concatenate(
            (
                after["qpos"][:, :1],
                np.sin(angles),
                np.cos(angles),
                np.clip(after["qvel"], -OBSERVATION_LIMIT, OBSERVATION_LIMIT),
                np.clip(after["qfrc_constraint"], -OBSERVATION_LIMIT, OBSERVATION_LIMIT)[:, :1],
            ),
            axis=1,
        )

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return the bonus less penalties on the tip's place and the poles' speeds, shape (N,)."""
        x, y = after["site_xpos"][:, 0, 0], after["site_xpos"][:, 0, 2]
        speed_1, speed_2 = after["qvel"][:, 1], after["qvel"][:, 2]
        distance_penalty = 0.01 * x**2 + (y - TIP_HEIGHT_GOAL) ** 2
        velocity_penalty = 1e-3 * speed_1**2 + 5e-3 * speed_2**2
        bonus = self.healthy_reward * ~self.terminated(after)
        return bonus - distance_penalty - velocity_penalty

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return True where the tip fell, shape (N,)."""
        return after["site_xpos"][:, 0, 2] <= TIP_HEIGHT_LIMIT


def inverted_pendulum(env: Any) -> BatchTask:
    """Build the task of InvertedPendulum-v5."""
    return InvertedPendulum()


def inverted_double_pendulum(env: Any) -> BatchTask:
    """Build the task of InvertedDoublePendulum-v5 from the env's own bonus."""
    return InvertedDoublePendulum(healthy_reward=env._healthy_reward)
