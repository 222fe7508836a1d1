"""What holds for every env: the vectorised task, cloning, Gymnasium's and SB3's rules, pictures."""

from __future__ import annotations

import os
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3

from mppi_agent.cloning import Cloneable, check_clones
from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics, make_dynamics
from mppi_envs import ENV_IDS

RENDER_HINT = "rendering without a display needs MUJOCO_GL=egl (or osmesa) and its libraries"


def make(env_id: str, **kwargs) -> Cloneable:
    env = Cloneable(gym.make(env_id, **kwargs))
    env.reset(seed=0)
    return env


def varied_actions(space: gym.spaces.Box, num_states: int, steps: int) -> np.ndarray:
    """Return uniform, bang-bang, held and idle actions, shape (S, 4, H, nu)."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, size=(num_states, 4, steps, *space.shape))
    actions[:, 1] = np.sign(actions[:, 1])
    actions[:, 2] = np.sign(actions[:, 2, :1])
    actions[:, 3] = 0.0
    return actions.astype(np.float32)


def leaves(observations) -> list[np.ndarray]:
    if isinstance(observations, dict):
        return list(observations.values())
    return [observations]


def assert_batch_is_step(env: Cloneable) -> None:
    oracle, fast = EnvStepDynamics(env), MujocoBatchDynamics(env, num_threads=1)
    states = oracle.initial_states(2, np.random.default_rng(1))
    actions = varied_actions(env.action_space, len(states), steps=40)
    checked = oracle.rollout(states, actions, keep_observations=True)
    driven = fast.rollout(states, actions, keep_observations=True)
    for name in ("rewards", "terminated", "diverged", "lengths"):
        np.testing.assert_array_equal(getattr(driven, name), getattr(checked, name), err_msg=name)
    for ours, theirs in zip(leaves(driven.observations), leaves(checked.observations), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-13)
    assert not checked.diverged.any()


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_batch_task_is_what_step_returns(env_id):
    assert_batch_is_step(make(env_id))


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_batch_task_is_what_step_returns_when_perturbed(env_id):
    perturbed = make(env_id, mass=1.3, friction=0.6, actuator_gain=0.8, action_delay=2)
    assert_batch_is_step(perturbed)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_the_batch_is_chosen_without_a_warning(env_id):
    env = make(env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dynamics = make_dynamics(env, num_workers=1)
    is_vector = isinstance(env.observation_space, gym.spaces.Box)
    assert type(dynamics) is (MujocoBatchDynamics if is_vector else EnvStepDynamics)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_clones_are_exact(env_id):
    report = check_clones(env_id, steps=60)
    assert report.exact, str(report)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_clones_of_a_perturbed_env_are_exact(env_id):
    env = gym.make(env_id, action_delay=2, observation_noise=0.05)
    report = check_clones(env, steps=60)
    assert report.exact, str(report)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_gymnasium_and_sb3_accept_the_env(env_id):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*bound.*infinity.*")
        check_gymnasium(gym.make(env_id).unwrapped, skip_render_check=True)
        check_sb3(gym.make(env_id))


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_seeds_repeat_the_start_and_vary_it(env_id):
    env = gym.make(env_id)
    first, again, other = (leaves(env.reset(seed=seed)[0]) for seed in (1, 1, 2))
    np.testing.assert_equal(first, again)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_no_episode_starts_in_success_and_time_limits_end_it(env_id):
    env = gym.make(env_id)
    env.reset(seed=0)
    idle = np.zeros(env.action_space.shape, dtype=np.float32)
    outcomes = [env.step(idle) for _ in range(env.spec.max_episode_steps)]
    *before, last = [(terminated, truncated) for _, _, terminated, truncated, _ in outcomes]
    assert set(before) == {(False, False)} and last == (False, True)
    assert not outcomes[0][-1]["is_success"]


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_the_documented_sizes_are_the_real_ones(env_id):
    env = gym.make(env_id).unwrapped
    assert f"Action, shape ({env.model.nu},)" in type(env).__doc__
    assert np.all(env.action_space.high == 1) and np.all(env.action_space.low == -1)
    if isinstance(env.observation_space, gym.spaces.Box):
        assert f"Observation, shape {env.observation_space.shape}" in type(env).__doc__


@pytest.fixture
def picture(monkeypatch):
    if not (os.environ.get("DISPLAY") or os.environ.get("MUJOCO_GL")):
        monkeypatch.setenv("MUJOCO_GL", "egl")  # GLFW would end the process without a display
    return draw


def draw(env_id: str, render_mode: str) -> np.ndarray:
    try:
        env = gym.make(env_id, render_mode=render_mode, width=64, height=48)
        env.reset(seed=0)
        drawn = env.render()
    except Exception as error:  # each OpenGL binding has errors of its own
        pytest.skip(f"{RENDER_HINT}: {error}")
    env.close()
    return drawn


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_a_picture_is_drawn_without_a_display(picture, env_id):
    drawn = picture(env_id, "rgb_array")
    assert drawn.shape == (48, 64, 3) and drawn.std() > 1


def test_depth_is_drawn_without_a_display(picture):
    drawn = picture("mppi_envs/AntMaze-v0", "depth_array")
    assert drawn.shape == (48, 64) and drawn.std() > 0
