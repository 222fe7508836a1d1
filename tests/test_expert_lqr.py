"""An expert that takes derivatives: it keeps what sampling loses, and says where it cannot."""

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent import Cloneable, MPPIAgent, MPPIConfig
from mppi_agent.dynamics import MujocoBatchDynamics

POLES = "InvertedDoublePendulum-v5"
SMALL = MPPIConfig(num_samples=8, iterations=1, horizon=30, noise_std=0.05, discount=1.0)
DERIVED = MPPIConfig(**{**vars(SMALL), "lqr_steps": 1})


def steps_until_the_fall(config, most=25):
    expert = MPPIAgent(POLES, config)
    observation, _ = expert.env.reset(seed=10001)
    for step in range(most):
        action, _ = expert.predict(observation)
        observation, _, terminated, _, _ = expert.env.step(action)
        if terminated:
            return step + 1
    return most


def test_derivatives_keep_poles_up_that_as_few_samples_drop():
    assert steps_until_the_fall(SMALL) < 25
    assert steps_until_the_fall(DERIVED) == 25


def test_plans_do_not_depend_on_the_number_of_threads():
    env = Cloneable(gym.make(POLES))
    env.reset(seed=0)
    plans = []
    for num_threads in (1, 2):
        dynamics = MujocoBatchDynamics(env, num_threads=num_threads)
        expert = MPPIAgent(env, DERIVED, dynamics=dynamics)
        plans.append(expert.label([env.snapshot()]).controls)
        expert.close()
    assert np.array_equal(*plans)


def test_labels_of_several_states_are_those_of_each_and_the_env_stays():
    expert = MPPIAgent("Pendulum-v1", MPPIConfig(horizon=8, num_samples=8, lqr_steps=1))
    expert.env.reset(seed=0)
    before = expert.states()[0].physics
    states = expert._dynamics.initial_states(2, np.random.default_rng(0))
    improved, _ = expert._planner._lqr.improve(states, expert.cold_start(2))
    for state, controls in zip(states, improved, strict=True):
        alone, _ = expert._planner._lqr.improve([state], expert.cold_start(1))
        assert np.array_equal(alone[0], controls)
    plan = expert.label(states)
    assert (plan.best_returns >= plan.nominal_returns).all()
    assert np.array_equal(expert.states()[0].physics, before)


def test_categories_have_no_derivative():
    with pytest.raises(ValueError, match=r"lqr_steps=1 takes derivatives, and action_space=Discre"):
        MPPIAgent("CartPole-v1", MPPIConfig(lqr_steps=1))


def test_plans_that_follow_a_policy_have_none():
    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((len(observation), 1), np.float32), None

    with pytest.raises(ValueError, match=r"lqr_steps=1 needs .* sequences of controls"):
        MPPIAgent("Pendulum-v1", MPPIConfig(lqr_steps=1), policy=Still())
    MPPIAgent("Pendulum-v1", MPPIConfig(lqr_steps=1), policy=Still(), policy_leads=False).close()
