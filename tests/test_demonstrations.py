"""Recording, saving and loading demonstrations; the classic controllers behind them."""

from __future__ import annotations

import builtins
from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest
from mppi_envs.demonstrations import Demonstration, load_npz, record, save_minari, save_npz

from mppi_agent import MPPIAgent, MPPIConfig
from mppi_envs.controllers import CartPoleController, DoublePendulumController, lqr_gain

CART_POLE = "mppi_envs/CartPoleSwingUp-v0"


@pytest.fixture(scope="module")
def env():
    return gym.make(f"mppi_envs:{CART_POLE}")


@pytest.fixture(scope="module")
def demonstrations(env):
    return record(CartPoleController(env.unwrapped), env, seeds=(0, 1))


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


def test_rows_of_observations_get_rows_of_actions(env, demonstrations):
    controller = CartPoleController(env.unwrapped)
    rows = demonstrations[0].observations[:5]
    actions, _ = controller.predict(rows)
    np.testing.assert_array_equal(actions, demonstrations[0].actions[:5])


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
    assert len(episode.actions) == len(episode.rewards) == len(episode.observations) - 1 == 10
    expert.close()


def test_what_is_saved_is_what_is_loaded(tmp_path, demonstrations):
    shorter = [Demonstration(**{**vars(demonstrations[0]), **cut(demonstrations[0], 7)})]
    save_npz(tmp_path / "demos.npz", shorter + demonstrations)
    loaded = load_npz(tmp_path / "demos.npz")
    for original, copy in zip(shorter + demonstrations, loaded, strict=True):
        for field in fields(Demonstration):
            np.testing.assert_array_equal(getattr(copy, field.name), getattr(original, field.name))


def cut(episode: Demonstration, steps: int) -> dict:
    return {
        "observations": episode.observations[: steps + 1],
        "actions": episode.actions[:steps],
        "rewards": episode.rewards[:steps],
        "terminated": True,
    }


def test_minari_gets_every_episode(tmp_path, monkeypatch, env, demonstrations):
    for package in ("minari", "h5py"):
        pytest.importorskip(package, reason="pip install 'minari[hdf5]'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = save_minari(
        "cart-pole/scripted-v0", demonstrations, env, algorithm_name="energy and LQR"
    )
    stored = list(dataset.iterate_episodes())
    for episode, original in zip(stored, demonstrations, strict=True):
        np.testing.assert_array_equal(episode.observations, original.observations)
        np.testing.assert_array_equal(episode.actions, original.actions)
        np.testing.assert_array_equal(episode.rewards, original.rewards)
        assert (episode.terminations[-1], episode.truncations[-1]) == (False, True)


def test_without_minari_the_error_names_the_cure(monkeypatch, env, demonstrations):
    real_import = builtins.__import__

    def without_minari(name, *args, **kwargs):
        if name.startswith("minari"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_minari)
    with pytest.raises(ImportError, match=r"pip install .minari\[hdf5\]"):
        save_minari("cart-pole/scripted-v0", demonstrations, env)


def test_what_cannot_be_recorded_is_refused_with_the_cure(env, tmp_path):
    controller = CartPoleController(env.unwrapped)
    with pytest.raises(ValueError, match="no time limit"):
        record(controller, type(env.unwrapped)(), seeds=(0,))
    with pytest.raises(ValueError, match="FlattenObservation"):
        record(controller, gym.make("mppi_envs/MultiTaskArmDict-v0"), seeds=(0,))
    with pytest.raises(ValueError, match="no demonstrations to save"):
        save_npz(tmp_path / "none.npz", [])
