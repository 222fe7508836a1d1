"""Wrappers with state are cloned or bypassed; planning leaves their logs and statistics alone."""

from __future__ import annotations

import sys
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest
from clone_law import act, assert_law, sample_actions
from gymnasium import wrappers

from mppi_agent.cloning import Cloneable, find_cloneable
from mppi_agent.dynamics import EnvStepDynamics, make_dynamics, sub_env


def plan(env):
    """Do what planning does to an env: simulate on copies, from its state and from resets."""
    cloneable = find_cloneable(env)
    dynamics = EnvStepDynamics(cloneable)
    rng = np.random.default_rng(0)
    states = [cloneable.snapshot(), *dynamics.initial_states(1, rng)]
    space = cloneable.action_space
    actions = rng.uniform(space.low, space.high, size=(2, 3, 8, *space.shape))
    dynamics.rollout(states, actions.astype(space.dtype))
    dynamics.close()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.FrameStackObservation(env, 4),
        lambda env: wrappers.TimeAwareObservation(env),
        lambda env: wrappers.StickyAction(env, 0.5),
        lambda env: wrappers.DelayObservation(env, 3),
        lambda env: wrappers.MaxAndSkipObservation(env, 2),
        lambda env: wrappers.RescaleAction(env, -0.5, 0.5),
        lambda env: wrappers.FlattenObservation(wrappers.ClipAction(env)),
        lambda env: wrappers.TimeLimit(wrappers.FrameStackObservation(env, 2), 9),
        lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward),
    ],
)
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_law_holds_through_stateful_wrappers(env_id, wrap):
    assert_law(wrap(gym.make(env_id)))


def test_passive_wrappers_are_stripped_and_states_still_fit():
    from stable_baselines3.common.monitor import Monitor

    env = Cloneable(Monitor(wrappers.RecordEpisodeStatistics(gym.make("Pendulum-v1"))))
    env.reset(seed=0)
    twin = env.private_copy()
    assert "Monitor" not in str(twin) and "RecordEpisode" not in str(twin)
    env.restore(twin.snapshot())
    state = env.snapshot()
    actions = sample_actions(env, 6)
    expected = [outcome[:4] for outcome in act(env, actions)]
    twin.restore(state)
    np.testing.assert_equal([outcome[:4] for outcome in act(twin, actions)], expected)


def test_restore_wakes_a_monitor_whose_episode_had_ended():
    from stable_baselines3.common.monitor import Monitor

    env = Cloneable(Monitor(gym.make("Pendulum-v1", max_episode_steps=3)))
    env.reset(seed=0)
    state = env.snapshot()
    for action in sample_actions(env, 3):
        env.step(action)
    with pytest.raises(RuntimeError, match="needs reset"):
        env.step(env.action_space.low)
    env.restore(state)
    env.step(env.action_space.low)


def test_copies_do_not_learn_normalization_statistics():
    env = Cloneable(wrappers.NormalizeReward(wrappers.NormalizeObservation(gym.make("Hopper-v5"))))
    env.reset(seed=0)
    act(env, sample_actions(env, 5))
    twin = env.private_copy()
    twin.restore(env.snapshot())
    before = twin.env.env.obs_rms.mean.copy()
    twin.step(np.ones(3, dtype=np.float32))
    np.testing.assert_array_equal(twin.env.env.obs_rms.mean, before)
    np.testing.assert_array_equal(env.env.env.obs_rms.mean, before)
    env.step(np.ones(3, dtype=np.float32))
    assert (env.env.env.obs_rms.mean != before).any()


@pytest.mark.parametrize(
    ("wrap", "look"),
    [
        (wrappers.NormalizeObservation, lambda env: (env.obs_rms.mean, env.obs_rms.count)),
        (wrappers.NormalizeReward, lambda env: (env.return_rms.var, env.discounted_reward)),
        (
            wrappers.RecordEpisodeStatistics,
            lambda env: (env.episode_returns, env.episode_lengths, list(env.return_queue)),
        ),
        (lambda env: wrappers.RenderCollection(env, pop_frames=False), lambda env: env.render()),
    ],
)
def test_planning_leaves_statistics_and_frames_alone(wrap, look):
    env = Cloneable(wrap(gym.make("Pendulum-v1", render_mode="rgb_array")))
    env.env.unwrapped.render = lambda: np.zeros((2, 2, 3), np.uint8)
    env.reset(seed=0)
    act(env, sample_actions(env, 5))
    before = np.copy(look(env.env)[0]), str(look(env.env))
    plan(env)
    np.testing.assert_array_equal(look(env.env)[0], before[0])
    assert str(look(env.env)) == before[1]


def test_planning_records_no_video(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "moviepy", ModuleType("moviepy"))  # asked for, not used here
    made = gym.make("Pendulum-v1", render_mode="rgb_array")
    made.unwrapped.render = lambda: np.zeros((2, 2, 3), np.uint8)
    env = Cloneable(wrappers.RecordVideo(made, str(tmp_path), episode_trigger=lambda episode: True))
    env.reset(seed=0)
    act(env, sample_actions(env, 5))
    before = len(env.env.recorded_frames)
    plan(env)
    assert len(env.env.recorded_frames) == before == 6
    assert env.env.episode_id == 0
    env.env.recorded_frames, env.env.recording = [], False  # nothing to write at the end


def test_planning_leaves_monitor_and_vec_normalize_alone():
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = VecNormalize(DummyVecEnv([lambda: Monitor(Cloneable(gym.make("Pendulum-v1")))]))
    env.seed(0)
    env.reset()
    for action in sample_actions(env, 5):
        env.step(action[None])
    monitor = env.venv.envs[0]
    before = env.obs_rms.mean.copy(), env.ret_rms.var, env.returns.copy(), list(monitor.rewards)
    plan(sub_env(env))
    after = env.obs_rms.mean, env.ret_rms.var, env.returns, monitor.rewards
    np.testing.assert_equal(list(after), list(before))


class CostlyStatistics(wrappers.RecordEpisodeStatistics):
    """Does more than its parent, which copies do without."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward - 100.0, *rest


class EndsSooner(wrappers.TimeLimit):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, self._elapsed_steps >= 7, truncated, info


class QuietStatistics(wrappers.RecordEpisodeStatistics):
    """Steps and resets as its parent does."""


@pytest.mark.parametrize(
    "wrap", [CostlyStatistics, lambda env: EndsSooner(env, 20), QuietStatistics]
)
def test_a_wrapper_derived_from_one_that_only_watches_counts_if_it_does_more(wrap):
    env = Cloneable(wrap(gym.make("Pendulum-v1")))
    env.reset(seed=0)
    dynamics = make_dynamics(env, num_workers=1)
    actions = np.zeros((1, 1, 10, 1), dtype=np.float32)
    rollout = dynamics.rollout([env.snapshot()], actions)
    for step in range(rollout.lengths[0, 0]):
        _, reward, terminated, _, _ = env.step(actions[0, 0, step])
        np.testing.assert_allclose(rollout.rewards[0, 0, step], reward, rtol=1e-12)
    assert rollout.terminated[0, 0] == terminated
    dynamics.close()
