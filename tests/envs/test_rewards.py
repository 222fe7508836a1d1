"""Rewards and successes of each env, at places where the right answer is known."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from mppi_envs.ant_maze import WALL_END, AntMazeEnv, distance_to_go
from mppi_envs.ball_in_cup import BallInCupEnv
from mppi_envs.base import TaskEnv
from mppi_envs.cart_pole import CartPoleSwingUpEnv
from mppi_envs.double_pendulum import DoublePendulumSwingUpEnv
from mppi_envs.get_up import GetUpEnv
from mppi_envs.point_maze import PointMazeEnv
from mppi_envs.pusher import PusherEnv
from mppi_envs.reach_around import ReachAroundEnv


def judged(env: TaskEnv, qpos, qvel=0.0, goal=None) -> tuple[float, bool, bool]:
    """Return reward, success and end where the env is put, with no action."""
    env.reset(seed=0)
    env.data.qpos[:] = qpos
    env.data.qvel[:] = qvel
    if goal is not None:
        env.data.mocap_pos[0, :2] = goal
    mujoco.mj_forward(env.model, env.data)
    task = env.batch_task()
    before = {name: getattr(env.data, name)[None] for name in task.before_fields}
    after = {name: getattr(env.data, name)[None] for name in task.after_fields}
    idle = np.zeros((1, env.model.nu), dtype=np.float32)
    return (
        float(task.rewards(before, after, idle)[0]),
        bool(task.successes(after)[0]),
        bool(task.terminated(after)[0]),
    )


@pytest.mark.parametrize(
    ("qpos", "qvel", "reward"),
    [
        ((0.0, 0.0), 0.0, 1.0),
        ((0.0, 2 * np.pi), 0.0, 1.0),
        ((0.9, np.arccos(0.95)), 0.0, 0.5),
        ((0.0, np.pi), 0.0, 0.0),
        ((1.1, 0.0), 0.0, 0.0),
        ((0.0, 0.0), (0.0, 2.1), 0.0),
    ],
)
def test_a_pole_is_paid_where_it_stands_slow_and_central(qpos, qvel, reward):
    paid, success, terminated = judged(CartPoleSwingUpEnv(), qpos, qvel)
    np.testing.assert_allclose(paid, reward, atol=1e-9)
    assert (success, terminated) == (reward > 0, False)


@pytest.mark.parametrize(
    ("qpos", "qvel", "reward"),
    [
        ((0.0, 0.0), 0.0, 2.0),
        ((0.0, 0.0), (0.0, 2.1), 1.0),
        ((np.pi / 3, 0.0), 0.0, 0.5),
        ((0.0, np.pi), 0.0, 0.0),
        ((np.pi, 0.0), 0.0, 0.0),
    ],
)
def test_a_double_pendulum_is_paid_above_the_shoulder_and_twice_when_it_stands(qpos, qvel, reward):
    paid, success, _ = judged(DoublePendulumSwingUpEnv(), qpos, qvel)
    np.testing.assert_allclose(paid, reward, atol=1e-9)
    assert success == (reward > 1)


@pytest.mark.parametrize(
    ("ball", "is_in"), [((0.0, 0.34), True), ((0.0, 0.0), False), ((0.1, 0.34), False)]
)
def test_a_ball_is_paid_in_the_cup(ball, is_in):
    assert judged(BallInCupEnv(), (0.0, 0.0, *ball)) == (float(is_in), is_in, False)


@pytest.mark.parametrize(("x", "is_there"), [(0.14, True), (0.16, False)])
def test_a_maze_pays_and_ends_at_the_goal(x, is_there):
    assert judged(PointMazeEnv(), (x, 1.35), goal=(0, 1.35)) == (is_there, is_there, is_there)


def test_reaching_is_paid_by_distance_and_at_the_goal():
    at_goal = judged(ReachAroundEnv(), (0.0, np.pi / 2), goal=(0.25, 0.35))
    np.testing.assert_allclose(at_goal, (1.0, True, False), atol=1e-9)
    away = judged(ReachAroundEnv(), (np.pi / 2, 0.0), goal=(0.3, 0.2))
    np.testing.assert_allclose(away, (-0.5, False, False), atol=1e-9)


@pytest.mark.parametrize(
    ("puck", "speed", "is_in"),
    [((0.1, 0.0), 0.1, True), ((0.1, 0.0), 0.3, False), ((0.1, 0.1), 0.0, False)],
)
def test_a_puck_is_paid_where_it_rests_in_the_circle(puck, speed, is_in):
    outcome = judged(PusherEnv(), (-0.4, 0.0, *puck), (1.0, 0.0, 0.0, speed), goal=(0, 0))
    assert outcome == (is_in, is_in, is_in)


def test_getting_up_pays_from_nothing_to_one():
    env = GetUpEnv()
    standing, lying, upside_down = np.zeros((3, env.model.nq))
    standing[1], lying[1:3], upside_down[1:3] = 0.86, (0.1, np.pi / 2), (0.86, np.pi)
    np.testing.assert_allclose(judged(env, standing), (1.0, True, False), atol=1e-9)
    np.testing.assert_allclose(judged(env, lying), (0.0, False, False), atol=1e-9)
    np.testing.assert_allclose(judged(env, upside_down), (0.0, False, False), atol=1e-9)


def test_the_way_left_in_the_maze_goes_around_the_wall():
    goal = np.array([[-1.0, 1.0]])
    corner = np.hypot(WALL_END[0] + 1, 1)
    left, below_corner, seeing, above = (
        distance_to_go(np.array([place]), goal)[0]
        for place in ((-1.0, -1.0), (WALL_END[0], -1.0), (1.9, -0.2), (-1.0, 0.2))
    )
    np.testing.assert_allclose(left, 2 * corner)
    np.testing.assert_allclose(below_corner, 1 + corner)
    np.testing.assert_allclose(seeing, np.hypot(2.9, 1.2))
    np.testing.assert_allclose(above, 0.8)


def test_the_way_left_in_the_maze_has_no_jumps():
    rng = np.random.default_rng(0)
    places = rng.uniform(-2, 2, size=(20_000, 2))
    places[:5_000, 1] = 0.0
    moved = places + 1e-6 * rng.standard_normal(places.shape)
    crosses_wall = (places[:, 1] * moved[:, 1] <= 0) & (places[:, 0] < WALL_END[0])
    goal = np.full(places.shape, (-1.0, 1.0))
    change = np.abs(distance_to_go(moved, goal) - distance_to_go(places, goal))
    assert change[~crosses_wall].max() < 1e-5


def test_walking_is_paid_by_speed_and_at_the_goal():
    env = AntMazeEnv()
    task = env.batch_task()
    still = np.zeros((1, env.model.nq))
    still[0, :2] = (-1.0, 0.2)
    moved = still.copy()
    moved[0, 1] += 0.1
    idle = np.zeros((1, env.model.nu))
    for goal_y, bonus in ((1.0, 0.0), (0.5, 10.0)):
        after = {"qpos": moved, "mocap_pos": np.array([[[-1.0, goal_y, 0.0]]])}
        reward = task.rewards({"qpos": still}, after, idle)[0]
        np.testing.assert_allclose(reward, 0.1 / env.dt + bonus)
        assert task.terminated(after)[0] == (bonus > 0)
