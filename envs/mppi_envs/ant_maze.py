"""Walk a quadruped around the end of a wall; paid for progress along the way around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["AntMazeEnv", "AntMazeTask"]

WALL_END = (0.5, 0.0)  # metres; the wall reaches from the left side to here
GOAL_RADIUS = 0.4  # metres
GOAL_BONUS = 10.0
START_AREA = ((-1.4, -1.3), (0.0, -0.9))  # metres, x and y; below the wall
GOAL_AREA = ((-1.4, 0.9), (0.0, 1.3))  # metres, x and y; above the wall
START_HEIGHT = 0.3  # metres
START_KNEE = 1.0  # radians
START_JOINT_RANGE = 0.1  # radians
START_SPEED_STD = 0.05
NUM_ROOT_POSITIONS = 7


@dataclass(frozen=True, kw_only=True)
class AntMazeTask(Task):
    """Pay for the way made towards the goal around the wall; smooth, and a bonus at the goal.

    Attributes:
        dt_s: Seconds per control step.
    """

    dt_s: float
    before_fields = ("qpos",)
    after_fields = ("qpos", "qvel", "mocap_pos")

    def observations(self, after: Fields) -> np.ndarray:
        """Return positions, velocities and the way to the goal, shape (N, 31)."""
        to_goal = after["mocap_pos"][:, 0, :2] - after["qpos"][:, :2]
        return np.concatenate((after["qpos"], after["qvel"], to_goal), axis=1)

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return metres per second along the shortest way, and the bonus, shape (N,)."""
        goal = after["mocap_pos"][:, 0, :2]
        gained = distance_to_go(before["qpos"], goal) - distance_to_go(after["qpos"], goal)
        return gained / self.dt_s + GOAL_BONUS * self.successes(after)

    def successes(self, after: Fields) -> np.ndarray:
        """Return True at the goal, shape (N,)."""
        return distance_to_go(after["qpos"], after["mocap_pos"][:, 0, :2]) < GOAL_RADIUS

    def terminated(self, after: Fields) -> np.ndarray:
        """Return True at the goal, shape (N,)."""
        return self.successes(after)


class AntMazeEnv(TaskEnv):
    """Walk a quadruped around the end of a wall to a goal.

    Action, shape (8,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0, 1 | torque at hip and knee of the front left leg, as a share of 8 N m | -1 to 1 | - |
    | 2, 3 | the same, back left | -1 to 1 | - |
    | 4, 5 | the same, back right | -1 to 1 | - |
    | 6, 7 | the same, front right | -1 to 1 | - |

    Observation, shape (31,):

    | number | meaning | unit |
    |---|---|---|
    | 0 to 2 | place of the torso | m |
    | 3 to 6 | its orientation, a quaternion | - |
    | 7 to 14 | joint angles, hip and knee of each leg in the order of the actions | rad |
    | 15 to 17 | velocity of the torso | m/s |
    | 18 to 20 | its angular velocity in its own frame | rad/s |
    | 21 to 28 | joint velocities | rad/s |
    | 29, 30 | way from the torso to the goal as the crow flies, x and y | m |

    Reward: smooth. Speed along the shortest way to the goal, around the wall, in m/s, and 10 at the
    goal.

    Success: the torso is within 0.4 m of the goal. Start: below the wall, facing anywhere; the goal
    is anywhere in an area above it. End: at the goal, or after 300 steps of 0.05 s.
    """

    asset = "ant_maze.xml"
    substeps = 5
    metadata = render_metadata(20)
    camera = Camera(distance=6.4, elevation=-60.0)

    def _make_task(self) -> AntMazeTask:
        return AntMazeTask(dt_s=self.dt)

    def _place(self, rng: np.random.Generator) -> None:
        turn = rng.uniform(-np.pi, np.pi)
        self.data.qpos[:2] = rng.uniform(*START_AREA)
        self.data.qpos[2] = START_HEIGHT
        self.data.qpos[3:NUM_ROOT_POSITIONS] = np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2)
        joints = self.data.qpos[NUM_ROOT_POSITIONS:]
        joints[1::2] = START_KNEE
        joints += rng.uniform(-START_JOINT_RANGE, START_JOINT_RANGE, size=joints.size)
        self.data.qvel[:] = START_SPEED_STD * rng.standard_normal(self.model.nv)
        self.data.mocap_pos[0, :2] = rng.uniform(*GOAL_AREA)


def distance_to_go(position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return the length of the shortest way to the goal that does not cross the wall.

    Args:
        position: x and y, and maybe more, metres, shape (N, >= 2).
        goal: Above the wall, metres, shape (N, 2).

    Returns:
        Metres, shape (N,).
    """
    place = position[:, :2]
    direct = np.linalg.norm(goal - place, axis=1)
    around = np.linalg.norm(place - WALL_END, axis=1) + np.linalg.norm(goal - WALL_END, axis=1)
    share = -place[:, 1] / np.where(goal[:, 1] != place[:, 1], goal[:, 1] - place[:, 1], 1.0)
    crossing_x = place[:, 0] + share * (goal[:, 0] - place[:, 0])
    is_blocked = (place[:, 1] < WALL_END[1]) & (crossing_x < WALL_END[0])
    return np.where(is_blocked, around, direct)
