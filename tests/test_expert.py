"""The expert: SB3's predict protocol, one warm start per env, labels, and a policy's proposals."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from mppi_agent.cloning import Cloneable, NotCloneableError
from mppi_agent.dynamics import (
    EnvStepDynamics,
    ProcessPoolDynamics,
    VectorDynamics,
    make_dynamics,
)
from mppi_agent.expert import MPPIAgent
from mppi_agent.planning import (
    ConstantPlan,
    LeafValue,
    MPPIConfig,
    discounted_returns,
    shift_nominal,
)

CONFIG = MPPIConfig(num_samples=16, horizon=8, iterations=1, elites=2)


def make_env(limit: int = 200, seed: int = 0) -> Cloneable:
    env = Cloneable(gym.make("Pendulum-v1", max_episode_steps=limit))
    env.reset(seed=seed)
    return env


def make_pair(limit: int = 200, **kwargs: Any) -> Any:
    venv = make_vec_env(
        "Pendulum-v1",
        2,
        seed=0,
        env_kwargs={"max_episode_steps": limit},
        wrapper_class=Cloneable,
        **kwargs,
    )
    venv.reset()
    return venv


def make_expert(env: Any = None, **kwargs: Any) -> MPPIAgent:
    return MPPIAgent(make_env() if env is None else env, kwargs.pop("config", CONFIG), **kwargs)


def measure(states: list[Any], controls: np.ndarray, leaf_value: Any = None) -> np.ndarray:
    """Return what normalised `controls`, one plan per state, earn on a backend of its own."""
    rollout = VectorDynamics(make_env()).rollout(states, 2.0 * controls[:, None])
    leaf = None
    if leaf_value is not None:
        leaf = leaf_value.predict(rollout.final_observations[:, 0])[:, None]
    return discounted_returns(rollout, _discount(leaf_value), leaf)[:, 0]


def _discount(leaf_value: LeafValue | None) -> float:
    return max(CONFIG.discount, 0.0 if leaf_value is None else leaf_value.discount)


class SwingUp:
    """A plain controller for the pendulum, as a policy with values."""

    calls = 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls += 1
        cosine, sine, speed = np.asarray(observation, dtype=np.float64).T
        balance = np.clip(-12 * sine - 3 * speed, -2, 2)
        pump = np.where(speed >= 0, 2.0, -2.0)
        return np.where(cosine > 0.8, balance, pump)[:, None].astype(np.float32), None

    def predict_values(self, observation):
        return -5.0 * (1 - np.asarray(observation)[:, 0])

    @property
    def leaf_value(self):
        return LeafValue(self.predict_values, discount=0.9)


class Lazy:
    """A policy without values that never moves."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), 1), dtype=np.float32), None


def closed_loop_return(policy: Any, env: Cloneable, state: Any, leaf_value: Any) -> float:
    """Return what `policy` earns from `state` over the horizon, by env steps."""
    env.restore(state)
    seen, total = state.observation, 0.0
    for h in range(CONFIG.horizon):
        action, _ = policy.predict(seen[None], deterministic=True)
        seen, reward, *_ = env.step(action[0])
        total += _discount(leaf_value) ** h * reward
    env.restore(state)
    leaf = 0.0 if leaf_value is None else leaf_value.predict(seen[None])[0]
    return total + _discount(leaf_value) ** CONFIG.horizon * leaf


def test_it_beats_random_actions_through_evaluate_policy():
    expert = make_expert(
        make_env(limit=80), config=MPPIConfig(num_samples=32, horizon=15, iterations=1)
    )
    expert.env.reset(seed=3)
    mean, _ = evaluate_policy(expert, expert.env, n_eval_episodes=3, warn=False)
    assert mean > -500  # random actions earn about -6.5 per step, -520, and this about -300
    space = expert.env.action_space
    space.seed(0)
    returns = []
    for seed in range(6):
        expert.env.reset(seed=seed)
        returns.append(sum(expert.env.step(space.sample())[1] for _ in range(80)))
    assert mean > np.mean(returns) + 80


