"""What the expert plans for beside the env's return, and what proposes to it."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import VectorDynamics
from mppi_agent.expert import MPPIAgent
from mppi_agent.planning import (
    ActionRate,
    ConstantPlan,
    Constraint,
    Demonstrations,
    LostFuture,
    MPPIConfig,
    Novelty,
    OngoingReward,
    discounted_returns,
)

CONFIG = MPPIConfig(num_samples=16, horizon=8, iterations=1, elites=2)


def make_env(env_id: str = "Pendulum-v1", seed: int = 0, **kwargs) -> Cloneable:
    env = Cloneable(gym.make(env_id, **kwargs))
    env.reset(seed=seed)
    return env


def act(expert: MPPIAgent, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return observations, actions and the sum of rewards."""
    seen, taken, total = [], [], 0.0
    observation = expert.env.last_observation
    for _ in range(steps):
        action, _ = expert.predict(observation)
        seen.append(observation)
        taken.append(action)
        observation, reward, terminated, _, _ = expert.env.step(action)
        total += float(reward)
        if terminated:
            break
    return np.array(seen), np.array(taken), total


def test_smoothing_spans_plans_and_the_measured_return_stays_the_envs_own():
    rates = []
    for terms in ([], [ActionRate(2.0)]):
        expert = MPPIAgent(make_env(), CONFIG, objective=terms)
        _, taken, _ = act(expert, 20)
        rates.append(np.square(np.diff(taken, axis=0)).sum())
        state = expert.env.snapshot()
        plan = expert.label([state])
        own = VectorDynamics(make_env()).rollout([state], 2.0 * plan.controls[:, None])
        np.testing.assert_allclose(plan.best_returns, discounted_returns(own, CONFIG.discount)[0])
    assert rates[1] < 0.3 * rates[0]


def test_the_change_from_the_last_action_counts_until_a_reset():
    expert = MPPIAgent(make_env(), CONFIG, objective=[ActionRate(1e3)])
    seen = []
    plan = expert._planner.plan

    def watched(*args, previous_controls, **kwargs):
        seen.append(previous_controls.copy())
        return plan(*args, previous_controls=previous_controls, **kwargs)

    expert._planner.plan = watched
    _, taken, _ = act(expert, 2)
    expert.env.reset(seed=1)
    act(expert, 1)
    assert np.isnan(seen[0]).all() and np.isnan(seen[2]).all()
    np.testing.assert_allclose(seen[1], taken[:1] / 2.0)


def test_a_constraint_holds_where_the_return_alone_would_break_it():
    def too_fast(t):
        return np.maximum(0.0, np.abs(t.observations[..., 2]) - 1.0)

    fastest = []
    for terms in ([], [Constraint(too_fast)]):
        expert = MPPIAgent(make_env(seed=3), CONFIG, objective=terms)
        seen, _, _ = act(expert, 25)
        fastest.append(np.abs(seen[1:, 2]).max())
    assert fastest[0] > 2.5 and fastest[1] < 0.6 * fastest[0]


def test_novelty_reaches_what_no_plan_sees():
    # The hill is more than 100 steps away and until then every plan returns the same.
    config = MPPIConfig(num_samples=12, horizon=15, knot_spacing=5, iterations=1)
    steps = []
    for terms in ([], [Novelty(0.05)]):
        expert = MPPIAgent(make_env("MountainCar-v0", seed=1), config, objective=terms)
        seen, _, _ = act(expert, 199)
        steps.append(len(seen))
    assert steps[0] == 199 and steps[1] < 199


def test_what_was_visited_belongs_to_the_state_of_the_agent():
    def make() -> MPPIAgent:
        return MPPIAgent(make_env(), CONFIG, objective=[Novelty(1.0), ActionRate(0.1)])

    first = make()
    act(first, 4)
    second = make()
    second.env.restore(first.env.snapshot())
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(act(first, 3)[1], act(second, 3)[1])


def test_labelling_adds_nothing_to_what_was_visited():
    labelling, untouched = (MPPIAgent(make_env(), CONFIG, objective=[Novelty(1.0)]) for _ in "ab")
    act(labelling, 2), act(untouched, 2)
    labelling.label([make_env(seed=4).snapshot()])
    np.testing.assert_array_equal(act(labelling, 2)[1], act(untouched, 2)[1])


def test_the_lost_future_counts_unless_it_is_left_out():
    # At the edge of the track all plans see the end; where it costs shows in the scores.
    def scores_and_returns(terms=(), lost_future=1.0):
        config = MPPIConfig(horizon=40, lost_future=lost_future)
        expert = MPPIAgent(make_env("CartPole-v1"), config, objective=terms)
        expert.predict(expert.env.last_observation)
        return expert.last_plan.scores, expert.last_plan.returns

    scores, returns = scores_and_returns()
    lost = returns < returns.max()
    assert lost.any() and (scores[lost] < returns[lost] - 1).all()
    dearer, _ = scores_and_returns(lost_future=3.0)
    assert (dearer[lost] < scores[lost]).all()
    np.testing.assert_array_equal(*scores_and_returns(lost_future=0.0))
    np.testing.assert_array_equal(*scores_and_returns([LostFuture(0)]))


