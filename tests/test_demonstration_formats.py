"""Minari datasets and `imitation` trajectories, there and back."""

from __future__ import annotations

import builtins
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from test_demonstrations import Random, assert_same, cut

from mppi_agent.demonstration_formats import from_imitation, load_minari, save_minari, to_imitation
from mppi_agent.demonstrations import record
from mppi_envs.controllers import CartPoleController


@pytest.fixture(scope="module")
def env():
    return gym.make("mppi_envs:mppi_envs/CartPoleSwingUp-v0", max_episode_steps=20)


@pytest.fixture(scope="module")
def demonstrations(env):
    first, second = record(CartPoleController(env.unwrapped), env, seeds=(0, 1))
    return [first, cut(second, 7)]


@pytest.fixture
def dict_episodes():
    arm = gym.make("mppi_envs:mppi_envs/MultiTaskArmDict-v0", max_episode_steps=5)
    return arm, record(Random(arm.action_space), arm, seeds=(0, 1))


@pytest.fixture
def minari(tmp_path, monkeypatch):
    pytest.importorskip("h5py", reason="pip install 'mppi-agent[minari]'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return pytest.importorskip("minari", reason="pip install 'mppi-agent[minari]'")


def test_minari_gets_every_episode(minari, env, demonstrations):
    dataset = save_minari(
        "cart-pole/scripted-v0", demonstrations, env, algorithm_name="energy and LQR"
    )
    stored = list(dataset.iterate_episodes())
    for episode, original in zip(stored, demonstrations, strict=True):
        np.testing.assert_array_equal(episode.observations, original.observations)
        np.testing.assert_array_equal(episode.actions, original.actions)
        np.testing.assert_array_equal(episode.rewards, original.rewards)
        ends = (episode.terminations[-1], episode.truncations[-1])
        assert ends == (original.terminated, not original.terminated)
        assert not (episode.terminations[:-1].any() or episode.truncations[:-1].any())


def test_what_minari_got_comes_back(minari, env, demonstrations, dict_episodes):
    save_minari("cart-pole/scripted-v0", demonstrations, env)
    assert_same(demonstrations, load_minari("cart-pole/scripted-v0"))
    arm, episodes = dict_episodes
    dataset = save_minari("arm/random-v0", episodes, arm)
    assert_same(episodes[1:], load_minari(dataset.filter_episodes(lambda e: e.id == 1)))


def test_minari_wants_rewards_and_episodes(minari, env, demonstrations):
    with pytest.raises(ValueError, match=r"no rewards.*replace\(demonstration, rewards="):
        save_minari("a/b-v0", [replace(demonstrations[0], rewards=None)], env)
    with pytest.raises(ValueError, match="no demonstrations to save"):
        save_minari("a/b-v0", [], env)


def test_imitation_takes_trajectories_and_gives_them_back(demonstrations, dict_episodes):
    types = pytest.importorskip("imitation.data.types", reason="pip install --no-deps imitation")
    trajectories = to_imitation(demonstrations)
    assert all(isinstance(t, types.TrajectoryWithRew) and t.terminal for t in trajectories)
    unseeded = [replace(episode, seed=None) for episode in demonstrations]
    assert_same(unseeded, from_imitation(trajectories))
    bare = replace(unseeded[0], rewards=None, is_success=None)
    (trajectory,) = to_imitation([bare])
    assert type(trajectory) is types.Trajectory
    assert_same([bare], from_imitation([trajectory]))
    _, episodes = dict_episodes
    unseeded = [replace(episode, seed=None) for episode in episodes]
    assert_same(unseeded, from_imitation(to_imitation(episodes)))


def test_the_files_of_imitation_are_read(tmp_path, demonstrations):
    pytest.importorskip("imitation", reason="pip install --no-deps imitation")
    pytest.importorskip("datasets", reason="pip install datasets")
    serialize = pytest.importorskip("imitation.data.serialize", exc_type=ImportError)
    serialize.save(tmp_path / "there", to_imitation(demonstrations))
    back = from_imitation(serialize.load(tmp_path / "there"))
    for original, copy in zip(demonstrations, back, strict=True):
        np.testing.assert_array_equal(copy.observations, original.observations)
        np.testing.assert_array_equal(copy.actions, original.actions)
        assert copy.terminated == original.terminated
        assert copy.is_success == original.is_success


def test_trajectories_that_imitation_recorded_tell_time_limits_from_ends():
    rollout = pytest.importorskip("imitation.data.rollout", exc_type=ImportError)
    wrappers = pytest.importorskip("imitation.data.wrappers", exc_type=ImportError)
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    pole = make_vec_env(
        "CartPole-v1",
        env_kwargs={"max_episode_steps": 12},
        wrapper_class=wrappers.RolloutInfoWrapper,
        seed=0,
    )
    trajectories = rollout.rollout(
        PPO("MlpPolicy", pole, seed=0, device="cpu"),
        pole,
        rollout.make_sample_until(min_episodes=20),
        rng=np.random.default_rng(0),
        exclude_infos=False,
    )
    demonstrations = from_imitation(trajectories)
    ends = {len(episode): episode.terminated for episode in demonstrations}
    assert ends.pop(12) is False
    assert ends and all(ends.values())


@pytest.mark.parametrize(
    ("package", "call", "cure"),
    [
        (
            "minari",
            lambda e, env: save_minari("a/b-v0", e, env),
            r"pip install 'mppi-agent\[minari",
        ),
        ("minari", lambda e, env: load_minari("a/b-v0"), "mppi-agent.minari"),
        ("imitation", lambda e, env: to_imitation(e), "pip install --no-deps imitation"),
    ],
    ids=["save_minari", "load_minari", "to_imitation"],
)
def test_without_the_package_the_error_names_the_cure(
    monkeypatch, env, demonstrations, package, call, cure
):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(package):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=cure):
        call(demonstrations, env)