def test_evaluate_policy_takes_a_vec_env_too():
    venv = make_pair(limit=10)
    expert = make_expert(venv)
    returns, lengths = evaluate_policy(
        expert, venv, n_eval_episodes=4, return_episode_rewards=True, warn=False
    )
    assert lengths == [10] * 4 and len(set(returns)) == 4


def test_the_first_action_of_the_best_measured_plan_is_taken():
    expert = make_expert()
    observation = expert.env.last_observation
    action, _ = expert.predict(observation)
    np.testing.assert_allclose(action, 2.0 * expert.last_plan.controls[0, 0], atol=1e-12)
    state = expert.env.snapshot()
    np.testing.assert_allclose(
        measure([state], expert.last_plan.controls), expert.last_plan.best_returns
    )
    assert expert.env.action_space.contains(action)


def test_single_and_batched_observations_get_the_same_action():
    one, many = make_expert(), make_expert()
    observation = one.env.last_observation
    single, _ = one.predict(observation)
    batched, _ = many.predict(observation[None])
    assert single.shape == (1,) and batched.shape == (1, 1)
    np.testing.assert_array_equal(batched[0], single)


def test_each_env_has_its_own_warm_start():
    venv = make_pair()
    expert = make_expert(venv)
    observation = venv.reset()
    for _ in range(3):
        actions, (nominals,) = expert.predict(observation)
        expected = shift_nominal(expert.last_plan.controls)
        np.testing.assert_array_equal(nominals, expected)
        observation, _, _, _ = venv.step(actions)
        states = venv.env_method("snapshot")
        expert.predict(observation)  # its nominal is what the last plan left for this env
        np.testing.assert_allclose(expert.last_plan.nominal_returns, measure(states, expected))
        assert not np.allclose(*expert.last_plan.nominal_returns)


def test_envs_in_other_processes_are_planned_for_alike():
    venv, other = make_pair(), make_pair(vec_env_cls=SubprocVecEnv)
    try:
        actions = []
        for env in (venv, other):
            env.seed(5)
            expert, observation = make_expert(env), env.reset()
            for _ in range(2):
                action, _ = expert.predict(observation)
                observation, _, _, _ = env.step(action)
            actions.append(action)
        np.testing.assert_array_equal(*actions)
    finally:
        other.close()


def test_a_reset_drops_the_warm_start():
    expert = make_expert()
    observation = expert.env.last_observation
    for _ in range(2):
        action, _ = expert.predict(observation)
        observation, *_ = expert.env.step(action)
    observation, _ = expert.env.reset(seed=9)
    expert.predict(observation)
    zeros = np.zeros((1, CONFIG.horizon, 1))
    expected = measure([expert.env.snapshot()], zeros)
    np.testing.assert_allclose(expert.last_plan.nominal_returns, expected)


def test_episode_start_drops_the_warm_start_of_that_env_only():
    venv = make_pair()
    expert = make_expert(venv)
    observation = venv.reset()
    actions, (nominals,) = expert.predict(observation)
    observation, _, _, _ = venv.step(actions)
    expert.predict(observation, episode_start=np.array([True, False]))
    expected = measure(venv.env_method("snapshot"), nominals * [[[0.0]], [[1.0]]])
    np.testing.assert_allclose(expert.last_plan.nominal_returns, expected)


def test_the_auto_reset_of_a_vec_env_is_noticed():
    venv = make_pair(limit=2)
    expert = make_expert(venv)
    observation = venv.reset()
    for _ in range(2):
        actions, _ = expert.predict(observation)
        observation, _, dones, _ = venv.step(actions)
    assert dones.all()
    expert.predict(observation)  # without episode_start
    states = venv.env_method("snapshot")
    expected = measure(states, np.zeros((2, CONFIG.horizon, 1)))
    np.testing.assert_allclose(expert.last_plan.nominal_returns, expected)


