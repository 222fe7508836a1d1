"""The multi-task env: choice of the task, its rules, and both forms of its observation."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import MujocoBatchDynamics
from mppi_envs.arm_tasks import GOALS, TASKS
from mppi_envs.multi_task_arm import MultiTaskArmDictEnv, MultiTaskArmEnv

TIP = slice(6, 8)
ONE_HOT = slice(8, 14)
TARGET = slice(14, 16)


def paid(env: MultiTaskArmEnv) -> tuple[float, bool]:
    """Return reward and success where the env stands."""
    task = env.batch_task()
    after = {name: getattr(env.data, name)[None] for name in task.after_fields}
    reward = task.rewards({}, after, np.zeros((1, 2)))[0]
    return float(reward), bool(task.successes(after)[0])


@pytest.mark.parametrize("name", TASKS)
def test_an_option_chooses_the_task_and_the_observation_shows_it(name):
    env = MultiTaskArmEnv()
    observation, info = env.reset(seed=3, options={"task": name})
    assert env.task_name == info["task"] == name
    assert list(TASKS)[int(np.argmax(observation[ONE_HOT]))] == name
    assert observation[ONE_HOT].sum() == 1


def test_without_an_option_every_task_is_drawn():
    env = MultiTaskArmEnv()
    env.reset(seed=0)
    # 100 draws miss a given one of 6 tasks once in 8 * 10^7 times; the seed is fixed.
    assert {env.reset()[1]["task"] for _ in range(100)} == set(TASKS)


def test_a_choice_is_for_one_episode():
    env, untouched = MultiTaskArmEnv(), MultiTaskArmEnv()
    env.reset(seed=1, options={"task": "track"})
    np.testing.assert_array_equal(env.reset(seed=2)[0], untouched.reset(seed=2)[0])


@pytest.mark.parametrize("k", range(len(GOALS)))
def test_reaching_pays_one_at_its_goal_and_half_at_the_tolerance(k):
    env = MultiTaskArmEnv()
    observation, _ = env.reset(seed=0, options={"task": f"reach_{k}"})
    np.testing.assert_array_equal(observation[TARGET], GOALS[k])
    for pose in np.random.default_rng(0).uniform(-np.pi, np.pi, size=(20, 2)):
        env.data.qpos[:] = pose
        distance = np.linalg.norm(env._observe(env._fields_after())[TIP] - GOALS[k])
        reward, success = paid(env)
        np.testing.assert_allclose(reward, 1 / (1 + (distance / 0.05) ** 2))
        assert success == (distance < 0.05)


def test_the_tip_is_where_the_model_has_it():
    env = MultiTaskArmEnv()
    observation, _ = env.reset(seed=5)
    lower = env.data.body("lower")
    tip = lower.xpos + lower.xmat.reshape(3, 3) @ (0.3, 0.0, 0.0)
    np.testing.assert_allclose(observation[TIP], tip[[0, 2]], atol=1e-12)


def test_holding_is_fulfilled_at_the_start_and_lost_by_falling():
    env = MultiTaskArmEnv()
    env.reset(seed=0, options={"task": "hold"})
    np.testing.assert_allclose(paid(env), (1.0, True))
    for _ in range(10):
        env.step(np.zeros(2))
    assert paid(env)[1] is False


def test_tracking_pays_for_the_speed_of_the_shoulder():
    env = MultiTaskArmEnv()
    observation, _ = env.reset(seed=0, options={"task": "track"})
    speed = observation[TARGET][0]
    assert 1.0 <= abs(speed) <= 3.0
    env.data.qvel[0] = speed
    np.testing.assert_allclose(paid(env), (1.0, True))
    env.data.qvel[0] = speed + 0.6
    np.testing.assert_allclose(paid(env), (0.2, False))


def test_the_dict_holds_the_parts_of_the_flat_observation():
    flat, _ = MultiTaskArmEnv().reset(seed=4)
    parts, _ = MultiTaskArmDictEnv().reset(seed=4)
    assert list(parts) == ["state", "task", "target"]
    np.testing.assert_array_equal(np.concatenate(list(parts.values())), flat)


def test_one_batch_holds_many_tasks():
    env = Cloneable(gym.make("mppi_envs/MultiTaskArm-v0"))
    states = []
    for name in TASKS:
        env.reset(seed=0, options={"task": name})
        states.append(env.snapshot())
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    actions = np.zeros((len(TASKS), 1, 1, 2), dtype=np.float32)
    shown = dynamics.rollout(states, actions).final_observations[:, 0]
    np.testing.assert_array_equal(shown[:, ONE_HOT], np.eye(len(TASKS)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "dance"}, r"options\['task'\] must be one of reach_0, .* track; got 'dance'"),
        ({"tsk": "hold"}, "options may hold 'task' only, got 'tsk'"),
    ],
)
def test_unknown_tasks_and_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskArmEnv().reset(options=options)
