"""Swing up a double pendulum with a motor at the shoulder only, and balance it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["DoublePendulumSwingUpEnv", "DoublePendulumTask"]

LINK_LENGTH = 0.5  # metres, each of the two
TOP = 2 * LINK_LENGTH  # metres of the tip above the shoulder, at most
STANDING_SPEED = 2.0  # radians per second, of each joint
TIP_TOLERANCE = 0.3  # metres from the highest place
START_ANGLE_RANGE = 0.3  # radians, of each joint
START_SPEED_STD = 0.05  # radians per second


@dataclass(frozen=True)
class DoublePendulumTask(Task):
    """Pay for a tip above the shoulder, and more for standing; nothing below."""

    def observations(self, after: Fields) -> np.ndarray:
        """Return cosines and sines of both joint angles and their speeds, shape (N, 6)."""
        angles = after["qpos"]
        return np.concatenate((np.cos(angles), np.sin(angles), after["qvel"]), axis=1)

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return the tip's share of the highest place, and up to 1 for standing, shape (N,)."""
        height = np.maximum(_tip(after)[:, 1] / TOP, 0.0)
        central = 1.0 - _distance_to_top(after) / TIP_TOLERANCE
        return height + np.where(self.successes(after), central, 0.0)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the tip is near its highest place and slow, shape (N,)."""
        is_slow = np.abs(after["qvel"]).max(axis=1) < STANDING_SPEED
        return is_slow & (_distance_to_top(after) < TIP_TOLERANCE)


class DoublePendulumSwingUpEnv(TaskEnv):
    """Swing up and balance a double pendulum whose elbow is free.

    The motor is too weak to lift the straight arm.

    Action, shape (1,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0 | torque at the shoulder, as a share of 4 N m | -1 to 1 | - |

    Observation, shape (6,):

    | number | meaning | unit |
    |---|---|---|
    | 0, 1 | cosine of the shoulder angle (upright: 0) and of the elbow angle (straight: 0) | - |
    | 2, 3 | their sines | - |
    | 4, 5 | angular velocities of shoulder and elbow | rad/s |

    Reward: 0 while the tip is below the shoulder; above, its height as a share of the highest, 1 m,
    and up to 1 more, the closer the better, where it is within 0.3 m of the highest place and no
    joint turns faster than 2 rad/s.

    Success: that last condition. Start: both links hang, each joint within 0.3 rad, nearly at rest.
    End: after 300 steps of 0.02 s.
    """

    asset = "double_pendulum.xml"
    substeps = 2
    metadata = render_metadata(50)
    camera = Camera(distance=3.2, elevation=-5.0)

    def _make_task(self) -> DoublePendulumTask:
        return DoublePendulumTask()

    def _place(self, rng: np.random.Generator) -> None:
        self.data.qpos[0] = np.pi
        self.data.qpos[:] += rng.uniform(-START_ANGLE_RANGE, START_ANGLE_RANGE, size=2)
        self.data.qvel[:] = START_SPEED_STD * rng.standard_normal(2)


def _tip(after: Fields) -> np.ndarray:
    """Return x and z of the tip from the shoulder, shape (N, 2)."""
    shoulder, elbow = after["qpos"].T
    forearm = shoulder + elbow
    return LINK_LENGTH * np.column_stack(
        (np.sin(shoulder) + np.sin(forearm), np.cos(shoulder) + np.cos(forearm))
    )


def _distance_to_top(after: Fields) -> np.ndarray:
    return np.linalg.norm(_tip(after) - (0.0, TOP), axis=1)