def test_a_given_state_replaces_the_agents_memory():
    expert = make_expert()
    observation = expert.env.last_observation
    expert.predict(observation)
    mine = np.full((1, CONFIG.horizon, 1), 0.7)
    expert.predict(observation, (mine,))
    np.testing.assert_allclose(
        expert.last_plan.nominal_returns, measure([expert.env.snapshot()], mine)
    )
    assert (mine == 0.7).all()


def test_labelling_does_not_disturb_the_next_action():
    labelling, untouched = make_expert(), make_expert()
    states = [make_env(seed=s).snapshot() for s in (4, 5, 6)]
    observation = labelling.env.last_observation
    for _ in range(3):
        labelling.label(states)
        labelling.label(states[:1], np.full((1, CONFIG.horizon, 1), 0.5))
        ours, _ = labelling.predict(observation)
        theirs, _ = untouched.predict(observation)
        np.testing.assert_array_equal(ours, theirs)
        observation, *_ = labelling.env.step(ours)
        untouched.env.step(theirs)
    assert labelling.sim_steps > untouched.sim_steps
    np.testing.assert_array_equal(labelling.last_plan.returns, untouched.last_plan.returns)


def test_labels_improve_on_the_given_nominals_and_measure_them():
    expert = make_expert()
    states = [make_env(seed=s).snapshot() for s in (4, 5)]
    nominals = np.random.default_rng(0).uniform(-1, 1, (2, CONFIG.horizon, 1))
    plan = expert.label(states, nominals)
    np.testing.assert_allclose(plan.nominal_returns, measure(states, nominals))
    np.testing.assert_allclose(plan.best_returns, measure(states, plan.controls))
    assert (plan.best_returns >= plan.nominal_returns).all()
    cold = expert.label(states)
    np.testing.assert_allclose(cold.nominal_returns, measure(states, 0 * nominals))


def test_planning_leaves_the_env_alone():
    expert, untouched = make_expert(), make_env()
    for _ in range(2):
        expert.predict(expert.env.last_observation)
        expert.label([untouched.snapshot()])
    np.testing.assert_equal(
        expert.env.step(np.ones(1, dtype=np.float32)), untouched.step(np.ones(1, dtype=np.float32))
    )
    np.testing.assert_equal(expert.env.reset(), untouched.reset())


@pytest.mark.parametrize("deterministic", [True, False])
def test_same_seed_same_actions(deterministic):
    def act(seed: int) -> list[float]:
        expert = make_expert(seed=seed)
        observation, taken = expert.env.last_observation, []
        for _ in range(4):
            action, _ = expert.predict(observation, deterministic=deterministic)
            observation, *_ = expert.env.step(action)
            taken.append(float(action[0]))
        return taken

    assert act(0) == act(0)
    assert act(0) != act(1)


def test_noise_is_added_within_the_bounds_unless_deterministic():
    calm, noisy = make_expert(), make_expert()
    observation = calm.env.last_observation
    calm_action, _ = calm.predict(observation)
    noisy_action, _ = noisy.predict(observation, deterministic=False)
    assert noisy_action != calm_action and abs(noisy_action[0]) <= 2
    np.testing.assert_array_equal(calm.last_plan.controls, noisy.last_plan.controls)


def test_steps_are_counted():
    expert = make_expert()
    expert.predict(expert.env.last_observation)
    acted = expert.last_plan.sim_steps
    assert expert.sim_steps == acted > 0
    plan = expert.label([expert.env.snapshot()] * 2)
    assert expert.sim_steps == acted + plan.sim_steps


def test_steps_of_the_policy_are_counted_too():
    alone, led = make_expert(), make_expert(policy=SwingUp())
    helped = make_expert(policy=SwingUp(), policy_leads=False)
    for expert in (alone, led, helped):
        expert.predict(expert.env.last_observation)
        assert expert.last_plan.sim_steps == expert.sim_steps
    assert led.sim_steps == alone.sim_steps  # the policy acts in the samples themselves
    proposals = CONFIG.num_samples // 4  # no more, in case they are bad
    assert helped.sim_steps == alone.sim_steps + proposals * CONFIG.horizon


