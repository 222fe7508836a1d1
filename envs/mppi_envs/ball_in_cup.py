"""Swing a ball on a string up and catch it in the cup; nothing is paid before it is in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["BallInCupEnv", "BallInCupTask"]

CUP_HEIGHT = 0.5  # metres; where both joints of the cup are 0
BALL_HEIGHT = 0.2  # metres; where both joints of the ball are 0
INSIDE_HALF_WIDTH = 0.03  # metres from the cup's middle to either side
INSIDE_HEIGHTS = (0.02, 0.07)  # metres of the ball's centre above the cup's bottom
STRING_LENGTH = 0.3  # metres
ANCHOR_DEPTH = 0.01  # metres below the cup's bottom
START_CUP_RANGE = (0.2, 0.1)  # metres to each side, x and z
START_ANGLE_RANGE = 0.5  # radians of the string to the vertical


@dataclass(frozen=True)
class BallInCupTask(Task):
    """Pay 1 for each step with the ball in the cup; sparse."""

    def observations(self, after: Fields) -> np.ndarray:
        """Return the cup's place, the way from it to the ball and all velocities, shape (N, 8)."""
        cup = after["qpos"][:, :2]
        return np.concatenate((cup, _cup_to_ball(after), after["qvel"]), axis=1)

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return 1 where the ball is in the cup, else 0, shape (N,)."""
        return self.successes(after).astype(np.float64)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the ball is in the cup, shape (N,)."""
        x, z = _cup_to_ball(after).T
        low, high = INSIDE_HEIGHTS
        return (np.abs(x) < INSIDE_HALF_WIDTH) & (low < z) & (z < high)


class BallInCupEnv(TaskEnv):
    """Catch a ball on a string with a cup that moves in a vertical plane.

    Action, shape (2,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0, 1 | force on the cup along x and z, as a share of 6 N | -1 to 1 | - |

    Observation, shape (8,):

    | number | meaning | unit |
    |---|---|---|
    | 0, 1 | place of the cup, x and z | m |
    | 2, 3 | way from the cup's bottom to the ball, x and z | m |
    | 4, 5 | velocity of the cup, x and z | m/s |
    | 6, 7 | velocity of the ball, x and z | m/s |

    Reward: sparse. 1 for each step with the ball in the cup, else 0.

    Success: the ball is in the cup. Start: the cup is within 0.2 m (x) and 0.1 m (z) of its middle
    place, the ball hangs on the taut string within 0.5 rad of the vertical, all at rest.
    End: after 200 steps of 0.02 s.
    """

    asset = "ball_in_cup.xml"
    substeps = 4
    metadata = render_metadata(50)
    camera = Camera(distance=1.5, elevation=-8.0, lookat=(0.0, 0.0, 0.4))

    def _make_task(self) -> BallInCupTask:
        return BallInCupTask()

    def _place(self, rng: np.random.Generator) -> None:
        cup = rng.uniform(-1, 1, size=2) * START_CUP_RANGE
        angle = rng.uniform(-START_ANGLE_RANGE, START_ANGLE_RANGE)
        anchor = cup + np.array((0.0, CUP_HEIGHT - ANCHOR_DEPTH))
        ball = anchor + STRING_LENGTH * np.array((np.sin(angle), -np.cos(angle)))
        self.data.qpos[:] = (*cup, ball[0], ball[1] - BALL_HEIGHT)


def _cup_to_ball(after: Fields) -> np.ndarray:
    """Return the way from the cup's bottom to the ball's centre, x and z, shape (N, 2)."""
    cup, ball = after["qpos"][:, :2], after["qpos"][:, 2:]
    return ball - cup + (0.0, BALL_HEIGHT - CUP_HEIGHT)
