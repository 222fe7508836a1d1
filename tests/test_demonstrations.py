"""Recording, checking, saving and loading demonstrations."""

from __future__ import annotations

from dataclasses import fields, replace

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

from mppi_agent import MPPIAgent, MPPIConfig
from mppi_agent.demonstrations import (
    Demonstration,
    check_demonstrations,
    load_npz,
    record,
    save_npz,
)
from mppi_envs.controllers import CartPoleController

CART_POLE = "mppi_envs/CartPoleSwingUp-v0"


class Random:
    """Acts at random, from a seed."""

    def __init__(self, space: gym.Space) -> None:
        self.space = space
        self.space.seed(0)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.space.sample(), state


@pytest.fixture(scope="module")
def env():
    return gym.make(f"mppi_envs:{CART_POLE}")


@pytest.fixture(scope="module")
def demonstrations(env):
    return record(CartPoleController(env.unwrapped), env, seeds=(0, 1))


def cut(episode: Demonstration, steps: int) -> Demonstration:
    return replace(
        episode,
        observations=episode.observations[: steps + 1],
        actions=episode.actions[:steps],
        rewards=episode.rewards[:steps],
        terminated=True,
    )


def assert_same(originals, copies) -> None:
    for original, copy in zip(originals, copies, strict=True):
        for field in fields(Demonstration):
            one, other = getattr(original, field.name), getattr(copy, field.name)
            assert (one is None) == (other is None), field.name
            if isinstance(one, dict):
                assert one.keys() == other.keys()
            for key in one if isinstance(one, dict) else [...]:
                mine, theirs = (one, other) if key is ... else (one[key], other[key])
                np.testing.assert_array_equal(mine, theirs, err_msg=field.name)


def test_a_demonstration_replays_exactly(env, demonstrations):
    for episode in demonstrations:
        observation, _ = env.reset(seed=episode.seed)
        for t, action in enumerate(episode.actions):
            np.testing.assert_array_equal(observation, episode.observations[t])
            observation, reward, terminated, truncated, info = env.step(action)
            assert reward == episode.rewards[t]
        np.testing.assert_array_equal(observation, episode.observations[-1])
        assert truncated and terminated == episode.terminated
        assert info["is_success"] == episode.is_success


def test_the_planner_demonstrates_through_the_same_door():
    maze = gym.make("mppi_envs/PointMaze-v0", max_episode_steps=10)
    expert = MPPIAgent(maze, MPPIConfig(num_samples=8, horizon=5))
    (episode,) = record(expert, expert.env, seeds=(0,))
    assert len(episode) == len(episode.rewards) == len(episode.observations) - 1 == 10
    (noisy,) = record(expert, expert.env, seeds=(0,), deterministic=False)
    assert not np.array_equal(noisy.actions, episode.actions)
    expert.close()


def test_what_is_saved_is_what_is_loaded(tmp_path, demonstrations):
    mixed = [cut(demonstrations[0], 7), *demonstrations]
    save_npz(tmp_path / "demos.npz", mixed)
    assert_same(mixed, load_npz(tmp_path / "demos.npz"))


def test_dict_observations_and_discrete_actions_are_saved_too(tmp_path):
    arm = gym.make("mppi_envs/MultiTaskArmDict-v0", max_episode_steps=5)
    episodes = record(Random(arm.action_space), arm, seeds=(0, 1))
    save_npz(tmp_path / "arm.npz", episodes)
    assert_same(episodes, load_npz(tmp_path / "arm.npz"))
    pole = gym.make("CartPole-v1", max_episode_steps=5)
    episodes = record(Random(pole.action_space), pole, seeds=(0, 1))
    assert episodes[0].is_success is None
    save_npz(tmp_path / "pole.npz", episodes)
    assert_same(episodes, load_npz(tmp_path / "pole.npz"))