@pytest.mark.parametrize("policy_leads", [True, False])
def test_no_simulations_of_the_policy_are_left_open(policy_leads):
    dynamics = EnvStepDynamics(make_env())
    opened: list[Any] = []
    make = dynamics.simulations

    def simulations(num: int) -> Any:
        opened.append(make(num))
        return opened[-1]

    dynamics.simulations = simulations  # type: ignore[method-assign]
    expert = make_expert(policy=SwingUp(), policy_leads=policy_leads, dynamics=dynamics)
    state = expert.env.snapshot()
    expert.label([state])
    num_opened = len(opened)
    expert.label([state])
    assert len(opened) == num_opened > 0
    expert.label([state, state])
    expert.close()
    assert len(opened) > num_opened
    for one in opened:
        with pytest.raises(RuntimeError, match="closed"):
            one.restore([state] * one.num)


@pytest.mark.parametrize("policy_leads", [True, False])
@pytest.mark.parametrize("policy", [SwingUp(), Lazy()])
def test_the_plan_is_never_worse_than_the_policy_itself(policy, policy_leads):
    expert = make_expert(policy=policy, policy_leads=policy_leads)
    leaf_value = getattr(policy, "leaf_value", None)
    env = make_env()
    observation = expert.env.last_observation
    for _ in range(15):
        state = expert.env.snapshot()
        own = closed_loop_return(policy, env, state, leaf_value)
        action, _ = expert.predict(observation)
        # Without noise, its closed loop is the nominal.
        np.testing.assert_allclose(expert.last_plan.nominal_returns[0], own, rtol=1e-5, atol=1e-5)
        assert expert.last_plan.best_returns[0] >= own - 1e-5
        labelled = expert.label([state])
        assert labelled.best_returns[0] >= own - 1e-5
        observation, *_ = expert.env.step(action)


def test_a_policy_helps_where_few_samples_do_not():
    config = MPPIConfig(num_samples=6, horizon=20, iterations=1, elites=0, noise_std=0.05)
    state = make_env(seed=1).snapshot()
    alone = make_expert(config=config).label([state])
    guided = make_expert(config=config, policy=SwingUp())
    helped = guided.label([state], leaf_value=LeafValue(lambda seen: np.zeros(len(seen)), 0.99))
    assert helped.best_returns[0] > alone.best_returns[0] + 1


def test_plans_led_by_a_policy_are_deviations_from_it():
    expert, env, policy = make_expert(policy=SwingUp()), make_env(), SwingUp()
    states = [make_env(seed=s).snapshot() for s in (4, 5)]
    rng = np.random.default_rng(0)
    nominals = rng.uniform(-0.3, 0.3, (2, CONFIG.horizon, 1))
    plan = expert.label(states, nominals)

    def total(state, deviations):
        env.restore(state)
        seen, own = state.observation, 0.0
        for h, deviation in enumerate(deviations):
            control = np.clip(policy.predict(seen[None])[0][0] / 2 + deviation, -1, 1)
            seen, reward, *_ = env.step((2 * control).astype(np.float32))
            own += CONFIG.discount**h * reward
        return own + CONFIG.discount**CONFIG.horizon * policy.predict_values(seen[None])[0]

    given = [total(*pair) for pair in zip(states, nominals, strict=True)]
    np.testing.assert_allclose(plan.nominal_returns, given, rtol=1e-5)
    found = [total(*pair) for pair in zip(states, plan.feedforward, strict=True)]
    np.testing.assert_allclose(plan.best_returns, found, rtol=1e-5)
    assert (plan.best_returns > plan.nominal_returns).all()


