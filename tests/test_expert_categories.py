"""The expert where actions are categories: Discrete and MultiDiscrete spaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import EnvStepDynamics
from mppi_agent.expert import MPPIAgent
from mppi_agent.planning import MPPIConfig

CONFIG = MPPIConfig(num_samples=16, horizon=10, iterations=2, elites=2)


class Dials(gym.Env):
    """Turn each dial to its own moving target; the reward counts the dials that fit."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), dtype=np.float32)

    def __init__(self, action_space: gym.Space) -> None:
        self.action_space = action_space
        self.clock = 0

    def reset(self, *, seed: int | None = None, options: Any = None):
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(1, np.float32), {}

    def targets(self) -> np.ndarray:
        """Return the action that fits now."""
        space: Any = self.action_space
        counts = space.n if isinstance(space, gym.spaces.Discrete) else space.nvec
        return space.start + self.clock % counts

    def step(self, action):
        assert self.action_space.contains(action)
        reward = float(np.sum(action == self.targets()))
        self.clock += 1
        return np.full(1, self.clock, np.float32), reward, False, False, {}


def make_env(env_id: str = "CartPole-v1", **kwargs: Any) -> Cloneable:
    env = Cloneable(gym.make(env_id, **kwargs))
    env.reset(seed=0)
    return env


def test_cart_pole_stays_up():
    env = make_env(max_episode_steps=100)
    mean, _ = evaluate_policy(MPPIAgent(env, CONFIG), env, n_eval_episodes=1, warn=False)
    assert mean == 100.0  # random actions keep it up for about 22 steps


def test_the_frozen_lake_is_crossed():
    env = make_env("FrozenLake-v1", is_slippery=False)
    config = MPPIConfig(num_samples=128, horizon=10)  # a shortest path has 6 steps
    expert = MPPIAgent(env, config, dynamics=EnvStepDynamics(env))
    mean, _ = evaluate_policy(expert, env, n_eval_episodes=1, warn=False)
    assert mean == 1.0


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(3, start=-4),
        gym.spaces.MultiDiscrete([2, 3]),
        gym.spaces.MultiDiscrete([[2, 3], [2, 1]], start=[[5, 0], [0, 7]]),
    ],
)
def test_each_choice_of_any_space_is_planned(space):
    env = Cloneable(Dials(space))
    observation, _ = env.reset(seed=0)
    expert = MPPIAgent(
        env,
        MPPIConfig(num_samples=64, horizon=3, mean_preference=0.0),
        dynamics=EnvStepDynamics(env),
    )
    for _ in range(3):
        action, _ = expert.predict(observation)
        np.testing.assert_array_equal(action, env.unwrapped.targets())
        observation, *_ = env.step(action)
    batched, _ = expert.predict(observation[None])
    assert batched.shape == (1, *space.shape)


def test_noise_takes_other_actions_that_exist_unless_deterministic():
    calm, noisy, again = (MPPIAgent(make_env(), CONFIG, seed=1) for _ in range(3))
    taken = []
    for _ in range(30):
        observation = calm.env.last_observation
        calm_action, _ = calm.predict(observation)
        actions = [one.predict(observation, deterministic=False)[0] for one in (noisy, again)]
        assert actions[0] == actions[1] and calm.env.action_space.contains(actions[0])
        taken.append((int(calm_action), int(actions[0])))
        for expert in (calm, noisy, again):
            expert.env.step(calm_action)
    assert any(one != other for one, other in taken) and any(one == other for one, other in taken)


@pytest.mark.parametrize(("model_class", "settings"), [(DQN, {"buffer_size": 10}), (PPO, {})])
def test_the_plan_is_never_worse_than_an_sb3_policy_itself(model_class, settings):
    model = model_class("MlpPolicy", "CartPole-v1", seed=0, device="cpu", **settings)
    env, judge = make_env(), make_env()
    expert = MPPIAgent(env, CONFIG, policy=model)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        judge.restore(env.snapshot())
        seen, own = observation, 0.0
        for h in range(CONFIG.horizon):
            action, _ = model.predict(seen, deterministic=True)
            seen, reward, terminated, *_ = judge.step(action)
            own += CONFIG.discount**h * float(reward)
            if terminated:
                break
        expert.predict(observation)
        np.testing.assert_allclose(expert.last_plan.nominal_returns, own)
        assert expert.last_plan.best_returns[0] >= own - 1e-9


def test_labels_and_vec_envs_work_alike():
    config = replace(CONFIG, horizon=15)
    venv = make_vec_env("CartPole-v1", 2, seed=0, wrapper_class=Cloneable)
    expert = MPPIAgent(venv, config)
    observations = venv.reset()
    actions, (nominals,) = expert.predict(observations)
    venv.step(actions)
    assert actions.shape == (2,) and nominals.shape == (2, config.horizon, 2)
    states = venv.env_method("snapshot")
    taken = expert.scaling.to_normalised(np.ones((2, config.horizon), dtype=int))
    plan = expert.label(states, taken)
    pushed = [push_right(state, config) for state in states]
    np.testing.assert_allclose(plan.nominal_returns, pushed)
    assert (plan.best_returns > plan.nominal_returns).all()


def push_right(state: Any, config: MPPIConfig) -> float:
    """Return what pushing right all the time earns from `state`, by env steps."""
    env, total = make_env(), 0.0
    env.restore(state)
    for h in range(config.horizon):
        _, reward, terminated, *_ = env.step(1)
        total += config.discount**h * float(reward)
        if terminated:
            break
    return total
