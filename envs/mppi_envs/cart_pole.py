"""Swing a pole up with a cart, and balance it; nothing is paid before it stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["CartPoleSwingUpEnv", "CartPoleTask"]

UPRIGHT_COSINE = 0.9  # of the pole's angle to the vertical; 26 degrees
STANDING_SPEED = 2.0  # radians per second
CENTRE_RANGE = 1.0  # metres to each side
START_ANGLE_RANGE = 0.5  # radians around hanging down
START_POSITION_RANGE = 0.5  # metres around the centre
START_SPEED_STD = 0.05  # metres and radians per second


@dataclass(frozen=True)
class CartPoleTask(Task):
    """Pay for a pole that stands, slow and near the centre; sparse, and smooth where it pays."""

    def observations(self, after: Fields) -> np.ndarray:
        """Return cart position, cosine and sine of the angle, both velocities, shape (N, 5)."""
        position, angle = after["qpos"].T
        return np.column_stack((position, np.cos(angle), np.sin(angle), after["qvel"]))

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return 0 unless the pole stands, and up to 1 the straighter it is, shape (N,)."""
        straight = (np.cos(after["qpos"][:, 1]) - UPRIGHT_COSINE) / (1 - UPRIGHT_COSINE)
        return np.where(self.successes(after), straight, 0.0)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the pole stands, shape (N,)."""
        position, angle = after["qpos"].T
        return (
            (np.cos(angle) > UPRIGHT_COSINE)
            & (np.abs(after["qvel"][:, 1]) < STANDING_SPEED)
            & (np.abs(position) < CENTRE_RANGE)
        )


class CartPoleSwingUpEnv(TaskEnv):
    """Swing up and balance the pole of a cart on a rail of limited length.

    Action, shape (1,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0 | force on the cart, as a share of 10 N | -1 to 1 | - |

    Observation, shape (5,):

    | number | meaning | unit |
    |---|---|---|
    | 0 | position of the cart | m |
    | 1, 2 | cosine and sine of the pole's angle; upright is 0 | - |
    | 3 | velocity of the cart | m/s |
    | 4 | angular velocity of the pole | rad/s |

    Reward: sparse. 0 unless the pole is within 26 degrees of upright, turns slower than 2 rad/s and
    the cart is within 1 m of the centre; there it grows with the cosine of the angle from 0 to 1.

    Success: all three hold. Start: the pole hangs, within 0.5 rad, at rest but for small speeds;
    the cart is within 0.5 m of the centre. End: after 200 steps of 0.04 s.
    """

    asset = "cart_pole.xml"
    substeps = 4
    metadata = render_metadata(25)
    camera = Camera(distance=5.0, elevation=-8.0)

    def _make_task(self) -> CartPoleTask:
        return CartPoleTask()

    def _place(self, rng: np.random.Generator) -> None:
        self.data.qpos[0] = rng.uniform(-START_POSITION_RANGE, START_POSITION_RANGE)
        self.data.qpos[1] = np.pi + rng.uniform(-START_ANGLE_RANGE, START_ANGLE_RANGE)
        self.data.qvel[:] = START_SPEED_STD * rng.standard_normal(2)
