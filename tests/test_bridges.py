"""To PPO, SAC and their kin: nothing is lost on the way, and learning goes on."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mppi_agent import MPPIGPS, Cloneable, MPPIAgent, MPPIConfig
from mppi_agent.bridges import fill_replay_buffer, to_ppo
from mppi_agent.demonstrations import Demonstration, record


class Target(gym.Env):
    """Pays for actions near 1.5 of [-1, 3]."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), dtype=np.float32)
    action_space = spaces.Box(-1.0, 3.0, (1,), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1)
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x = 0.9 * self.x + 0.1 * float(np.clip(action[0] - 1.0, -1, 1))
        reward = -((float(action[0]) - 1.5) ** 2)
        return np.array([self.x], np.float32), reward, False, False, {}


class Uniform:
    """Acts at random between the bounds."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.rng.uniform(-1, 3, 1).astype(np.float32), state


gym.register("BridgeTarget-v0", Target, max_episode_steps=20)


def episode(num: int, terminated: bool, start: float = 0.0) -> Demonstration:
    ramp = start + np.arange(num + 1, dtype=np.float32)[:, None] / 100
    actions = np.linspace(-1, 3, num, dtype=np.float32)[:, None]
    return Demonstration(
        observations=ramp, actions=actions, terminated=terminated, rewards=np.arange(float(num))
    )


def small_sac(algorithm=SAC, n_envs: int = 1, **kwargs):
    env = make_vec_env("BridgeTarget-v0", n_envs, seed=0)
    settings = {"buffer_size": 1000, "learning_rate": 3e-3, "policy_kwargs": {"net_arch": [32]}}
    return algorithm("MlpPolicy", env, seed=0, device="cpu", **settings | kwargs)


def test_a_buffer_holds_what_the_algorithm_itself_would_have_stored():
    own = small_sac(learning_starts=1000).learn(40)
    stored = own.replay_buffer
    env = gym.make("BridgeTarget-v0")
    actions = own.policy.unscale_action(stored.actions[:40, 0])
    episodes = []
    for first in (0, 20):
        last = stored.next_observations[first + 19, 0]
        episodes.append(
            Demonstration(
                observations=np.concatenate([stored.observations[first : first + 20, 0], [last]]),
                actions=actions[first : first + 20],
                rewards=stored.rewards[first : first + 20, 0],
                terminated=False,
            )
        )
    filled = small_sac().replay_buffer
    assert fill_replay_buffer(filled, episodes) == 40
    assert filled.pos == stored.pos == 40
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        np.testing.assert_allclose(
            getattr(filled, name)[:40], getattr(stored, name)[:40], atol=1e-6, err_msg=name
        )
    env.close()


def test_ends_are_ends_and_time_limits_are_bootstrapped():
    buffer = small_sac().replay_buffer
    fill_replay_buffer(buffer, [episode(3, terminated=True), episode(2, terminated=False)])
    np.testing.assert_array_equal(buffer.dones[:5, 0], [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(buffer.timeouts[:5, 0], [0, 0, 0, 0, 1])
    np.testing.assert_allclose(buffer.actions[:3, 0, 0], [-1, 0, 1])
    np.testing.assert_allclose(buffer.next_observations[2, 0], [0.03])


def test_a_buffer_for_several_envs_gets_a_stretch_of_steps_for_each():
    buffer = small_sac(n_envs=2).replay_buffer
    parts = [episode(3, terminated=True), episode(4, terminated=False, start=0.5)]
    assert fill_replay_buffer(buffer, parts) == 6  # the seventh has no partner
    np.testing.assert_allclose(buffer.observations[:3, 0, 0], [0, 0.01, 0.02])
    np.testing.assert_allclose(buffer.observations[:3, 1, 0], [0.5, 0.51, 0.52], atol=1e-6)
    np.testing.assert_array_equal(buffer.dones[:3], [[0, 0], [0, 0], [1, 1]])
    np.testing.assert_array_equal(buffer.timeouts[:3], [[0, 0], [0, 0], [0, 1]])


def test_sac_learns_offline_from_what_a_buffer_was_filled_with():
    env = gym.make("BridgeTarget-v0")
    model = small_sac(ent_coef=0.01, gamma=0.5)
    fill_replay_buffer(model.replay_buffer, record(Uniform(0), env, seeds=range(30)))
    model.set_logger(configure(None, []))
    states = np.linspace(-0.8, 0.8, 9, dtype=np.float32)[:, None]
    before = np.abs(model.predict(states, deterministic=True)[0] - 1.5).mean()
    model.train(gradient_steps=400, batch_size=128)
    after = np.abs(model.predict(states, deterministic=True)[0] - 1.5).mean()
    assert after < 0.25 < before
    env.close()


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_learning_goes_on_from_the_planners_episodes(algorithm):
    expert = MPPIAgent("Pendulum-v1", MPPIConfig(num_samples=8, horizon=5, iterations=1, elites=2))
    env = gym.wrappers.TimeLimit(expert.env, 15)
    env.spec.max_episode_steps = 15
    episodes = record(expert, env, seeds=(0, 1), deterministic=False)
    kwargs = {"learning_starts": 0, "buffer_size": 100, "policy_kwargs": {"net_arch": [16]}}
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **kwargs)
    assert fill_replay_buffer(model.replay_buffer, episodes) == 30
    weights = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(5)
    assert model.replay_buffer.size() == 35
    assert any(not th.equal(v, weights[n]) for n, v in model.policy.state_dict().items())
    expert.close()


def test_dict_observations_and_discrete_actions_are_filled_in_too():
    spec = {"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (1,))}
    pole = DQN("MlpPolicy", "CartPole-v1", buffer_size=50, device="cpu")
    steps = Demonstration(
        observations=np.zeros((4, 4), np.float32),
        actions=np.array([0, 1, 1]),
        terminated=True,
        rewards=np.ones(3),
    )
    assert fill_replay_buffer(pole.replay_buffer, [steps]) == 3
    np.testing.assert_array_equal(pole.replay_buffer.actions[:3, 0, 0], [0, 1, 1])
    env = gym.wrappers.TransformObservation(
        gym.make("BridgeTarget-v0"),
        lambda o: {"a": np.repeat(o, 2), "b": o},
        spaces.Dict(spec),
    )
    (seen,) = record(Uniform(0), env, seeds=(0,))
    model = SAC("MultiInputPolicy", env, buffer_size=50, device="cpu")
    fill_replay_buffer(model.replay_buffer, [seen])
    stored = model.replay_buffer.next_observations["b"][:20, 0]
    np.testing.assert_array_equal(stored, seen.observations["b"][1:])


def test_what_no_buffer_takes_is_refused_with_the_cure():
    buffer = small_sac(buffer_size=4).replay_buffer
    with pytest.raises(ValueError, match=r"5 steps do not fit into a buffer of 4.*buffer_size"):
        fill_replay_buffer(buffer, [episode(5, terminated=True)])
    with pytest.raises(ValueError, match="no rewards"):
        fill_replay_buffer(buffer, [replace(episode(3, terminated=True), rewards=None)])
    with pytest.raises(ValueError, match="actions outside of Box"):
        wild = episode(3, terminated=True)
        fill_replay_buffer(buffer, [replace(wild, actions=2 * wild.actions)])
    rollouts = RolloutBuffer(4, Target.observation_space, Target.action_space, "cpu")
    with pytest.raises(TypeError, match=r"got a RolloutBuffer.*model\.replay_buffer"):
        fill_replay_buffer(rollouts, [episode(3, terminated=True)])


@pytest.fixture(scope="module")
def trained():
    model = MPPIGPS(
        "MlpPolicy",
        gym.make("Pendulum-v1", max_episode_steps=20),
        num_simulations=16,
        simulation_steps=8,
        n_steps=8,
        eval_episodes=2,
        expert_episodes=0,
        label_states=0,
        gamma=0.95,
        policy_kwargs={"net_arch": {"pi": [16], "vf": [16]}},
        seed=0,
        device="cpu",
    )
    return model.learn(32)


def test_ppo_begins_where_the_model_ended(trained):
    ppo = to_ppo(trained, "Pendulum-v1", n_steps=64, seed=0)
    observations = gym.make("Pendulum-v1").observation_space.sample()[None].repeat(3, axis=0)
    one, other = trained.policy, ppo.policy
    tensor = th.as_tensor(observations)
    assert th.equal(
        one.get_distribution(tensor).distribution.mean,
        other.get_distribution(tensor).distribution.mean,
    )
    assert th.equal(one.predict_values(tensor), other.predict_values(tensor))
    assert th.equal(one.log_std, other.log_std)
    assert (ppo.gamma, ppo.gae_lambda) == (0.95, trained.gae_lambda)
    before = {name: value.clone() for name, value in one.state_dict().items()}
    ppo.learn(64)
    assert all(th.equal(value, before[name]) for name, value in one.state_dict().items())
    assert not th.equal(one.action_net.weight, other.action_net.weight)
    normalizer = other.features_extractor.normalizer
    assert th.equal(normalizer.mean, one.features_extractor.normalizer.mean)


def test_settings_of_the_users_own_take_the_place_of_ours(trained):
    ppo = to_ppo(trained, "Pendulum-v1", learning_rate=1e-5, target_kl=None, gamma=0.9)
    assert (ppo.learning_rate, ppo.target_kl, ppo.gamma) == (1e-5, None, 0.9)


def test_a_compiled_policy_is_handed_over(trained):
    plain = trained.policy
    trained.policy = th.compile(plain)
    try:
        ppo = to_ppo(trained, "Pendulum-v1")
    finally:
        trained.policy = plain
    assert th.equal(ppo.policy.action_net.weight, plain.action_net.weight)


def test_ppo_under_other_wrappers_is_refused_with_the_cure(trained):
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        to_ppo(trained, "MountainCarContinuous-v0")
    venv = make_vec_env("Pendulum-v1")
    with pytest.raises(ValueError, match="norm_reward=False"):
        to_ppo(trained, VecNormalize(venv))
    with pytest.raises(ValueError, match="wrappers and the statistics"):
        to_ppo(trained, VecNormalize(venv, norm_reward=False))


def test_a_model_trained_under_vec_normalize_keeps_its_statistics(trained):
    def make():
        return Cloneable(gym.make("Pendulum-v1", max_episode_steps=20))

    venv = VecNormalize(DummyVecEnv([make]), norm_reward=False)
    model = MPPIGPS("MlpPolicy", venv, num_simulations=4, device="cpu")
    assert isinstance(to_ppo(model, venv), PPO)
    venv.obs_rms.update(np.full((9, 3), 5.0))
    fresh = VecNormalize(DummyVecEnv([make]), norm_reward=False)
    with pytest.raises(ValueError, match="wrappers and the statistics"):
        to_ppo(model, fresh)
    model.env = None  # as after `load` without one
    with pytest.raises(ValueError, match=r"load it with MPPIGPS.load\(path, env=env\)"):
        to_ppo(model, venv)
    model.env = venv
    with pytest.raises(ValueError, match="wrappers and the statistics"):
        to_ppo(model, "Pendulum-v1")
