"""What a policy sees of simulations, and what the env gets of its actions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from toy_envs import Target, make_policy, plain_view

from mppi_agent.gps.view import PolicyView, as_tensors


def normalised_pendulum() -> VecNormalize:
    venv = VecNormalize(VecMonitor(make_vec_env("Pendulum-v1", 2, seed=0)))
    venv.reset()
    for _ in range(20):
        venv.step(np.ones((2, 1), dtype=np.float32))
    return venv


def test_simulations_are_shown_as_the_training_env_shows_itself():
    venv = VecCheckNan(normalised_pendulum())
    view = PolicyView(venv, venv.action_space)
    inner = venv.venv
    inner.training = False
    shown, _, _, _ = venv.step(np.zeros((2, 1), dtype=np.float32))
    np.testing.assert_array_equal(view.observe(inner.get_original_obs()), shown)
    time_axis = np.stack([inner.get_original_obs()] * 3)
    np.testing.assert_allclose(view.observe(time_axis), np.stack([shown] * 3), rtol=1e-6)


def test_looking_does_not_change_the_running_statistics():
    venv = normalised_pendulum()
    view = PolicyView(venv, venv.action_space)
    before = (venv.obs_rms.mean.copy(), venv.obs_rms.count)
    view.observe(np.full((5, 3), 100.0))
    np.testing.assert_array_equal(venv.obs_rms.mean, before[0])
    assert venv.obs_rms.count == before[1]


def test_later_statistics_are_used():
    venv = normalised_pendulum()
    view = PolicyView(venv, venv.action_space)
    raw = np.ones((1, 3))
    first = view.observe(raw)
    venv.obs_rms.mean = venv.obs_rms.mean + 1.0
    assert not np.allclose(view.observe(raw), first)


class Images(gym.Env):
    observation_space = spaces.Box(0, 255, (36, 40, 3), dtype=np.uint8)
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        return np.zeros((36, 40, 3), dtype=np.uint8), {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


def test_images_are_transposed():
    venv = VecTransposeImage(DummyVecEnv([Images]))
    image = np.random.default_rng(0).integers(256, size=(2, 36, 40, 3)).astype(np.uint8)
    shown = PolicyView(venv, venv.action_space).observe(image)
    np.testing.assert_array_equal(shown, image.transpose(0, 3, 1, 2))


def test_a_wrapper_that_simulations_cannot_repeat_is_refused():
    venv = VecFrameStack(make_vec_env("Pendulum-v1", 1), 2)
    with pytest.raises(ValueError, match=r"VecEnv wrapper VecFrameStack .* below Cloneable"):
        PolicyView(venv, venv.action_space)


def test_best_actions_and_values_are_the_policys():
    policy = make_policy()
    with th.no_grad():
        policy.action_net.weight.mul_(1000)  # so that some actions leave the bounds
    seen = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    best = plain_view().best_actions(policy, seen)
    np.testing.assert_allclose(best, policy.predict(seen, deterministic=True)[0], rtol=1e-6)
    assert (best == 3.0).any() and (best == -1.0).any()
    with th.no_grad():
        values = policy.predict_values(th.as_tensor(seen)).numpy().ravel()
    # Another tanh than torch's: the last digit may differ.
    np.testing.assert_allclose(plain_view().values(policy, seen), values, rtol=1e-5, atol=1e-6)


def test_drawn_actions_have_the_policys_mean_and_std():
    policy = make_policy()
    with th.no_grad():
        policy.log_std.fill_(np.log(0.7))
    num = 20_000
    seen = np.repeat([[0.3, 1.0]], num, axis=0).astype(np.float32)
    drawn = plain_view().draw_actions(policy, seen, np.random.default_rng(0))
    mean = policy.get_distribution(th.as_tensor(seen[:1])).distribution.mean.item()
    # Five standard errors of mean and std: failure probability 1e-6.
    assert abs(drawn.mean() - mean) < 5 * 0.7 / np.sqrt(num)
    assert abs(drawn.std() - 0.7) < 5 * 0.7 / np.sqrt(2 * num)
    again = plain_view().draw_actions(policy, seen, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, again)


def test_actions_of_any_shape_are_clipped_to_the_env():
    space = spaces.Box(np.float32([[-1, -2], [0, 0]]), np.float32([[1, 2], [3, 4]]))
    view = PolicyView(None, space)
    policy = make_policy(action_space=space)
    seen = np.zeros((5, 2), dtype=np.float32)
    assert view.draw_actions(policy, seen, np.random.default_rng(0)).shape == (5, 2, 2)
    assert view.best_actions(policy, seen).shape == (5, 2, 2)
    np.testing.assert_array_equal(view.to_env(np.full((1, 2, 2), 9.0))[0], space.high)
    np.testing.assert_array_equal(view.to_env(np.full((1, 2, 2), -9.0))[0], space.low)


def test_observations_enter_torch_in_single_precision():
    policy = make_policy()
    assert as_tensors(policy, np.zeros((2, 2))).dtype == th.float32
    assert as_tensors(policy, np.zeros((2, 2), dtype=np.uint8)).dtype == th.uint8
    double = np.random.default_rng(0).normal(size=(4, 2))
    view = PolicyView(None, Target.action_space)
    np.testing.assert_array_equal(
        view.values(policy, double), view.values(policy, double.astype(np.float32))
    )