def test_an_ongoing_reward_counts_where_it_is_set():
    def scores_and_returns(terms=(), **settings):
        config = MPPIConfig(horizon=20, lost_future=0.0, **settings)
        expert = MPPIAgent(make_env("Pendulum-v1"), config, objective=terms)
        expert.predict(expert.env.last_observation)
        return expert.last_plan.scores, expert.last_plan.returns

    np.testing.assert_array_equal(*scores_and_returns())
    scores, returns = scores_and_returns(ongoing_reward=2.0)
    assert (scores < returns).all()  # hanging, it would go on to cost
    np.testing.assert_array_equal(*scores_and_returns([OngoingReward(0)], ongoing_reward=2.0))


def test_a_demonstration_is_followed_where_few_samples_find_nothing():
    space = MPPIConfig(num_samples=8, horizon=120, noise_std=0.05, iterations=1, elites=0)
    teacher = make_env("MountainCarContinuous-v0")
    seen, taken, terminated = [], [], False
    while not terminated:  # push the way that it rolls
        seen.append(teacher.last_observation)
        taken.append(np.where(seen[-1][1:] >= 0, 0.9, -0.9))
        terminated = teacher.step(taken[-1])[2]
    seen, taken = np.array(seen), np.array(taken)
    returns = []
    for proposals in ([], [Demonstrations([(seen, taken)])]):
        env = make_env("MountainCarContinuous-v0", seed=5)
        expert = MPPIAgent(env, space, proposals=proposals)
        returns.append(act(expert, 300)[2])
    assert returns[0] < 5 and returns[1] > 85


def test_proposals_and_a_policy_share_half_of_the_samples():
    class Lazy:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((len(observation), 1), dtype=np.float32), None

    rest = ConstantPlan(np.zeros(1))
    for proposals in ([rest], [rest] * 6):
        expert = MPPIAgent(
            make_env(), CONFIG, policy=Lazy(), policy_leads=False, proposals=proposals
        )
        expert.predict(expert.env.last_observation)
        assert expert.last_plan.returns.shape == (1, 16)
    expert = MPPIAgent(make_env(), CONFIG, proposals=[rest] * 8)
    with pytest.raises(ValueError, match=r"1 to num_samples / 2 = 8 proposals per state, got 9"):
        expert.predict(expert.env.last_observation)


class Pusher:
    """A policy that always pushes the same way."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.full((len(observation), 1), 2.0, dtype=np.float32), None


def test_a_policy_prior_pulls_towards_the_policy_by_its_weight():
    means = []
    for weight in (0.0, 1.0, 100.0):
        expert = MPPIAgent(
            make_env(), CONFIG, policy=Pusher(), policy_leads=False, policy_prior=weight
        )
        _, taken, _ = act(expert, 10)
        means.append(float(taken.mean()))
    assert means[0] < means[1] < means[2] and means[2] > 1.9


class Dither(Pusher):
    """A policy that shakes: its plans lead nowhere."""

    calls = 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls += 1
        return super().predict(observation)[0] * (-1) ** self.calls, None


def test_a_bad_policy_costs_little():
    states = [make_env(seed=s).snapshot() for s in range(16)]
    config = MPPIConfig(num_samples=32, horizon=15)

    def mean_return(policy, nominals=None, **changes):
        settings = replace(config, **changes)
        expert = MPPIAgent(make_env(), settings, policy=policy, policy_leads=False)
        return expert.label(states, nominals).best_returns.mean()

    alone, poor = mean_return(None), mean_return(None, num_samples=4, elites=0)
    assert alone > poor + 3
    assert mean_return(Dither()) > alone - 1.5
    shaken = np.tile(np.array([1.0, -1.0] * 8)[:15, None], (16, 1, 1))
    rescued = MPPIAgent(make_env(), config, proposals=[ConstantPlan(np.zeros(1))])
    assert rescued.label(states, shaken).best_returns.mean() > alone - 1


def test_a_refused_setting_leaves_no_worker_behind():
    env = Cloneable(gym.wrappers.RepeatAction(gym.make("Pendulum-v1"), 2))  # steps in processes
    env.reset(seed=0)
    before = multiprocessing.active_children()
    with pytest.raises(ValueError, match=r"policy_prior=0\.5 needs a policy"):
        MPPIAgent(env, CONFIG, policy_prior=0.5)
    assert multiprocessing.active_children() == before


def test_a_prior_without_a_policy_is_refused():
    with pytest.raises(ValueError, match=r"policy_prior=0.5 needs a policy: pass policy=model"):
        MPPIAgent(make_env(), CONFIG, policy_prior=0.5)
    with pytest.raises(ValueError, match=r"policy_prior=0.5 .* pass policy_leads=False"):
        MPPIAgent(make_env(), CONFIG, policy=Pusher(), policy_prior=0.5)
    with pytest.raises(ValueError, match="weight must be > 0 and finite, got -1"):
        MPPIAgent(make_env(), CONFIG, policy=Pusher(), policy_prior=-1)