def test_a_plan_led_by_a_policy_ends_in_what_the_policy_does():
    config = replace(CONFIG, noise_fade=40.0)
    expert = make_expert(config=config, policy=SwingUp())
    expert.predict(expert.env.last_observation)
    expert.env.step(np.ones(1, np.float32))  # what was planned moves on by a step each time
    expert.predict(expert.env.last_observation)
    deviations = np.abs(expert.last_plan.feedforward[0, :, 0])
    assert deviations[0] > 1e-3 > 1e-6 > deviations[-5:].max()


class Hasty(SwingUp):
    """Values speed, wrongly."""

    def predict_values(self, observation):
        return 100.0 * np.abs(np.asarray(observation)[:, 2])


def test_plans_are_compared_by_what_they_and_then_the_policy_earn():
    states, steps = [make_env(seed=s).snapshot() for s in range(6)], CONFIG.horizon + 60

    def earned(state, deviations):
        env, policy = make_env(), Hasty()
        env.restore(state)
        seen, own = state.observation, 0.0
        for h in range(steps):
            deviation = deviations[h] if h < len(deviations) else 0.0
            control = np.clip(policy.predict(seen[None])[0][0] / 2 + deviation, -1, 1)
            seen, reward, *_ = env.step((2 * control).astype(np.float32))
            own += CONFIG.discount**h * reward
        return own + CONFIG.discount**steps * policy.predict_values(seen[None])[0]

    config = replace(CONFIG, mean_preference=0.0)
    short, long = (
        make_expert(config=replace(config, verify_steps=more), policy=Hasty()).label(states)
        for more in (0, 60)
    )
    assert long.feedforward.shape == long.controls.shape == (6, CONFIG.horizon, 1)
    seen_through, by_values = (
        np.array([earned(*pair) for pair in zip(states, plan.feedforward[..., 0], strict=True)])
        for plan in (long, short)  # of the same search
    )
    np.testing.assert_allclose(long.best_returns, seen_through, rtol=1e-5)
    assert (seen_through >= by_values - 1e-3).all() and (seen_through > by_values + 1).any()
    assert (long.feedforward[seen_through > by_values + 1] != 0).any()
    assert long.sim_steps > short.sim_steps


def test_verification_needs_a_policy_that_leads():
    config = replace(CONFIG, verify_steps=10)
    with pytest.raises(ValueError, match=r"verify_steps=10 needs a policy that goes on"):
        make_expert(config=config)
    with pytest.raises(ValueError, match=r"verify_steps=10 needs a policy that goes on"):
        make_expert(config=config, policy=SwingUp(), policy_leads=False)


def test_a_leading_policy_is_refused_what_goes_with_another_that_proposes():
    with pytest.raises(ValueError, match=r"reflex_std=0.3 must be 0 where a policy leads.*on_top"):
        make_expert(config=replace(CONFIG, reflex_std=0.3), policy=SwingUp())
    with pytest.raises(ValueError, match=r"proposals say what to do.*pass policy_leads=False"):
        make_expert(policy=SwingUp(), proposals=[ConstantPlan(np.zeros(1))])


def test_labels_with_a_policy_keep_the_given_nominal_first():
    expert = make_expert(policy=SwingUp(), policy_leads=False)
    states = [make_env(seed=s).snapshot() for s in (4, 5)]
    nominals = np.full((2, CONFIG.horizon, 1), 0.3)
    plan = expert.label(states, nominals)
    expected = measure(states, nominals, SwingUp().leaf_value)
    np.testing.assert_allclose(plan.nominal_returns, expected, rtol=1e-5)


def test_an_explicit_leaf_value_goes_before_the_policys():
    expert = make_expert(policy=SwingUp(), policy_leads=False)
    state = make_env(seed=4).snapshot()
    nominals = np.zeros((1, CONFIG.horizon, 1))
    plan = expert.label(
        [state], nominals, leaf_value=LeafValue(lambda seen: np.full(len(seen), 1000.0), 0.99)
    )
    expected = measure([state], nominals) + 1000 * CONFIG.discount**CONFIG.horizon
    np.testing.assert_allclose(plan.nominal_returns, expected)


