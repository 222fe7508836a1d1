"""Starting from somebody's episodes, or with somebody's policy beside the planner."""

from __future__ import annotations

import io
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from test_resume import SaveAt, assert_same_run, carry_on
from toy_envs import Target
from toy_models import make, pendulum, pendulums, same, weights

from mppi_agent.demonstrations import record
from mppi_agent.gps import MPPIGPS
from mppi_agent.gps.dataset import LabelDataset

gym.register("LearnFromTarget-v0", Target, max_episode_steps=10)
ALONE = {"expert_episodes": 0, "label_states": 0}  # no planner beside


class Constant:
    """Does the same everywhere."""

    def __init__(self, action: float) -> None:
        self.action = action

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        batch = np.shape(observation)[:-1]
        return np.full((*batch, 1), self.action, np.float32), state


class SwingUp:
    """Pumps energy into the pendulum, and holds it when it stands."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        cos, sin, speed = np.moveaxis(np.asarray(observation), -1, 0)
        hold = -8.0 * np.arctan2(sin, cos) - 2.0 * speed
        pump = 2.0 * np.sign(speed * (1.0 - cos - speed**2 / 30.0))
        action = np.where(cos > 0.9, hold, pump)
        return np.clip(action, -2, 2)[..., None].astype(np.float32), state


def target() -> gym.Env:
    return gym.make("LearnFromTarget-v0")


def demonstrations(num: int = 2):
    return record(SwingUp(), pendulum(), seeds=range(num))


def mean_error(model: MPPIGPS, episodes) -> float:
    shown = np.concatenate([e.observations[:-1] for e in episodes])
    wanted = np.concatenate([e.actions for e in episodes])
    return float(np.abs(model.predict(shown, deterministic=True)[0] - wanted).mean())


def test_the_policy_does_what_was_demonstrated():
    episodes = record(Constant(2.5), target(), seeds=range(3))
    model = make(target(), learning_rate=1e-2, **ALONE)
    before = mean_error(model, episodes)
    assert model.learn_from(episodes, gradient_steps=200) is model
    assert mean_error(model, episodes) < 0.05 < before
    assert model.num_timesteps == 0
    assert model.num_sim_steps > 0


def test_observation_statistics_come_from_demonstrations_and_change_slowly_then():
    episodes = demonstrations()
    model = make(**ALONE).learn_from(episodes, gradient_steps=1)
    shown = np.concatenate([e.observations[:-1] for e in episodes])
    mean = weights(model)["features_extractor.normalizer.mean"].copy()
    np.testing.assert_allclose(mean, shown.mean(axis=0), rtol=1e-4, atol=1e-5)
    model.learn(24)
    after = weights(model)["features_extractor.normalizer.mean"]
    assert 0 < np.abs(after - mean).max() < 0.01 * shown.std(axis=0).max()


def test_what_was_demonstrated_is_kept_if_nothing_better_is_found():
    episodes = record(Constant(1.5), target(), seeds=range(3))  # the best there is
    model = make(target(), learning_rate=1e-2, **ALONE).learn_from(episodes, 300)
    model.learn(16)
    assert mean_error(model, episodes) < 0.1


def test_labels_and_states_join_those_of_the_planner():
    episodes = demonstrations()
    model = make().learn_from(episodes, gradient_steps=1)
    assert len(model.replay_buffer) == 40
    assert len(model._engine.archive) == 40
    state = model._engine.archive.draw(1, 1.0, np.random.default_rng(0))[0]
    shown = np.concatenate([e.observations for e in episodes])
    assert (np.abs(shown - state.observation).max(axis=1) < 1e-6).any()
    model.learn(8)
    assert len(model.replay_buffer) > 40


def test_of_many_demonstrations_no_more_are_kept_than_leaves_room_for_the_planner():
    model = make()
    model.replay_buffer = LabelDataset(half_life=50, capacity=20)
    episodes = demonstrations()
    model.learn_from(episodes, gradient_steps=1)
    assert len(model.replay_buffer) == 10
    drawn = model.replay_buffer.sample(500, 0, np.random.default_rng(0))
    seen = {row.tobytes() for row in drawn.observations}
    for episode in episodes:  # some of each
        assert seen & {row.tobytes() for row in episode.observations}


def test_states_need_a_seed_that_leads_to_the_same_episode():
    episodes = demonstrations()
    unseeded = [replace(episode, seed=None) for episode in episodes]
    other = [replace(episode, seed=episode.seed + 7) for episode in episodes]
    for strangers in (unseeded, other):
        model = make().learn_from(strangers, gradient_steps=1)
        assert len(model.replay_buffer) == 40
        assert len(model._engine.archive) == 0
    torn = episodes[0].observations.copy()
    torn[5:] += 1.0
    model = make().learn_from([replace(episodes[0], observations=torn)], gradient_steps=1)
    assert len(model._engine.archive) == 5


def test_vec_envs_and_vec_normalize_are_learnt_in_too():
    venv = VecNormalize(pendulums())
    venv.obs_rms.mean[:] = [0.5, 0.0, 0.0]
    venv.obs_rms.var[:] = 4.0
    episodes = demonstrations()
    model = make(venv, learning_rate=1e-2, **ALONE).learn_from(episodes, gradient_steps=300)
    shown = [replace(e, observations=venv.normalize_obs(e.observations)) for e in episodes]
    assert mean_error(model, shown) < 0.5 * mean_error(model, episodes)


def test_a_run_that_began_with_demonstrations_continues_bit_for_bit():
    def start() -> MPPIGPS:
        return make(label_interval=1).learn_from(demonstrations(), gradient_steps=5)

    saved = SaveAt(13)
    never_stopped = start().learn(24, saved)
    continued = carry_on(saved.file, pendulum(), 24)
    assert_same_run(continued, never_stopped)
    assert len(continued._engine.archive) == len(never_stopped._engine.archive)


def test_a_checkpoint_before_the_first_step_holds_what_was_learnt_from():
    model = make().learn_from(demonstrations(), gradient_steps=5)
    file = io.BytesIO()
    model.save_checkpoint(file)
    model.learn(24, reset_num_timesteps=False)
    continued = carry_on(file, pendulum(), 24)
    assert_same_run(continued, model)


def test_noise_falls_to_how_far_demonstrations_scatter():
    def noise(episodes) -> float:
        model = make(target(), learning_rate=1e-2, min_std=0.1, **ALONE)
        return float(np.exp(weights(model.learn_from(episodes, 300))["log_std"][0]))

    clear = record(Constant(1.5), target(), seeds=range(20))
    rng = np.random.default_rng(0)
    blurred = [
        replace(e, actions=(e.actions + rng.normal(0, 0.5, e.actions.shape)).clip(-1, 3))
        for e in clear
    ]
    assert noise(clear) == pytest.approx(0.2)  # min_std times the half-range of 2
    assert noise(blurred) == pytest.approx(0.5, rel=0.2)


def test_a_loaded_checkpoint_and_a_trained_model_learn_from_more():
    model = make().learn(12)
    labels = len(model.replay_buffer)
    file = io.BytesIO()
    model.save_checkpoint(file)
    model.learn_from(demonstrations(), gradient_steps=3)
    assert len(model.replay_buffer) == labels + 40
    file.seek(0)
    loaded = MPPIGPS.load(file, env=pendulum(), device="cpu")
    loaded.learn_from(demonstrations(), gradient_steps=3)
    assert same(weights(loaded), weights(model))
    model.learn(12, reset_num_timesteps=False)
    loaded.learn(12, reset_num_timesteps=False)
    assert same(weights(loaded), weights(model))


def test_demonstrations_of_another_env_and_models_without_one_are_refused():
    with pytest.raises(ValueError, match=r"observations of shape \(3,\), the env \(2,\)"):
        make(target()).learn_from(demonstrations())
    file = io.BytesIO()
    make().save(file)
    file.seek(0)
    with pytest.raises(ValueError, match="no env to learn in"):
        MPPIGPS.load(file, device="cpu").learn_from(demonstrations())


def test_plans_are_as_good_as_the_policy_beside_the_planner():
    alone, helped = make(), make(expert_policy=SwingUp())
    returns = {}
    for name, model in {"alone": alone, "helped": helped}.items():
        engine = model._go_on_without_steps()
        states = engine.dynamics.initial_states(8, np.random.default_rng(0))
        returns[name] = engine.expert.label(states).best_returns
        own = engine.expert.cold_start(8)
    simulated = helped._engine.dynamics.rollout(
        states, np.zeros((8, 1, *own.shape[1:]))
    ).rewards.sum(axis=2)[:, 0]
    assert (returns["helped"] >= simulated).all()
    assert returns["helped"].mean() > returns["alone"].mean()


def test_steps_of_the_policy_beside_the_planner_are_counted():
    alone, helped = make().learn(8), make(expert_policy=SwingUp()).learn(8)
    assert helped.num_sim_steps > alone.num_sim_steps


def test_an_sb3_model_stands_beside_the_planner_and_is_not_saved_with_the_student():
    teacher = PPO("MlpPolicy", pendulum(), n_steps=8, batch_size=8, device="cpu")
    model = make(expert_policy=teacher).learn(8)
    file = io.BytesIO()
    model.save_checkpoint(file)
    file.seek(0)
    loaded = MPPIGPS.load(file, env=pendulum(), device="cpu", expert_policy=teacher)
    model.learn(16, reset_num_timesteps=False)
    loaded.learn(16, reset_num_timesteps=False)
    assert same(weights(loaded), weights(model))
    file.seek(0)
    assert MPPIGPS.load(file, device="cpu").expert_policy is None


def test_a_teacher_sees_what_it_was_trained_on():
    class Spy(PPO):
        seen: list[np.ndarray] = []  # noqa: RUF012

        def predict(self, observation, *args, **kwargs):
            self.seen.append(np.asarray(observation))
            return super().predict(observation, *args, **kwargs)

    kwargs = {"n_steps": 8, "batch_size": 8, "device": "cpu"}
    normal = VecNormalize(DummyVecEnv([pendulum]))
    normal.obs_rms.mean[:] = 100.0
    training = VecNormalize(pendulums(1))
    training.obs_rms.mean[:] = -100.0
    for teacher_env, least, most in ((normal, -10.0, -5.0), (pendulum(), -8.0, 8.0)):
        Spy.seen.clear()
        model = make(training, expert_policy=Spy("MlpPolicy", teacher_env, **kwargs))
        model._go_on_without_steps().expert.label(training.env_method("snapshot"))
        seen = np.concatenate(Spy.seen)
        assert seen.min() >= least and seen.max() <= most


def test_vec_normalize_counts_what_was_demonstrated():
    venv = VecNormalize(pendulums(1))  # which has seen a single observation so far
    episodes = demonstrations(4)
    model = make(venv, learning_rate=1e-2, **ALONE).learn_from(episodes, gradient_steps=300)
    shown = np.concatenate([e.observations[:-1] for e in episodes])
    np.testing.assert_allclose(venv.obs_rms.mean, shown.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(venv.obs_rms.var, shown.var(axis=0), rtol=0.1)
    seen = [replace(e, observations=venv.normalize_obs(e.observations)) for e in episodes]
    before = mean_error(model, seen)
    model.learn(64)
    seen = [replace(e, observations=venv.normalize_obs(e.observations)) for e in episodes]
    assert mean_error(model, seen) < before + 0.5
    frozen = VecNormalize(pendulums(1), training=False)
    make(frozen, **ALONE).learn_from(episodes, gradient_steps=1)
    assert frozen.obs_rms.count < 1


def test_labels_are_kept_as_the_env_shows_them():
    venv = VecNormalize(pendulums(1))
    episodes = demonstrations(1)
    model = make(venv, **ALONE).learn_from(episodes, gradient_steps=1)
    kept = model.replay_buffer.sample(50, 0, np.random.default_rng(0)).observations
    shown = episodes[0].observations
    assert all((np.abs(shown - one).sum(axis=1) == 0).any() for one in kept)
