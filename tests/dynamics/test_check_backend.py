"""check_cloneable says which backend would simulate an env, and how fast."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent import Cloneable, check_cloneable
from mppi_agent.cloning import Verdict


@pytest.mark.parametrize(
    ("env_id", "backend"),
    [
        ("Pendulum-v1", "VectorDynamics"),
        ("CartPole-v1", "VectorDynamics"),
        ("FrozenLake-v1", "ResampledDynamics"),
    ],
)
def test_backend_and_speed_are_reported(env_id, backend):
    report = check_cloneable(env_id, steps=40, num_workers=1)
    assert report.exact and report.backend == backend
    assert report.steps_per_second > 100
    assert backend in str(report) and "steps/s" in str(report)


def test_the_env_is_left_as_found():
    checked, untouched = Cloneable(gym.make("Pendulum-v1")), Cloneable(gym.make("Pendulum-v1"))
    for env in (checked, untouched):
        env.reset(seed=0)
        env.action_space.seed(0)
    check_cloneable(checked, steps=20, num_workers=1)
    for _ in range(3):
        actions = [env.action_space.sample() for env in (checked, untouched)]
        np.testing.assert_array_equal(*actions)
        np.testing.assert_equal(checked.step(actions[0]), untouched.step(actions[1]))
    np.testing.assert_equal(checked.reset(), untouched.reset())


class Drifting(gym.Env):
    """Counts the steps of all its copies together."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)
    count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action):
        type(self).count += 1
        return np.full(1, float(self.count)), 0.0, False, False, {}


def test_no_backend_is_measured_for_an_env_that_cannot_be_cloned():
    report = check_cloneable(Drifting(), steps=20)
    assert report.verdict is Verdict.IMPOSSIBLE
    assert report.backend is None and report.steps_per_second is None
