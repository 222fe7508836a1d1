"""Arm tasks: Reacher and Pusher. Distances come from body positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_agent.interfaces import BatchTask

__all__ = ["Pusher", "Reacher", "pusher", "reacher"]

NUM_PUSHER_JOINTS = 7


@dataclass(frozen=True, kw_only=True)
class Reacher:
    """Pay for a fingertip near the target.

    Attributes:
        fingertip: Body id.
        target: Body id.
        distance_weight: Cost per metre.
        control_weight: Cost of the squared action.
    """

    fingertip: int
    target: int
    distance_weight: float
    control_weight: float
    before_fields: tuple[str, ...] = ()
    after_fields: tuple[str, ...] = ("qpos", "qvel", "xpos")

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return joint angles, target, speeds and the vector to the target, shape (N, 10)."""
        angles = after["qpos"][:, :2]
        return np.concatenate(
            (
                np.cos(angles),
                np.sin(angles),
                after["qpos"][:, 2:],
                after["qvel"][:, :2],
                self._offset(after)[:, :2],
            ),
            axis=1,
        )

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return minus the distance and the control cost, shape (N,)."""
        distance = np.linalg.norm(self._offset(after), axis=1)
        control = np.square(actions).sum(axis=1)
        return -distance * self.distance_weight - control * self.control_weight

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return False: the episode ends by its time limit only, shape (N,)."""
        return np.zeros(len(after["qpos"]), dtype=bool)

    def _offset(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        return after["xpos"][:, self.fingertip] - after["xpos"][:, self.target]


@dataclass(frozen=True, kw_only=True)
class Pusher:
    """Pay for an object near the goal and a hand near the object.

    Attributes:
        hand: Body id.
        cylinder: Body id of the object.
        goal: Body id.
        near_weight: Cost per metre between hand and object.
        distance_weight: Cost per metre between object and goal.
        control_weight: Cost of the squared action.
    """

    hand: int
    cylinder: int
    goal: int
    near_weight: float
    distance_weight: float
    control_weight: float
    before_fields: tuple[str, ...] = ()
    after_fields: tuple[str, ...] = ("qpos", "qvel", "xpos")

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the arm's joints and the three bodies' places, shape (N, 23)."""
        xpos = after["xpos"]
        return np.concatenate(
            (
                after["qpos"][:, :NUM_PUSHER_JOINTS],
                after["qvel"][:, :NUM_PUSHER_JOINTS],
                xpos[:, self.hand],
                xpos[:, self.cylinder],
                xpos[:, self.goal],
            ),
            axis=1,
        )

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return minus both distances and the control cost, shape (N,)."""
        xpos = after["xpos"]
        near = np.linalg.norm(xpos[:, self.cylinder] - xpos[:, self.hand], axis=1)
        distance = np.linalg.norm(xpos[:, self.cylinder] - xpos[:, self.goal], axis=1)
        control = np.square(actions).sum(axis=1)
        return (
            -distance * self.distance_weight
            - control * self.control_weight
            - near * self.near_weight
        )

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return False: the episode ends by its time limit only, shape (N,)."""
        return np.zeros(len(after["qpos"]), dtype=bool)


def reacher(env: Any) -> BatchTask:
    """Build the task of Reacher-v5 from the env's own weights."""
    return Reacher(
        fingertip=env.model.body("fingertip").id,
        target=env.model.body("target").id,
        distance_weight=env._reward_dist_weight,
        control_weight=env._reward_control_weight,
    )


def pusher(env: Any) -> BatchTask:
    """Build the task of Pusher-v5 from the env's own weights."""
    return Pusher(
        hand=env.model.body("tips_arm").id,
        cylinder=env.model.body("object").id,
        goal=env.model.body("goal").id,
        near_weight=env._reward_near_weight,
        distance_weight=env._reward_dist_weight,
        control_weight=env._reward_control_weight,
    )
