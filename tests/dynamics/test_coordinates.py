"""Coordinates: offsets there and back, rotations that stay rotations."""

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent import Cloneable
from mppi_agent.dynamics import EnvStepDynamics
from mppi_agent.dynamics.coordinates import coordinates_of


def opened(env):
    cloneable = Cloneable(env)
    cloneable.reset(seed=0)
    dynamics = EnvStepDynamics(cloneable)
    return cloneable, coordinates_of(cloneable, dynamics)


@pytest.mark.parametrize("env_id", ["Ant-v5", "Hopper-v5", "Pendulum-v1"])
def test_offsets_come_back(env_id):
    env, coordinates = opened(gym.make(env_id))
    origin = env.snapshot().physics
    offsets = 0.1 * np.random.default_rng(0).standard_normal((5, coordinates.size))
    moved = coordinates.displaced(origin, offsets)
    assert moved.shape == (5, len(origin)) and np.array_equal(origin, env.snapshot().physics)
    np.testing.assert_allclose(coordinates.differences(moved, origin), offsets, atol=1e-12)


def test_a_rotation_stays_one_and_only_what_is_asked_for_moves():
    env, coordinates = opened(gym.make("Ant-v5"))
    model = env.unwrapped.model
    origin = env.snapshot().physics
    offsets = np.eye(coordinates.size)[3:4]  # turn the torso about x
    moved = coordinates.displaced(origin, offsets)[0]
    changed = np.flatnonzero(moved != origin)
    assert set(changed) <= set(range(4, 8))  # time, three of place, four of rotation
    assert np.linalg.norm(moved[4:8]) == pytest.approx(1.0, abs=1e-12)
    assert coordinates.size == 2 * model.nv + model.na


class Opaque(gym.Env):
    """An env that is copied whole."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


def test_an_env_without_a_physics_vector_is_told_so():
    with pytest.raises(ValueError, match=r"Opaque has no physics vector .* lqr_steps=0"):
        opened(Opaque())
