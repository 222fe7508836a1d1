"""Every vectorised task against `env.step`: random and extreme actions, all kinds of states."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from rollout_cases import assert_agree, make, many_actions, mid_episode, wild

from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics, VectorDynamics
from mppi_agent.dynamics.tasks import batch_task_of, vector_task_of

SHOWN = {"exclude_current_positions_from_observation": False}
MUJOCO = [
    ("HalfCheetah-v5", {}),
    ("HalfCheetah-v5", {"forward_reward_weight": 2.5, "ctrl_cost_weight": 0.7, **SHOWN}),
    ("HalfCheetah-v5", {"frame_skip": 3}),
    ("Swimmer-v5", {}),
    ("Swimmer-v5", {"forward_reward_weight": -3.0, "ctrl_cost_weight": 0.2, **SHOWN}),
    ("HalfCheetah-v4", {"ctrl_cost_weight": 0.3}),
    ("Swimmer-v4", SHOWN),
    ("Hopper-v5", {}),
    (
        "Hopper-v5",
        {
            "healthy_reward": 3.0,
            "healthy_state_range": (-9.0, 9.0),
            "healthy_z_range": (0.5, 1.4),
            "healthy_angle_range": (-0.6, 0.5),
            **SHOWN,
        },
    ),
    ("Hopper-v5", {"terminate_when_unhealthy": False, "ctrl_cost_weight": 0.5}),
    ("Walker2d-v5", {}),
    (
        "Walker2d-v5",
        {
            "forward_reward_weight": 0.5,
            "healthy_reward": 0.3,
            "healthy_z_range": (1.1, 1.6),
            "healthy_angle_range": (-0.4, 0.7),
        },
    ),
    ("Walker2d-v5", {"terminate_when_unhealthy": False, **SHOWN}),
    ("InvertedPendulum-v5", {}),
    ("InvertedPendulum-v5", {"frame_skip": 1}),
    ("InvertedDoublePendulum-v5", {}),
    ("InvertedDoublePendulum-v5", {"healthy_reward": 4.0, "frame_skip": 2}),
    ("Reacher-v5", {}),
    ("Reacher-v5", {"reward_dist_weight": 0.3, "reward_control_weight": 7.0}),
    ("Pusher-v5", {}),
    (
        "Pusher-v5",
        {"reward_near_weight": 2.0, "reward_dist_weight": 0.4, "reward_control_weight": 0.6},
    ),
]
ENDLESS = ("HalfCheetah", "Swimmer", "Reacher", "Pusher")


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
@pytest.mark.parametrize(("env_id", "kwargs"), MUJOCO)
def test_mujoco_task_is_what_the_env_itself_does(env_id, kwargs):
    env = make(env_id, **kwargs)
    oracle, fast = EnvStepDynamics(env), MujocoBatchDynamics(env, num_threads=1)
    states = [
        *oracle.initial_states(2, np.random.default_rng(1)),
        mid_episode(env, 12, seed=2),
        wild(env, seed=3),
    ]
    actions = many_actions(env.action_space, len(states))
    checked = oracle.rollout(states, actions, keep_observations=True)
    driven = fast.rollout(states, actions, keep_observations=True)
    # The same physics bit for bit; only sums of several numbers may round differently.
    np.testing.assert_array_equal(driven.lengths, checked.lengths)
    assert_agree(driven, checked, rtol=1e-13, atol=1e-13)
    can_end = not env_id.startswith(ENDLESS) and kwargs.get("terminate_when_unhealthy", True)
    assert checked.terminated.any() == can_end
    assert not checked.diverged[:3].any()  # the wild state breaks the swimmer in both


def test_float32_sums_of_squared_actions_agree_with_the_env():
    env = make("Pusher-v5", reward_control_weight=100.0)
    oracle, fast = EnvStepDynamics(env), MujocoBatchDynamics(env, num_threads=1)
    actions = many_actions(env.action_space, 1)
    state = [env.snapshot()]
    np.testing.assert_allclose(
        fast.rollout(state, actions).rewards, oracle.rollout(state, actions).rewards, rtol=1e-12
    )


@pytest.mark.parametrize("kwargs", [{}, {"g": 3.7}])
def test_pendulum_is_what_the_env_itself_does(kwargs):
    env = make("Pendulum-v1", **kwargs)
    env.unwrapped.max_torque = 1.5
    env.unwrapped.state = np.array([7.0, -7.9])  # more than a turn, nearly too fast
    fast_turn = env.snapshot()
    oracle, fast = EnvStepDynamics(env), VectorDynamics(env)
    states = oracle.initial_states(2, np.random.default_rng(1))
    states += [fast_turn, mid_episode(env, 9, seed=2)]
    actions = many_actions(env.action_space, len(states))
    assert_agree(
        fast.rollout(states, actions, keep_observations=True),
        oracle.rollout(states, actions, keep_observations=True),
        rtol=1e-5,  # the env computes partly in float32 and the pendulum amplifies it
        atol=1e-5,
    )


def test_pendulum_observes_bit_for_bit_what_the_env_itself_shows():
    env = make("Pendulum-v1")
    oracle, fast = EnvStepDynamics(env), VectorDynamics(env)
    states = oracle.initial_states(4, np.random.default_rng(1))
    actions = many_actions(env.action_space, len(states))
    checked = oracle.rollout(states, actions, keep_observations=True)
    driven = fast.rollout(states, actions, keep_observations=True)
    np.testing.assert_array_equal(driven.observations, checked.observations)


@pytest.mark.parametrize("kwargs", [{}, {"goal_velocity": 0.02}])
def test_mountain_car_is_what_the_env_itself_does(kwargs):
    env = make("MountainCarContinuous-v0", **kwargs)
    oracle, fast = EnvStepDynamics(env), VectorDynamics(env)
    states = oracle.initial_states(2, np.random.default_rng(1))
    states.append(mid_episode(env, 30, seed=2))
    for place in ([0.3, 0.06], [0.44, 0.012], [-1.19, -0.05]):  # fast, slow, into the wall
        env.unwrapped.state = np.array(place, dtype=np.float32)
        states.append(env.snapshot())
    actions = many_actions(env.action_space, len(states))
    checked = oracle.rollout(states, actions, keep_observations=True)
    assert_agree(
        fast.rollout(states, actions, keep_observations=True), checked, rtol=1e-6, atol=1e-6
    )
    assert checked.terminated.any() and not checked.terminated.all()
    assert (checked.observations[..., 0].min(), checked.rewards.max()) >= (-1.2000001, 99)


def test_a_subclass_has_no_task_because_it_may_have_changed_step():
    class OwnHopper(HopperEnv):
        pass

    class OwnPendulum(PendulumEnv):
        pass

    assert batch_task_of(OwnHopper()) is None
    assert batch_task_of(HopperEnv()) is not None
    assert vector_task_of(OwnPendulum()) is None
    assert vector_task_of(PendulumEnv()) is not None


def test_an_env_joins_by_a_method_of_its_own():
    class OwnHopper(HopperEnv):
        def batch_task(self):
            return "a batch task"

    class OwnPendulum(PendulumEnv):
        def vector_task(self):
            return "a vector task"

    assert batch_task_of(OwnHopper()) == "a batch task"
    assert vector_task_of(OwnPendulum()) == "a vector task"
