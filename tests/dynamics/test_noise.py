"""Plans for an env with noise: what foreseeing it does, and what resampling mends."""

from __future__ import annotations

from contextlib import closing

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable, ReplayAdapter
from mppi_agent.cloning.noise import drawn_from, noise_ahead, with_noise
from mppi_agent.dynamics import EnvStepDynamics, ProcessPoolDynamics, make_dynamics
from mppi_agent.dynamics.ensemble import EnsembleDynamics
from mppi_agent.dynamics.imperfect import ImperfectDynamics
from mppi_agent.dynamics.noise import ResampledDynamics, nominal_model, resample_noise
from mppi_agent.dynamics.rollout import resume_simulations
from mppi_agent.planning import MPPI, BoxScaling, MPPIConfig

HORIZON = 5


class Bet(gym.Env):
    """Pays action times noise, less a fee: the best that an honest player can do is nothing."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), dtype=np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action):
        drawn = self.np_random.normal()
        return np.array([drawn]), float(action[0] * drawn - fee(action[0])), False, False, {}


gym.register("Bet-v0", Bet)


def fee(action):
    return 0.3 * np.square(action)


@pytest.fixture
def env():
    env = Cloneable(Bet())
    env.reset(seed=0)
    return env


def ones(num: int) -> np.ndarray:
    return np.ones((1, num, HORIZON, 1))


def test_noise_is_noticed_where_steps_draw_it(env):
    assert drawn_from(env) == {"np_random"}
    assert not drawn_from(Cloneable(gym.make("Pendulum-v1")))  # draws in reset only
    assert not drawn_from(Cloneable(gym.make("CartPole-v1")))
    before = noise_ahead(env.snapshot())
    drawn_from(env)
    assert noise_ahead(env.snapshot()) == before


class OwnGenerator(Bet):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.rng = np.random.default_rng(int(self.np_random.integers(2**31)))
        return np.zeros(1), {}

    def step(self, action):
        drawn = self.rng.normal()
        return np.array([drawn]), float(action[0] * drawn - fee(action[0])), False, False, {}


def test_noise_that_plans_foresee_is_warned_of():
    env = Cloneable(OwnGenerator())
    env.reset(seed=0)
    assert drawn_from(env) == {"rng"}
    with pytest.warns(UserWarning, match="OwnGenerator draw from rng, .* from self.np_random"):
        make_dynamics(env, num_workers=1).close()


def test_other_noise_is_a_copy_of_the_state_with_another_generator(env):
    state = env.snapshot()
    kept = noise_ahead(state)
    ahead = [noise_ahead(with_noise(state, seed)) for seed in (1, 2, 1)]
    assert ahead[0] == ahead[2] != ahead[1]
    assert noise_ahead(state) == kept
    env.unwrapped.np_random = np.random.RandomState(3)  # as older envs have it
    old = env.snapshot()
    assert noise_ahead(with_noise(old, 2**100)) not in (noise_ahead(old), kept)
    env.restore(with_noise(old, 7))
    drawn = env.step(np.ones(1))[0]
    env.restore(with_noise(old, 7))
    np.testing.assert_array_equal(env.step(np.ones(1))[0], drawn)


def test_each_sample_draws_its_own_noise_of_the_right_kind(env):
    num = 1000
    oracle = EnvStepDynamics(env)
    foreseen = oracle.rollout([env.snapshot()], ones(num), keep_observations=True)
    assert (foreseen.rewards == foreseen.rewards[:, :1]).all()
    drawn = ResampledDynamics(oracle).rollout([env.snapshot()], ones(num), keep_observations=True)
    noise = drawn.observations[0, :, :, 0]
    assert len(np.unique(noise)) == noise.size
    np.testing.assert_allclose(drawn.rewards[0], noise - fee(1.0))
    # 5,000 standard normal numbers: each bound is 5 standard errors, so that all three together
    # fail by chance in one run of 300,000.
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)
    assert abs((noise[1:] * noise[:-1]).mean()) < 5 / np.sqrt(noise.size - HORIZON)


def test_rollouts_are_a_function_of_their_arguments_at_any_number_of_workers(env):
    states = [env.snapshot()]
    env.step(np.ones(1))
    states.append(env.snapshot())
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 6, HORIZON, 1))
    dynamics = ResampledDynamics(EnvStepDynamics(env))
    rewards = dynamics.rollout(states, actions).rewards
    np.testing.assert_array_equal(dynamics.rollout(states, actions).rewards, rewards)
    for s in range(2):
        alone = dynamics.rollout(states[s : s + 1], actions[s : s + 1]).rewards
        np.testing.assert_array_equal(alone[0], rewards[s])
    with ProcessPoolDynamics(env, 2) as pool:
        np.testing.assert_array_equal(
            ResampledDynamics(pool).rollout(states, actions).rewards, rewards
        )
    other = ResampledDynamics(EnvStepDynamics(env), stream=1).rollout(states, actions).rewards
    assert (other != rewards).all()


def test_simulations_of_one_state_part_ways(env):
    dynamics = ResampledDynamics(EnvStepDynamics(env))
    simulations = dynamics.simulations(3)
    seen = []
    for _ in range(2):
        simulations.restore([env.snapshot()] * 3)
        seen.append([simulations.step(np.ones((3, 1))).rewards for _ in range(2)])
    np.testing.assert_array_equal(seen[0], seen[1])
    assert len(np.unique(seen[0])) == 6
    carried = simulations.snapshot(np.array([1]))
    assert carried[0].observation[0] - fee(1.0) == seen[1][1][1]
    with pytest.raises(ValueError, match="3 simulations need as many states, got 1"):
        simulations.restore(carried)


def plan_and_judge(env: Cloneable, draws: int) -> tuple[float, float]:
    """Return what plans promise and what they are worth, on average over ten states."""
    dynamics = resample_noise(EnvStepDynamics(env), draws)
    config = MPPIConfig(num_samples=32, horizon=HORIZON, iterations=4)
    planner = MPPI(config, dynamics, BoxScaling(-np.ones(1), np.ones(1)))
    states = dynamics.initial_states(10, np.random.default_rng(0))
    nominals = np.zeros((10, 1, HORIZON, 1))
    plan = planner.plan(states, nominals, np.random.default_rng(0))
    worth = -fee(plan.controls).sum(axis=(1, 2))
    return float(plan.best_returns.mean()), float(worth.mean())


def test_a_clairvoyant_planner_promises_what_it_cannot_keep():
    env = Cloneable(Bet())
    env.reset(seed=0)
    judged = {draws: plan_and_judge(env, draws) for draws in (0, 1, 10)}
    optimism = {draws: promise - worth for draws, (promise, worth) in judged.items()}
    # Knowing each draw it bets on it and promises 2.6; played honestly these bets lose 0.6.
    promise, worth = judged[0]
    assert promise > 2.0 and worth < -0.5
    # With noise of its own for each sample only the luckiest sample still misleads.
    assert judged[1][1] > 0.6 * worth and optimism[1] < 0.7 * optimism[0]
    assert judged[10][1] > -0.25 and optimism[10] < 0.25 * optimism[0]


def test_make_dynamics_resamples_by_default_and_foresees_on_request(env):
    default = make_dynamics(env, num_workers=1)
    clairvoyant = make_dynamics(env, num_workers=1, noise_draws=0)
    state = env.snapshot()
    rewards = [d.rollout([state], ones(2)).rewards[0] for d in (default, clairvoyant)]
    assert (rewards[0][0] != rewards[0][1]).all()
    assert (rewards[1][0] == rewards[1][1]).all()
    for dynamics in (default, clairvoyant):
        dynamics.close()
    with pytest.raises(ValueError, match="draws must be >= 0"):
        make_dynamics(env, num_workers=1, noise_draws=-1)


def test_snapshots_of_resampled_simulations_of_a_replayed_env_are_of_what_they_show():
    env = Cloneable(gym.make("Bet-v0"), ReplayAdapter())
    env.reset(seed=0)
    start = env.snapshot()
    simulations = ResampledDynamics(EnvStepDynamics(env)).simulations(2)
    simulations.restore([start, start])
    seen = [simulations.step(np.ones((2, 1))).observations for _ in range(3)]
    assert not np.array_equal(*seen[-1])
    for state, shown in zip(simulations.snapshot(), seen[-1], strict=True):
        copy = env.private_copy()
        copy.restore(state)
        np.testing.assert_array_equal(state.observation, shown)
        ahead, again = env.private_copy(), env.private_copy()
        for one in (ahead, again):
            one.restore(state)
        np.testing.assert_array_equal(ahead.step(np.ones(1))[0], again.step(np.ones(1))[0])
        history = copy.unwrapped.step.__self__.history()
        assert len(history.actions) == 4  # one of them: from here on other noise


def test_simulations_are_resumed_with_the_noise_that_they_had_ahead(env):
    simulations = ResampledDynamics(EnvStepDynamics(env)).simulations(2)
    simulations.restore([env.snapshot()] * 2)
    simulations.step(np.ones((2, 1)))
    snapshots = simulations.snapshot()
    expected = simulations.step(np.ones((2, 1))).observations
    resume_simulations(simulations, snapshots)
    np.testing.assert_array_equal(simulations.step(np.ones((2, 1))).observations, expected)
    simulations.restore(snapshots)
    assert not np.array_equal(simulations.step(np.ones((2, 1))).observations, expected)


def test_simulations_of_several_draws_are_resumed_too(env):
    with closing(make_dynamics(env, num_workers=1, noise_draws=2)) as dynamics:
        simulations = dynamics.simulations(4)
        simulations.restore([env.snapshot()] * 4)
        simulations.step(np.ones((4, 1)))
        snapshots = simulations.snapshot()
        expected = simulations.step(np.ones((4, 1))).observations
        resume_simulations(simulations, snapshots)
        np.testing.assert_array_equal(simulations.step(np.ones((4, 1))).observations, expected)


def test_derivatives_are_taken_on_one_model_without_noise_of_its_own(env):
    oracle = EnvStepDynamics(env)
    members = [ImperfectDynamics(ResampledDynamics(oracle), 1, 0.0), ResampledDynamics(oracle, 1)]
    assert nominal_model(EnsembleDynamics(members)) is oracle
    assert nominal_model(ResampledDynamics(EnsembleDynamics(members))) is oracle
