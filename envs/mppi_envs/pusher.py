"""Push a puck into a circle; only a puck in the circle is paid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["PusherEnv", "PusherTask"]

GOAL_RADIUS = 0.12  # metres
RESTING_SPEED = 0.2  # metres per second
FINGER_RANGE = 0.5  # metres to each side
PUCK_RANGE = 0.3  # metres to each side
GOAL_DISTANCES = (0.3, 0.5)  # metres from the puck
GOAL_RANGE = 0.45  # metres to each side
CLEARANCE = 0.15  # metres between the centres of finger and puck at the start


@dataclass(frozen=True)
class PusherTask(Task):
    """Pay 1 for a puck that rests in the circle, which ends the episode; sparse."""

    after_fields = ("qpos", "qvel", "mocap_pos")

    def observations(self, after: Fields) -> np.ndarray:
        """Return places of finger and puck, velocities and the goal, shape (N, 10)."""
        return np.concatenate((after["qpos"], after["qvel"], after["mocap_pos"][:, 0, :2]), axis=1)

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return 1 for a puck that rests in the circle, else 0, shape (N,)."""
        return self.successes(after).astype(np.float64)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the puck rests in the circle, shape (N,)."""
        puck, velocity = after["qpos"][:, 2:], after["qvel"][:, 2:]
        distance = np.linalg.norm(after["mocap_pos"][:, 0, :2] - puck, axis=1)
        return (distance < GOAL_RADIUS) & (np.linalg.norm(velocity, axis=1) < RESTING_SPEED)

    def terminated(self, after: Fields) -> np.ndarray:
        """Return True where the puck rests in the circle, shape (N,)."""
        return self.successes(after)


class PusherEnv(TaskEnv):
    """Push a puck into a circle with a finger, seen from above.

    Action, shape (2,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0, 1 | force on the finger along x and y, as a share of 3 N | -1 to 1 | - |

    Observation, shape (10,):

    | number | meaning | unit |
    |---|---|---|
    | 0, 1 | place of the finger, x and y | m |
    | 2, 3 | place of the puck | m |
    | 4, 5 | velocity of the finger | m/s |
    | 6, 7 | velocity of the puck | m/s |
    | 8, 9 | place of the circle | m |

    Reward: sparse. 1 when the puck comes to rest in the circle, else 0.

    Success: the puck is within 0.12 m of the circle's middle and slower than 0.2 m/s. Start: all
    anywhere, at rest, the circle 0.3 to 0.5 m from the puck.
    End: at success, or after 200 steps of 0.05 s.
    """

    asset = "pusher.xml"
    substeps = 4
    metadata = render_metadata(20)
    camera = Camera(distance=1.9, elevation=-75.0)

    def _make_task(self) -> PusherTask:
        return PusherTask()

    def _place(self, rng: np.random.Generator) -> None:
        puck = rng.uniform(-PUCK_RANGE, PUCK_RANGE, size=2)
        self.data.qpos[2:] = puck
        self.data.qpos[:2] = _place_around(puck, (CLEARANCE, np.inf), FINGER_RANGE, rng)
        self.data.mocap_pos[0, :2] = _place_around(puck, GOAL_DISTANCES, GOAL_RANGE, rng)


def _place_around(
    centre: np.ndarray, distances: tuple[float, float], reach: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw a place in the square of half-width `reach`, at one of `distances` from `centre`."""
    while True:
        place = rng.uniform(-reach, reach, size=2)
        if distances[0] < np.linalg.norm(place - centre) < distances[1]:
            return place