def test_what_nobody_knows_stays_unknown_and_half_knowledge_is_refused(tmp_path, demonstrations):
    bare = [replace(e, rewards=None, seed=None, is_success=None) for e in demonstrations]
    save_npz(tmp_path / "bare.npz", bare)
    assert_same(bare, load_npz(tmp_path / "bare.npz"))
    with pytest.raises(ValueError, match=r"1 of 2 demonstrations have no rewards.*replace"):
        save_npz(tmp_path / "half.npz", [bare[0], demonstrations[1]])


def test_files_of_others_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", acts=np.zeros(3))
    with pytest.raises(ValueError, match=r"lacks actions, lengths, terminated.*holds acts"):
        load_npz(tmp_path / "other.npz")


def test_what_cannot_be_recorded_is_refused_with_the_cure(env, tmp_path):
    controller = CartPoleController(env.unwrapped)
    with pytest.raises(ValueError, match="no time limit"):
        record(controller, type(env.unwrapped)(), seeds=(0,))
    limited = gym.wrappers.TimeLimit(type(env.unwrapped)(), 7)  # never registered
    assert len(record(CartPoleController(limited.unwrapped), limited, seeds=(0,))[0]) == 7
    text = gym.wrappers.TransformObservation(env, lambda o: "here", gym.spaces.Text(4))
    with pytest.raises(ValueError, match="FlattenObservation"):
        record(controller, text, seeds=(0,))
    with pytest.raises(ValueError, match="no demonstrations to save"):
        save_npz(tmp_path / "none.npz", [])


def test_episodes_that_do_not_add_up_are_refused():
    steps = np.zeros((3, 1))
    with pytest.raises(ValueError, match="at least one action"):
        Demonstration(observations=steps[:1], actions=steps[:0], terminated=True)
    with pytest.raises(ValueError, match=r"3 actions need 4 observations, got 3.*ended with"):
        Demonstration(observations=steps, actions=steps, terminated=True)
    with pytest.raises(ValueError, match=r"rewards of shape \(2,\), got \(2, 1\)"):
        Demonstration(
            observations=steps, actions=steps[:2], terminated=True, rewards=np.zeros((2, 1))
        )


def test_demonstrations_of_another_env_are_refused(env, demonstrations):
    spaces = env.observation_space, env.action_space
    check_demonstrations(demonstrations, *spaces)
    with pytest.raises(ValueError, match="no demonstrations"):
        check_demonstrations([], *spaces)
    with pytest.raises(ValueError, match=r"1 has observations of shape \(2,\), the env \(\d+,\)"):
        other = replace(demonstrations[1], observations=demonstrations[1].observations[:, :2])
        check_demonstrations([demonstrations[0], other], *spaces)
    with pytest.raises(ValueError, match=r"actions of shape \(\), the env \(1,\)"):
        other = replace(demonstrations[0], actions=demonstrations[0].actions[:, 0])
        check_demonstrations([other], *spaces)
    wild = demonstrations[0].actions.copy()
    wild[4] = 1.5
    with pytest.raises(ValueError, match=r"outside of Box.*first at step 4.*np.clip"):
        check_demonstrations([replace(demonstrations[0], actions=wild)], *spaces)
    pole = gym.make("CartPole-v1", max_episode_steps=3)
    (episode,) = record(Random(pole.action_space), pole, seeds=(0,))
    check_demonstrations([episode], pole.observation_space, pole.action_space)
    with pytest.raises(ValueError, match=r"outside of Discrete\(2\)"):
        bad = replace(episode, actions=episode.actions + 5)
        check_demonstrations([bad], pole.observation_space, pole.action_space)


def test_categories_are_recorded_as_the_numbers_that_tables_are_indexed_by():
    model = PPO("MlpPolicy", "FrozenLake-v1", n_steps=8, batch_size=8, device="cpu")
    (episode,) = record(model, gym.make("FrozenLake-v1"), seeds=[0])
    assert episode.actions.dtype.kind == "i" and episode.actions.ndim == 1