def test_any_sb3_model_is_a_policy():
    model = PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, seed=0, device="cpu")
    expert = make_expert(policy=model)
    env, state = make_env(), expert.env.snapshot()
    expert.predict(expert.env.last_observation)
    own = closed_loop_return(model, env, state, None)
    np.testing.assert_allclose(expert.last_plan.nominal_returns[0], own, rtol=1e-5)


@pytest.mark.parametrize("policy_leads", [True, False])
def test_the_fewest_samples_still_leave_room_for_a_policy(policy_leads):
    config = MPPIConfig(num_samples=4, horizon=3, iterations=1, elites=0)
    expert = make_expert(config=config, policy=SwingUp(), policy_leads=policy_leads)
    expert.predict(expert.env.last_observation)
    assert expert.last_plan.returns.shape == (1, 4)


class DictPendulum(gym.ObservationWrapper):
    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Dict({"all": env.observation_space})

    def observation(self, observation):
        return {"all": observation}


class DictSwingUp(SwingUp):
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return super().predict(observation["all"])

    def predict_values(self, observation):
        return super().predict_values(observation["all"])


def test_experts_that_share_dynamics_close_what_is_their_own():
    env = make_env()
    with ProcessPoolDynamics(env, 1) as shared:
        first, second = (make_expert(dynamics=shared, policy=SwingUp()) for _ in range(2))
        first.label([env.snapshot()])
        first.close()
        second.label([env.snapshot()])
        second.close()


def test_an_expert_closes_the_dynamics_that_it_made(monkeypatch):
    pool = ProcessPoolDynamics(make_env(), 1)
    monkeypatch.setattr("mppi_agent.expert.make_dynamics", lambda env: pool)
    make_expert().close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.simulations(1)


def test_a_memory_that_was_put_aside_stays_as_it_is():
    expert = make_expert()
    expert.predict(expert.env.last_observation)
    aside = expert.state_dict()
    before = copy.deepcopy(aside)
    expert.env.reset(seed=1)
    expert.predict(expert.env.last_observation)
    np.testing.assert_equal(aside, before)


def make_dict_env() -> Cloneable:
    env = Cloneable(DictPendulum(gym.make("Pendulum-v1")))
    env.reset(seed=0)
    return env


def test_dict_observations_are_planned_for():
    env = make_dict_env()
    expert = MPPIAgent(env, CONFIG, dynamics=EnvStepDynamics(env))
    action, _ = expert.predict(env.last_observation)
    assert action.shape == (1,)
    batched, _ = expert.predict({"all": env.last_observation["all"][None]})
    assert batched.shape == (1, 1)
    expert.close()


def test_a_policy_may_see_dict_observations():
    env = make_dict_env()
    expert = MPPIAgent(env, CONFIG, policy=DictSwingUp(), dynamics=EnvStepDynamics(env))
    try:
        expert.predict(env.last_observation)
        assert np.isfinite(expert.last_plan.best_returns).all()
    finally:
        expert.close()


def test_a_policy_proposes_what_it_would_do_under_vec_normalize():
    class FirstEntry:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.clip(observation[:, :1], -1, 1), None

    venv = VecNormalize(make_pair())
    venv.obs_rms.mean[:] = [5.0, 0.0, 0.0]  # so that the first entry is always far below 0
    venv.training = False
    observation = venv.reset()
    expert = MPPIAgent(venv, CONFIG, policy=FirstEntry())
    expert.predict(observation)
    expected = measure(venv.env_method("snapshot"), np.full((2, CONFIG.horizon, 1), -0.5))
    np.testing.assert_allclose(expert.last_plan.nominal_returns, expected)


