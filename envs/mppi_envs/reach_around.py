"""Reach a goal behind a wall with a planar arm; the straight way ends at the wall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["ReachAroundEnv", "ReachAroundTask"]

UPPER_LENGTH = 0.25  # metres
LOWER_LENGTH = 0.35  # metres
GOAL_TOLERANCE = 0.05  # metres
GOAL_DISTANCES = (0.48, 0.56)  # metres from the shoulder
GOAL_ANGLES = (0.25, 0.45)  # radians from the wall
START_SHOULDER = (0.3, 0.9)  # radians from the wall, on the other side
START_ELBOW_RANGE = 0.4  # radians around straight


@dataclass(frozen=True)
class ReachAroundTask(Task):
    """Pay for a tip near the goal; smooth, with a local optimum at the wall."""

    after_fields = ("qpos", "qvel", "mocap_pos")

    def observations(self, after: Fields) -> np.ndarray:
        """Return angles, speeds, goal and the way from the tip to it, shape (N, 10)."""
        angles, goal = after["qpos"], after["mocap_pos"][:, 0, :2]
        return np.concatenate(
            (np.cos(angles), np.sin(angles), after["qvel"], goal, goal - _tip(after)), axis=1
        )

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return 1 at the goal, less the distance from tip to goal in metres, shape (N,)."""
        return self.successes(after) - _distance(after)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the tip is at the goal, shape (N,)."""
        return _distance(after) < GOAL_TOLERANCE


class ReachAroundEnv(TaskEnv):
    """Reach a goal on the other side of a wall with a planar arm of two links.

    Action, shape (2,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0 | torque at the shoulder, as a share of 2 N m | -1 to 1 | - |
    | 1 | torque at the elbow, as a share of 1.5 N m | -1 to 1 | - |

    Observation, shape (10,):

    | number | meaning | unit |
    |---|---|---|
    | 0, 1 | cosines of the angles of shoulder (along the wall: 0) and elbow (straight: 0) | - |
    | 2, 3 | their sines | - |
    | 4, 5 | angular velocities of shoulder and elbow | rad/s |
    | 6, 7 | place of the goal, x and y | m |
    | 8, 9 | way from the tip to the goal, x and y | m |

    Reward: smooth but for a bonus. Minus the distance from tip to goal in metres, and 1 more within
    0.05 m of it. The wall is between: whoever only comes closer ends there, and has to draw the arm
    in, away from the goal, to get around.

    Success: the tip is within 0.05 m of the goal. Start: the arm is nearly straight, at rest, 0.3
    to 0.9 rad from the wall on a random side; the goal is 0.25 to 0.45 rad from it on the other
    side. End: after 75 steps of 0.04 s.
    """

    asset = "reach_around.xml"
    substeps = 4
    metadata = render_metadata(25)
    camera = Camera(distance=1.7, elevation=-70.0, lookat=(0.25, 0.0, 0.0))

    def _make_task(self) -> ReachAroundTask:
        return ReachAroundTask()

    def _place(self, rng: np.random.Generator) -> None:
        side = rng.choice((-1.0, 1.0))
        elbow = rng.uniform(-START_ELBOW_RANGE, START_ELBOW_RANGE)
        self.data.qpos[:] = -side * rng.uniform(*START_SHOULDER) - elbow / 2, elbow
        distance, angle = rng.uniform(*GOAL_DISTANCES), side * rng.uniform(*GOAL_ANGLES)
        self.data.mocap_pos[0, :2] = distance * np.cos(angle), distance * np.sin(angle)


def _tip(after: Fields) -> np.ndarray:
    """Return the tip's place, x and y, shape (N, 2)."""
    shoulder, elbow = after["qpos"].T
    forearm = shoulder + elbow
    return np.column_stack(
        (
            UPPER_LENGTH * np.cos(shoulder) + LOWER_LENGTH * np.cos(forearm),
            UPPER_LENGTH * np.sin(shoulder) + LOWER_LENGTH * np.sin(forearm),
        )
    )


def _distance(after: Fields) -> np.ndarray:
    return np.linalg.norm(after["mocap_pos"][:, 0, :2] - _tip(after), axis=1)
