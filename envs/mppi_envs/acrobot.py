"""Swing up a double pendulum with a motor at the elbow only, and balance it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Fields, Task, TaskEnv, render_metadata

__all__ = ["AcrobotSwingUpEnv", "AcrobotTask"]

LINK_LENGTH = 0.5  # metres, each of the two
TOP = 2 * LINK_LENGTH  # metres of the tip above the shoulder, at most
STANDING_SPEED = 2.0  # radians per second, of each joint
TIP_TOLERANCE = 0.1  # metres below the highest point
START_ANGLE_RANGE = 0.3  # radians, of each joint
START_SPEED_STD = 0.05  # radians per second


@dataclass(frozen=True)
class AcrobotTask(Task):
    """Pay for a tip above the shoulder, and more for standing; nothing below."""

    def observations(self, after: Fields) -> np.ndarray:
        """Return cosines and sines of both joint angles and their speeds, shape (N, 6)."""
        angles = after["qpos"]
        return np.concatenate((np.cos(angles), np.sin(angles), after["qvel"]), axis=1)

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return the tip's share of the highest place, and 1 for standing, shape (N,)."""
        return np.maximum(_tip_height(after) / TOP, 0.0) + self.successes(after)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the tip is near its highest place and slow, shape (N,)."""
        is_slow = np.abs(after["qvel"]).max(axis=1) < STANDING_SPEED
        return is_slow & (_tip_height(after) > TOP - TIP_TOLERANCE)


class AcrobotSwingUpEnv(TaskEnv):
    """Swing up and balance a double pendulum whose shoulder is free.

    Action, shape (1,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0 | torque at the elbow, as a share of @TORQUE@ N m | -1 to 1 | - |

    Observation, shape (6,):

    | number | meaning | unit |
    |---|---|---|
    | 0, 1 | cosine of the shoulder angle (upright: 0) and of the elbow angle (straight: 0) | - |
    | 2, 3 | their sines | - |
    | 4, 5 | angular velocities of shoulder and elbow | rad/s |

    Reward: 0 while the tip is below the shoulder; above, its height as a share of the highest, 1 m,
    and 1 more where it is within 0.1 m of that and no joint turns faster than 2 rad/s.

    Success: that last condition. Start: both links hang, each joint within 0.3 rad, nearly at rest.
    End: after 300 steps of 0.02 s.
    """

    asset = "acrobot.xml"
    substeps = 4
    metadata = render_metadata(50)
    camera = {"distance": 3.2, "azimuth": 90.0, "elevation": -5.0, "lookat": (0.0, 0.0, 0.0)}  # noqa: RUF012

    def _make_task(self) -> AcrobotTask:
        return AcrobotTask()

    def _place(self, rng: np.random.Generator) -> None:
        self.data.qpos[0] = np.pi
        self.data.qpos[:] += rng.uniform(-START_ANGLE_RANGE, START_ANGLE_RANGE, size=2)
        self.data.qvel[:] = START_SPEED_STD * rng.standard_normal(2)


def _tip_height(after: Fields) -> np.ndarray:
    shoulder, elbow = after["qpos"].T
    return LINK_LENGTH * (np.cos(shoulder) + np.cos(shoulder + elbow))
