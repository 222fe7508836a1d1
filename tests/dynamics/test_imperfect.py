"""Late actions against a plain queue, noisy observations against clear ones."""

from __future__ import annotations

import numpy as np
import pytest

from mppi_agent.dynamics.imperfect import ImperfectDynamics
from tests.gps.toy_envs import target_dynamics


@pytest.mark.parametrize("delay", [1, 3])
def test_late_actions_in_rollouts_and_simulations_equal_a_plain_queue(delay):
    nominal = target_dynamics()
    late = ImperfectDynamics(target_dynamics(), delay, 0.0)
    rng = np.random.default_rng(0)
    starts = nominal.initial_states(3, rng)
    actions = rng.uniform(-1, 3, (3, 1, 9, 1))
    arriving = np.stack([actions[:, 0, max(h - delay, 0)] for h in range(9)], axis=1)[:, None]
    expected = nominal.rollout(starts, arriving)
    np.testing.assert_array_equal(late.rollout(starts, actions).rewards, expected.rewards)
    simulations = late.simulations(3)
    for _ in range(2):  # a restore forgets what was under way
        simulations.restore(starts)
        for h in range(9):
            order = np.array([2, 0, 1])
            rewards = simulations.step(actions[order, 0, h], order).rewards
            np.testing.assert_array_equal(rewards, expected.rewards[order, 0, h])


def test_noise_is_on_what_a_policy_sees_and_nowhere_else():
    clear, noisy = target_dynamics(), ImperfectDynamics(target_dynamics(), 0, 0.5, seed=1)
    num = 4000
    starts = clear.initial_states(1, np.random.default_rng(0)) * num
    steps = []
    for dynamics in (clear, noisy, noisy):
        simulations = dynamics.simulations(num)
        simulations.restore(starts)
        steps.append(simulations.step(np.ones((num, 1))))
        carried_on = simulations.step(np.zeros((num, 1)))
        np.testing.assert_array_equal(carried_on.rewards, carried_on.rewards[0])
    noise = steps[1].observations - steps[0].observations
    assert steps[1].observations.dtype == steps[0].observations.dtype
    # 8,000 normal numbers; five standard errors are passed by chance once in a million runs.
    assert abs(noise.mean()) < 5 * 0.5 / np.sqrt(noise.size)
    assert abs(noise.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * noise.size)
    assert (steps[1].observations != steps[2].observations).any()
    np.testing.assert_array_equal(steps[1].rewards, steps[0].rewards)
