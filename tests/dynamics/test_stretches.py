"""Rollouts of many steps per call are the same as rollouts step by step."""

from __future__ import annotations

import numpy as np
import pytest
from rollout_cases import make, many_actions, mid_episode

from mppi_agent.dynamics import MujocoBatchDynamics, stretches
from mppi_agent.dynamics.physics import Physics
from mppi_agent.dynamics.rollout import open_loop_rollout, validate_rollout


def assert_same(one, other):
    for name in one.__dataclass_fields__:
        np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("most_numbers", [1, 20_000, 2**20])
@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Hopper-v5", "Reacher-v5"])
def test_any_stretch_gives_what_single_steps_give(env_id, most_numbers, keep, monkeypatch):
    monkeypatch.setattr(stretches, "_MOST_NUMBERS", most_numbers)
    env = make(env_id)
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    states = [mid_episode(env, 5, seed=1), env.snapshot()]
    actions = validate_rollout(states, many_actions(env.action_space, 2), env.action_space)
    simulations = dynamics.simulations(12)
    stepped = open_loop_rollout(simulations, states, actions, keep_observations=keep)
    assert_same(dynamics.rollout(states, actions, keep_observations=keep), stepped)
    assert stepped.terminated.any() == (env_id != "Reacher-v5")


def test_one_state_or_one_sample_is_no_special_case():
    env = make("Ant-v5", healthy_z_range=(0.6, 1.0))
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    states, actions = [mid_episode(env, 3, seed=1)], many_actions(env.action_space, 1)[:, :, :25]
    both = dynamics.rollout(states, actions)  # makes six simulations
    one = dynamics.rollout(states, actions[:, 2:3])
    for name in ("rewards", "lengths", "terminated", "final_observations"):
        np.testing.assert_array_equal(getattr(one, name)[:, 0], getattr(both, name)[:, 2])
    assert both.terminated.any()


def test_a_broken_simulation_leaves_the_others_as_they_are():
    env = make("HalfCheetah-v5")
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    state = env.snapshot()
    env.unwrapped.data.qvel[:] = 100.0  # breaks in the second step
    actions = many_actions(env.action_space, 2, num_steps=20)
    batch = dynamics.rollout([state, env.snapshot()], actions, keep_observations=True)
    alone = dynamics.rollout([state], actions[:1], keep_observations=True)
    np.testing.assert_array_equal(batch.observations[0], alone.observations[0])
    np.testing.assert_array_equal(batch.rewards[0], alone.rewards[0])
    assert not batch.diverged[0].any()
    assert batch.diverged[1].all() and (batch.lengths[1] == 2).all()


@pytest.fixture
def calls(monkeypatch):
    """Collect the control steps of each call of the simulator."""
    steps = []
    run = Physics.run

    def counted(self, controls, *arguments):
        steps.append(controls.shape[1])
        return run(self, controls, *arguments)

    monkeypatch.setattr(Physics, "run", counted)
    return steps


def test_few_calls_of_the_simulator_serve_a_plan_and_one_once_it_is_known_that_none_ends(calls):
    env = make("HalfCheetah-v5")
    actions = np.zeros((1, 64, 40, 6), dtype=np.float32)
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    first = dynamics.rollout([env.snapshot()], actions)
    assert sum(calls) == 40 and len(calls) <= 6
    calls.clear()
    assert_same(dynamics.rollout([env.snapshot()], actions), first)
    assert calls == [40]


def test_stretches_are_shorter_where_simulations_end_often(calls):
    env = make("InvertedPendulum-v5")
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    pushed = np.random.default_rng(0).uniform(-0.6, 0.6, (1, 64, 20, 1)).astype(np.float32)
    first = dynamics.rollout([env.snapshot()], pushed)
    assert 0.2 < first.terminated.mean() < 0.9
    calls.clear()
    assert_same(dynamics.rollout([env.snapshot()], pushed), first)
    assert max(calls) < 10
