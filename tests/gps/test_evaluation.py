"""Whole episodes in simulation: returns and the value head against hand-computed ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from toy_envs import CutsItself, Target, make_policy, make_target, target_dynamics

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import EnvStepDynamics
from mppi_agent.gps.evaluation import _explained, evaluate
from mppi_agent.gps.view import PolicyView
from mppi_agent.interfaces import StepBatch


def test_returns_equal_those_of_the_env_itself():
    policy, env = make_policy(), make_target(limit=7)
    dynamics, view = target_dynamics(), PolicyView(None, env.action_space)
    states = dynamics.initial_states(3, np.random.default_rng(0))
    result = evaluate(policy, view, dynamics.simulations(3), states, 7)
    assert result.num_cut == 3
    expected = []
    for state in states:
        env.reset(seed=0)
        env.restore(state)
        total, done, seen = 0.0, False, state.observation
        for _ in range(7):
            action, _ = policy.predict(seen, deterministic=True)
            seen, reward, done, _, _ = env.step(action)
            total += float(reward)
            if done:
                break
        expected.append(total)
    np.testing.assert_allclose(result.returns, expected, rtol=1e-5)


def test_values_that_are_the_discounted_returns_explain_all_of_them():
    rewards = np.array([[1.0, 5.0], [2.0, 0.0], [3.0, 0.0]])  # the second episode ends at once
    visited = np.array([[True, True], [True, False], [True, False]])
    after = 4.0  # what the value head says follows the time limit
    beyond, values = np.zeros((2, 3, 2))
    beyond[2, 0] = after
    values[:, 0] = [1 + 0.5 * (2 + 0.5 * (3 + 0.5 * after)), 2 + 0.5 * (3 + 0.5 * after), 5.0]
    values[0, 1] = 5.0
    assert _explained(rewards, values, beyond, visited, discount=0.5) == 1.0
    values[:] = np.mean([*values[:, 0], 5.0])
    explained = _explained(rewards, values, beyond, visited, discount=0.5)
    np.testing.assert_allclose(explained, 0.0, atol=1e-12)


def test_an_episode_that_the_env_cuts_ends_there_and_the_value_head_says_what_follows():
    policy, (own, limited) = make_policy(), (CutsItself(Target(), 5), Target())
    explained, returns = [], []
    for env, most_steps in ((own, 100), (limited, 5)):
        cloneable = Cloneable(env)
        cloneable.reset(seed=0)
        dynamics = EnvStepDynamics(cloneable)
        states = dynamics.initial_states(3, np.random.default_rng(0))
        view = PolicyView(None, env.action_space)
        result = evaluate(policy, view, dynamics.simulations(3), states, most_steps, discount=0.9)
        assert result.sim_steps == 3 * 5
        returns.append(result.returns)
        explained.append(result.value_r2)
    np.testing.assert_array_equal(*returns)
    assert explained[0] == explained[1]


def test_to_break_the_simulation_is_never_better_than_to_go_on():
    policy, env = make_policy(), make_target()
    view = PolicyView(None, env.action_space)

    def returns(breaks: list[bool]) -> np.ndarray:
        dynamics = target_dynamics(offset=-5.0)  # each step costs
        simulations = dynamics.simulations(3)
        step = simulations.step
        simulations.step = lambda *args: broken(step(*args), np.array(breaks))
        states = dynamics.initial_states(3, np.random.default_rng(0))
        return evaluate(policy, view, simulations, states, 7).returns

    def broken(batch: StepBatch, breaks: np.ndarray) -> StepBatch:
        first = len(batch.diverged) == 3
        return replace(batch, diverged=breaks) if first else batch

    sound = returns([False] * 3)
    assert (sound < -5.0).all()
    np.testing.assert_array_equal(returns([True, False, False]), [sound[1:].min(), *sound[1:]])
    np.testing.assert_array_equal(returns([True] * 3), [-np.inf] * 3)
