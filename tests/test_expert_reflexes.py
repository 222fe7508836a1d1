"""An expert whose plans react."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from mppi_agent import Cloneable, MPPIAgent, MPPIConfig
from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics
from mppi_agent.dynamics.rollout import closed_loop_rollout

POLE = "InvertedPendulum-v5"
# Long enough that some samples fall: where none does, returns tie and the nominal stays.
CONFIG = MPPIConfig(num_samples=12, horizon=40, iterations=1, noise_std=0.4, reflex_std=0.5)


def walk(expert, steps, seed=3):
    observation, _ = expert.env.reset(seed=seed)
    rewards = []
    for _ in range(steps):
        action, _ = expert.predict(observation)
        observation, reward, *_ = expert.env.step(action)
        rewards.append(reward)
    return np.array(rewards)


@pytest.mark.parametrize("backend", [EnvStepDynamics, MujocoBatchDynamics])
def test_a_law_is_rolled_out_as_the_env_itself_does_it(backend):
    env = Cloneable(gym.make(POLE))
    env.reset(seed=0)
    states = [env.snapshot()]
    laws = np.random.default_rng(0).normal(size=(6, 4))
    dynamics = backend(env)
    rollout = closed_loop_rollout(
        dynamics.simulations(8),
        states,
        (6, 30),
        lambda step, seen, running: (
            np.sum(seen * laws[running], axis=1, keepdims=True) + 0.01 * step
        ),
        keep_observations=True,
    )
    assert len(set(rollout.lengths[0])) > 1
    for k, law in enumerate(laws):
        env.restore(states[0])
        observation = states[0].observation
        for step in range(rollout.lengths[0, k]):
            action = np.atleast_1d(observation @ law + 0.01 * step).astype(np.float32)
            observation, reward, terminated, *_ = env.step(action)
            np.testing.assert_allclose(rollout.observations[0, k, step], observation, atol=1e-9)
            assert rollout.rewards[0, k, step] == reward
        assert terminated == rollout.terminated[0, k]
        np.testing.assert_allclose(rollout.final_observations[0, k], observation, atol=1e-9)


def test_controls_of_the_plan_lead_where_the_plan_says():
    expert = MPPIAgent(POLE, CONFIG)
    walk(expert, 2)
    state = expert.states()[0]
    plan = expert.label([state])
    true = EnvStepDynamics(expert.env).rollout(
        [state], expert.scaling.to_env(plan.controls[:, None])
    )
    np.testing.assert_allclose(
        true.rewards[0, 0] @ CONFIG.discount ** np.arange(CONFIG.horizon), plan.best_returns[0]
    )


def test_reflexes_live_on_from_plan_to_plan_and_end_with_the_episode():
    expert = MPPIAgent(POLE, CONFIG)
    walk(expert, 6)
    _, (nominals, gains) = expert.predict(expert.states()[0].observation)
    np.testing.assert_array_equal(gains, expert.last_plan.gains)
    np.testing.assert_array_equal(nominals[:, -1], 0)
    assert np.abs(gains).max() > 0
    before = expert.last_plan.controls
    # A new episode starts from nothing: whatever was learnt, its plan is that of a new expert
    # whose generator is as far.
    fresh = MPPIAgent(POLE, CONFIG)
    fresh.env.reset(seed=5)
    state = expert.state_dict() | {"nominals": expert.cold_start(1), "gains": np.zeros_like(gains)}
    fresh.load_state_dict(state)
    expert.env.reset(seed=5)
    fresh.env.reset(seed=5)
    first = expert.predict(expert.states()[0].observation)[0]
    np.testing.assert_array_equal(first, fresh.predict(fresh.states()[0].observation)[0])
    assert not np.array_equal(before, expert.last_plan.controls)


def test_same_seed_same_episode_and_labels_do_not_disturb_it():
    calm, labelling = MPPIAgent(POLE, CONFIG, seed=1), MPPIAgent(POLE, CONFIG, seed=1)
    for expert in (calm, labelling):
        expert.env.reset(seed=3)
    for _ in range(4):
        labelling.label(labelling.states())
        actions = [e.predict(e.states()[0].observation)[0] for e in (calm, labelling)]
        np.testing.assert_array_equal(*actions)
        for expert, action in zip((calm, labelling), actions, strict=True):
            expert.env.step(action)


def test_each_env_of_several_has_reflexes_of_its_own():
    env = DummyVecEnv([lambda: Cloneable(gym.make(POLE))] * 2)
    expert = MPPIAgent(env, CONFIG)
    env.seed(0)
    observations = env.reset()
    for _ in range(3):
        actions, _ = expert.predict(observations)
        observations, *_ = env.step(actions)
    gains = expert.last_plan.gains
    assert gains.shape == (2, 5, 1) and not np.array_equal(gains[0], gains[1])


def test_reflexes_of_a_coarse_search_are_measured_on_the_true_model():
    config = MPPIConfig(
        num_samples=12, horizon=20, iterations=1, noise_std=0.2, reflex_std=0.3, search_substeps=1
    )
    expert = MPPIAgent("Hopper-v5", config)
    walk(expert, 3)
    state = expert.states()[0]
    plan = expert.label([state])
    true = EnvStepDynamics(expert.env).rollout(
        [state], expert.scaling.to_env(plan.controls[:, None])
    )
    np.testing.assert_allclose(
        true.rewards[0, 0] @ config.discount ** np.arange(20), plan.best_returns[0], rtol=1e-9
    )


def test_categories_react_too():
    config = MPPIConfig(num_samples=12, horizon=40, iterations=1, reflex_std=0.5)
    expert = MPPIAgent("CartPole-v1", config)
    assert walk(expert, 20).sum() == 20
    assert np.abs(expert.last_plan.gains).max() > 0


@pytest.mark.slow
def test_reflexes_keep_long_plans_of_a_hopper_alive():
    """Around its unstable gait, random sequences of controls all fall within a second."""
    settings = dict(num_samples=24, horizon=100, iterations=1, knot_spacing=4, noise_std=0.2)
    alive = []
    for reflex_std in (0.0, 0.35):
        config = MPPIConfig(**settings, discount=0.995, search_substeps=1, reflex_std=reflex_std)
        expert = MPPIAgent("Hopper-v5", config)
        rewards = walk(expert, 60)
        returns = expert.last_plan.returns[0]
        alive.append(np.median(returns))
        assert np.isfinite(rewards).all()
    assert alive[1] > alive[0]


def test_observations_that_are_no_vectors_are_named():
    with pytest.raises(ValueError, match="reflex_std > 0 needs observations that are vectors"):
        MPPIAgent("FrozenLake-v1", CONFIG)