def test_a_policy_without_an_env_values_what_vec_normalize_shows():
    seen = []

    class Values(SwingUp):
        @property
        def leaf_value(self):
            return LeafValue(lambda shown: seen.append(shown) or np.zeros(len(shown)), 0.9)

    venv = VecNormalize(make_pair())
    venv.obs_rms.mean[:] = [5.0, 0.0, 0.0]
    venv.training = False
    expert = MPPIAgent(venv, CONFIG, policy=Values(), policy_leads=False)
    expert.predict(venv.reset())
    assert (np.concatenate(seen)[:, 0] < -3.9).all()  # cosines, less five


def test_actions_changed_around_the_cloneable_are_refused():
    outside = gym.wrappers.RescaleAction(make_env(), -1.0, 1.0)
    with pytest.raises(ValueError, match=r"RescaleAction is around the Cloneable .* inside"):
        MPPIAgent(outside)
    with pytest.raises(ValueError, match=r"RescaleAction is around the Cloneable .* inside"):
        MPPIAgent(DummyVecEnv([lambda: gym.wrappers.RescaleAction(make_env(), -1.0, 1.0)]))
    inside = Cloneable(gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), -1.0, 1.0))
    assert MPPIAgent(inside, CONFIG).scaling.action_dims == 1


def test_plans_without_a_finite_return_are_warned_of():
    env = gym.wrappers.TransformReward(gym.make("Pendulum-v1"), lambda _: float("nan"))
    expert = MPPIAgent(Cloneable(env), CONFIG)
    observation, _ = expert.env.reset(seed=0)
    with pytest.warns(UserWarning, match="no finite return among 16 samples"):
        expert.predict(observation)


def test_envs_that_cannot_be_planned_for_are_refused():
    switches = gym.wrappers.TransformAction(
        gym.make("CartPole-v1"), lambda action: int(action[0]), gym.spaces.MultiBinary(1)
    )
    with pytest.raises(ValueError, match=r"MultiBinary\(1\) is not supported.*TransformAction"):
        MPPIAgent(switches)
    unbounded = gym.wrappers.TransformAction(
        gym.make("Pendulum-v1"),
        lambda action: np.clip(action, -2, 2),
        gym.spaces.Box(-np.inf, np.inf, (1,)),
    )
    with pytest.raises(ValueError, match="action bounds must be finite"):
        MPPIAgent(unbounded)
    with pytest.raises(TypeError, match="wrapper_class=Cloneable"):
        MPPIAgent(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env = gym.make("Pendulum-v1")
    env.unwrapped.lock = threading.Lock()

    class Locked(type(env.unwrapped)):
        pass

    env.unwrapped.__class__ = Locked
    with pytest.raises(NotCloneableError, match="lock"):
        MPPIAgent(env)


def test_acting_before_a_reset_says_what_to_do():
    expert = MPPIAgent("Pendulum-v1", CONFIG)
    with pytest.raises(RuntimeError, match="call reset"):
        expert.predict(np.zeros(3))


def test_a_search_on_the_coarse_model_plans_for_the_true_one():
    env = Cloneable(gym.make("Hopper-v5"))
    env.reset(seed=0)
    config = MPPIConfig(num_samples=16, horizon=10, search_substeps=1)
    expert = MPPIAgent(env, config)
    plan = expert.label([env.snapshot()])
    true = make_dynamics(env)
    rollout = true.rollout([env.snapshot()], expert.scaling.to_env(plan.controls[:, None]))
    measured = discounted_returns(rollout, config.discount)[:, 0]
    np.testing.assert_allclose(plan.best_returns, measured, rtol=1e-12)
    assert plan.best_returns[0] > plan.nominal_returns[0]
    true.close()
    expert.close()


def test_without_a_coarse_model_the_search_runs_on_the_true_one():
    config = replace(CONFIG, search_substeps=2)
    with pytest.warns(UserWarning, match=r"2 substeps needs .* search_substeps=None"):
        expert = make_expert(config=config)
    state = make_env().snapshot()
    plain = make_expert().label([state])
    np.testing.assert_array_equal(expert.label([state]).controls, plain.controls)
