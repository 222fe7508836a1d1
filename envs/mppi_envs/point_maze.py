"""Drive a point through a winding maze; only reaching the goal is paid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["PointMazeEnv", "PointMazeTask"]

GOAL_RADIUS = 0.15  # metres
START_AREA = ((-1.25, -1.5), (1.25, -1.2))  # metres; the lowest of five corridors
GOAL_AREA = ((-1.2, 1.25), (1.2, 1.45))  # metres; the highest one


@dataclass(frozen=True)
class PointMazeTask(Task):
    """Pay 1 at the goal, which ends the episode; sparse."""

    after_fields = ("qpos", "qvel", "mocap_pos")

    def observations(self, after: Fields) -> np.ndarray:
        """Return position, velocity and goal, shape (N, 6)."""
        return np.concatenate((after["qpos"], after["qvel"], after["mocap_pos"][:, 0, :2]), axis=1)

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return 1 at the goal, else 0, shape (N,)."""
        return self.successes(after).astype(np.float64)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True at the goal, shape (N,)."""
        return np.linalg.norm(after["mocap_pos"][:, 0, :2] - after["qpos"], axis=1) < GOAL_RADIUS

    def terminated(self, after: Fields) -> np.ndarray:
        """Return True at the goal, shape (N,)."""
        return self.successes(after)


class PointMazeEnv(TaskEnv):
    """Drive a point mass through five corridors, seen from above.

    Action, shape (2,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0, 1 | force along x and y, as a share of 4 N | -1 to 1 | - |

    Observation, shape (6,):

    | number | meaning | unit |
    |---|---|---|
    | 0, 1 | place of the point, x and y | m |
    | 2, 3 | its velocity | m/s |
    | 4, 5 | place of the goal | m |

    Reward: sparse. 1 on reaching the goal, else 0.

    Success: the point is within 0.15 m of the goal. Start: at rest, anywhere in the lowest
    corridor; the goal is anywhere in the highest one. End: at the goal, or after 200 steps of
    0.05 s.
    """

    asset = "point_maze.xml"
    substeps = 2
    metadata = render_metadata(20)
    camera = Camera(distance=4.9, elevation=-75.0)

    def _make_task(self) -> PointMazeTask:
        return PointMazeTask()

    def _place(self, rng: np.random.Generator) -> None:
        self.data.qpos[:] = rng.uniform(*START_AREA)
        self.data.mocap_pos[0, :2] = rng.uniform(*GOAL_AREA)
