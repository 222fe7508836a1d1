"""The classic controllers: they swing up, and stay up."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.demonstrations import record
from mppi_envs.controllers import CartPoleController, DoublePendulumController, lqr_gain

CART_POLE = "mppi_envs/CartPoleSwingUp-v0"


@pytest.fixture(scope="module")
def env():
    return gym.make(f"mppi_envs:{CART_POLE}")


def test_the_cart_pole_controller_swings_up_and_stays_up(env):
    episodes = record(CartPoleController(env.unwrapped), env, seeds=range(10))
    assert all(episode.is_success for episode in episodes)
    assert all((episode.rewards[-50:] > 0.9).all() for episode in episodes)


def test_the_double_pendulum_controller_swings_up_and_stays_up():
    pendulum = gym.make("mppi_envs/DoublePendulumSwingUp-v0")
    episodes = record(DoublePendulumController(pendulum.unwrapped), pendulum, seeds=range(5))
    assert all(episode.is_success for episode in episodes)


def test_a_controller_reads_the_perturbed_model():
    heavy = gym.make(CART_POLE, mass=1.5, friction=0.5)
    (episode,) = record(CartPoleController(heavy.unwrapped), heavy, seeds=(0,))
    assert episode.is_success


def test_rows_of_observations_get_rows_of_actions(env):
    controller = CartPoleController(env.unwrapped)
    (episode,) = record(controller, env, seeds=(0,))
    actions, _ = controller.predict(episode.observations[:5])
    np.testing.assert_array_equal(actions, episode.actions[:5])


def test_lqr_makes_the_upright_pole_stable(env):
    base = env.unwrapped
    gain = lqr_gain(base, np.zeros(2), (1.0, 10.0, 0.1, 1.0), 1.0)
    base.reset(seed=0)
    state = np.array((0.1, 0.1, 0.0, 0.0))
    base.data.qpos[:], base.data.qvel[:] = state[:2], state[2:]
    for _ in range(150):
        state = np.concatenate((base.data.qpos, base.data.qvel))
        base.step(-(gain @ state))
    assert np.abs(state).max() < 0.01
