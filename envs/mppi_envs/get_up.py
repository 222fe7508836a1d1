"""Get up from the ground: a planar body with two legs that starts lying."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["GetUpEnv", "GetUpTask"]

STANDING_HEIGHT = 0.86  # metres of the torso's middle above the ground
HEIGHT_TOLERANCE = 0.16  # metres
UPRIGHT_COSINE = 0.9  # of the torso's pitch
LYING_HEIGHT = 0.1  # metres, on the back or the belly
CONTROL_WEIGHT = 0.005
START_JOINT_STD = 0.1  # radians
START_SPEED_STD = 0.05


@dataclass(frozen=True)
class GetUpTask(Task):
    """Pay for a high and upright torso; smooth, and nearly flat while it lies."""

    def observations(self, after: Fields) -> np.ndarray:
        """Return height, pitch, joint angles and velocities, shape (N, 18)."""
        height, pitch, joints = np.split(after["qpos"][:, 1:], (1, 2), axis=1)
        return np.concatenate((height, np.cos(pitch), np.sin(pitch), joints, after["qvel"]), axis=1)

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return the share of the standing height times uprightness, less control, shape (N,)."""
        height, pitch = after["qpos"][:, 1], after["qpos"][:, 2]
        raised = np.clip((height - LYING_HEIGHT) / (STANDING_HEIGHT - LYING_HEIGHT), 0.0, 1.0)
        upright = (1 + np.cos(pitch)) / 2
        return raised * upright - CONTROL_WEIGHT * np.square(actions, dtype=np.float64).sum(axis=1)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the torso stands high and upright, shape (N,)."""
        height, pitch = after["qpos"][:, 1], after["qpos"][:, 2]
        return (height > STANDING_HEIGHT - HEIGHT_TOLERANCE) & (np.cos(pitch) > UPRIGHT_COSINE)


class GetUpEnv(TaskEnv):
    """Get a planar body with two legs up from its back or belly, and stand.

    Action, shape (6,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0, 3 | torque at the left and right hip, as a share of 50 N m | -1 to 1 | - |
    | 1, 4 | torque at the left and right knee, as a share of 50 N m | -1 to 1 | - |
    | 2, 5 | torque at the left and right ankle, as a share of 20 N m | -1 to 1 | - |

    Observation, shape (18,):

    | number | meaning | unit |
    |---|---|---|
    | 0 | height of the torso's middle | m |
    | 1, 2 | cosine and sine of its pitch; upright is 0 | - |
    | 3 to 8 | angles of left hip, knee, ankle, right hip, knee, ankle | rad |
    | 9, 10 | velocity of the torso, x and z | m/s |
    | 11 to 17 | angular velocities of the torso and of the six joints | rad/s |

    Reward: smooth. The torso's height as a share from 0 (lying) to 1 (standing), times
    (1 + cos pitch) / 2, less 0.005 times the squared action.

    Success: the torso's middle is higher than 0.7 m and its pitch within 26 degrees. Start: lying
    on a random side, nearly straight and at rest. End: after 100 steps of 0.04 s.
    """

    asset = "get_up.xml"
    substeps = 4
    metadata = render_metadata(25)
    camera = Camera(distance=3.0, elevation=-20.0, lookat=(0.0, 0.0, 0.5))

    def _make_task(self) -> GetUpTask:
        return GetUpTask()

    def _place(self, rng: np.random.Generator) -> None:
        side = rng.choice((-1.0, 1.0))
        self.data.qpos[1:3] = LYING_HEIGHT, side * np.pi / 2
        low, high = self.model.jnt_range[3:].T
        joints = START_JOINT_STD * rng.standard_normal(low.size)
        self.data.qpos[3:] = np.clip(joints, low, high)
        self.data.qvel[:] = START_SPEED_STD * rng.standard_normal(self.model.nv)
