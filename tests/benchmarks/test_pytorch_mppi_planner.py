from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np
import pytest
from pytorch_mppi_planner import PytorchMPPI, plan_seconds

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import make_dynamics
from mppi_agent.expert import action_scaling
from mppi_agent.planning import discounted_returns

HORIZON, NUM = 20, 32


@pytest.fixture
def pole():
    env = Cloneable(gym.make("InvertedPendulum-v5"))
    env.reset(seed=0)
    dynamics = make_dynamics(env, num_workers=1)
    yield env.snapshot(), dynamics, action_scaling(env.action_space)
    dynamics.close()


def test_its_costs_are_the_returns_of_the_rollouts_terminations_included(pole):
    pytest.importorskip("pytorch_mppi")
    state, dynamics, scaling = pole
    strength = np.linspace(0.0, 1.0, NUM)[:, None, None]  # weak ones keep the pole up
    noise = np.random.default_rng(0).normal(size=(NUM, HORIZON, 1))
    samples = np.clip(strength * noise, -1, 1)
    planner = PytorchMPPI(dynamics.simulations(NUM), scaling, HORIZON, samples=samples)
    before = planner.mppi.get_action_sequence().numpy().copy()
    for _ in range(2):  # the simulations start anew in each call
        planner.mppi.U[:] = planner.mppi.U.new_tensor(before)
        controls = planner.act(state, shift=False)
    rollout = dynamics.rollout([state], scaling.to_env(samples[None]))
    assert 0 < rollout.terminated.sum() < NUM
    returns = discounted_returns(rollout, discount=1.0)[0]
    # Williams et al. 2017: the cost of a sample's noise, at temperature and covariance 1.
    costs = -returns + (before * (samples - before)).sum(axis=(1, 2))
    np.testing.assert_allclose(planner.mppi.cost_total.numpy(), costs)
    weights = np.exp(costs.min() - costs)
    weights /= weights.sum()
    np.testing.assert_allclose(controls, np.clip(weights @ samples[:, 0], -1, 1))
    assert planner.sim_steps == 2 * rollout.sim_steps


def test_it_repeats_itself_with_the_same_seed(pole):
    pytest.importorskip("pytorch_mppi")
    state, dynamics, scaling = pole

    def acts(seed):
        planner = PytorchMPPI(
            dynamics.simulations(NUM), scaling, HORIZON, seed=seed, noise_std=0.5, temperature=0.1
        )
        return [float(planner.act(state)[0]) for _ in range(2)]

    assert acts(0) == acts(0) != acts(1)


def test_plans_are_timed_side_by_side():
    pytest.importorskip("pytorch_mppi")
    seconds = plan_seconds("InvertedPendulum-v5", threads=1, rounds=2, num_samples=8, horizon=4)
    assert list(seconds) == ["ours", "batch", "naive"]
    assert all(len(values) == 2 and (values > 0).all() for values in seconds.values())


def test_without_the_package_the_error_says_what_to_install(pole, monkeypatch):
    _, dynamics, scaling = pole
    monkeypatch.setitem(sys.modules, "pytorch_mppi", None)
    with pytest.raises(ImportError, match="pip install pytorch_mppi"):
        PytorchMPPI(dynamics.simulations(NUM), scaling, HORIZON)
