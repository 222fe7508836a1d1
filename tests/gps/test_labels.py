"""Labels: the student's own actions are the nominal, and only measured gains are taught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toy_envs import make_target, target_dynamics

from mppi_agent.expert import MPPIAgent
from mppi_agent.gps.labels import Labeler, LabelReport, StudentStep, expert_episodes
from mppi_agent.gps.schedules import Gap
from mppi_agent.interfaces import Plan
from mppi_agent.planning import LeafValue, MPPIConfig

HORIZON, DISCOUNT = 4, 0.9
CONFIG = MPPIConfig(
    num_samples=16, horizon=HORIZON, iterations=1, elites=2, discount=DISCOUNT, noise_std=0.3
)


class SpyExpert(MPPIAgent):
    """Remembers the plans behind its labels."""

    plans: list[Plan]
    asked: list[tuple[Any, np.ndarray]]

    def label(self, states, nominals=None, **kwargs):
        plan = super().label(states, nominals, **kwargs)
        self.plans = [*getattr(self, "plans", []), plan]
        self.asked = [*getattr(self, "asked", []), (states, nominals)]
        return plan


def make_expert(**kwargs: Any) -> SpyExpert:
    return SpyExpert(make_target(limit=1000, **kwargs), CONFIG)


def student(seen: np.ndarray) -> np.ndarray:
    """Act badly, differently in each state, and up to the bounds at times."""
    return np.clip(np.float32([1.0 + 3.0 * np.sin(50 * seen[0])]), -1.0, 3.0)


def drive(
    labeler: Labeler, num_steps: int, *, env_index: int = 0, seed: int = 0, **kwargs: Any
) -> list[tuple[Any, float, bool]]:
    """Let the student act; return state, reward and termination of each step."""
    env = make_target(limit=kwargs.pop("limit", 1000), **kwargs)
    seen, _ = env.reset(seed=seed)
    taken = []
    for _ in range(num_steps):
        state, action = env.snapshot(), student(seen)
        after, reward, terminated, truncated, _ = env.step(action)
        step = StudentStep(state, action, bool(terminated), bool(truncated))
        labeler.record(env_index, step)
        taken.append((state, reward, terminated))
        seen = env.reset()[0] if terminated or truncated else after
    return taken


def real_return(taken: list[tuple[Any, float, bool]], index: int) -> float:
    """Return what the student really earned over the horizon, to the end of the episode at most."""
    total = 0.0
    for h in range(HORIZON):
        _, reward, terminated = taken[index + h]
        total += DISCOUNT**h * reward
        if terminated:
            break
    return total


def index_of(taken: list[tuple[Any, float, bool]], state: Any) -> int:
    return next(i for i, (known, _, _) in enumerate(taken) if known is state)


@pytest.mark.parametrize("end_at", [np.inf, 0.25])
def test_the_nominal_earns_what_the_student_really_earned(end_at):
    expert = make_expert(end_at=end_at)
    labeler = Labeler(expert, 1, memory_steps=100)
    taken = drive(labeler, 40, end_at=end_at)
    assert any(terminated for *_, terminated in taken) == np.isfinite(end_at)
    for seed in range(5):
        labeler.label(6, np.random.default_rng(seed), None)
    for (states, _), plan in zip(expert.asked, expert.plans, strict=True):
        expected = [real_return(taken, index_of(taken, state)) for state in states]
        np.testing.assert_allclose(plan.nominal_returns, expected, rtol=1e-5)


def test_the_nominal_is_the_students_own_near_a_time_limit_too():
    expert = make_expert()
    labeler = Labeler(expert, 1, memory_steps=100)
    env = make_target(limit=1000)
    taken = drive(labeler, 40, limit=7)
    for seed in range(5):
        labeler.label(6, np.random.default_rng(seed), None)
    for (states, _), plan in zip(expert.asked, expert.plans, strict=True):
        for state, nominal_return in zip(states, plan.nominal_returns, strict=True):
            env.restore(taken[index_of(taken, state)][0])
            seen, total = state.observation, 0.0
            for h in range(HORIZON):
                seen, reward, *_ = env.step(student(seen))
                total += DISCOUNT**h * reward
            np.testing.assert_allclose(nominal_return, total, rtol=1e-5)


def test_states_whose_next_actions_are_unknown_are_not_planned_for():
    expert = make_expert()
    labeler = Labeler(expert, 1, memory_steps=100)
    taken = drive(labeler, HORIZON + 2)
    assert labeler.label(4, np.random.default_rng(0), None) is None  # 3 are known to their end
    labeler.label(3, np.random.default_rng(0), None)
    states, _ = expert.asked[0]
    assert sorted(index_of(taken, state) for state in states) == [0, 1, 2]


def test_too_few_steps_give_no_labels_and_cost_nothing():
    expert = make_expert()
    labeler = Labeler(expert, 2)
    assert labeler.label(1, np.random.default_rng(0), None) is None
    drive(labeler, HORIZON - 1)
    assert labeler.label(1, np.random.default_rng(0), None) is None
    assert expert.sim_steps == 0
    drive(labeler, 10)
    labeler.forget()
    assert labeler.label(1, np.random.default_rng(0), None) is None


def test_the_steps_of_each_env_stay_apart():
    expert = make_expert()
    labeler = Labeler(expert, 2, memory_steps=100)
    envs = [drive(labeler, 12, env_index=i, seed=i) for i in range(2)]
    for seed in range(3):
        labeler.label(8, np.random.default_rng(seed), None)
    seen = set()
    for (states, _), plan in zip(expert.asked, expert.plans, strict=True):
        for state, nominal_return in zip(states, plan.nominal_returns, strict=True):
            owner = next(i for i, t in enumerate(envs) if any(k is state for k, *_ in t))
            seen.add(owner)
            expected = real_return(envs[owner], index_of(envs[owner], state))
            np.testing.assert_allclose(nominal_return, expected, rtol=1e-5)
    assert seen == {0, 1}


def test_chosen_states_are_spread_over_time():
    expert = make_expert()
    labeler = Labeler(expert, 1, memory_steps=100)
    taken = drive(labeler, 60 + HORIZON - 1)
    labeler.label(6, np.random.default_rng(0), None)
    indices = np.array([index_of(taken, state) for state in expert.asked[0][0]])
    assert (np.diff(np.sort(indices)) == 10).all()


def test_only_measured_improvements_become_labels():
    expert = make_expert()
    labeler = Labeler(expert, 1, margin=0.05)
    taken = drive(labeler, 12)
    report = labeler.label(5, np.random.default_rng(0), None)
    plan, (states, _) = expert.plans[0], expert.asked[0]
    gains = plan.best_returns - plan.nominal_returns
    better = gains > 0.05 * plan.returns.std(axis=1)
    assert better.any()
    np.testing.assert_array_equal(
        report.labels.observations,
        [s.observation for s, b in zip(states, better, strict=True) if b],
    )
    np.testing.assert_allclose(
        report.labels.actions, expert.scaling.to_env(plan.controls[better, 0]), rtol=1e-6
    )
    order = np.argsort(gains[better])
    assert (np.diff(report.labels.weights[order]) >= 0).all()
    assert (report.labels.weights >= 0.1).all() and (report.labels.weights <= 3).all()
    np.testing.assert_allclose(report.gain, gains.mean())
    np.testing.assert_allclose(report.acceptance, better.mean())
    expected = np.mean([real_return(taken, index_of(taken, state)) for state in states])
    np.testing.assert_allclose(report.student_return, expected, rtol=1e-5)
    assert report.num_states == 5 and report.sim_steps == plan.sim_steps


def test_a_student_that_cannot_be_beaten_gets_no_labels():
    expert = make_expert()
    labeler = Labeler(expert, 1)
    env = make_target(limit=1000)
    env.reset(seed=0)
    for _ in range(12):
        state, action = env.snapshot(), np.array([1.5], dtype=np.float32)  # the very best
        labeler.record(0, StudentStep(state, action, False, False))
        env.step(action)
    report = labeler.label(5, np.random.default_rng(0), None)
    assert report.labels is None
    assert report.acceptance == 0 and report.gain == 0 and report.student_return == 0


def test_a_diverged_student_does_not_spoil_the_report():
    expert = make_expert(break_at=2.5)
    labeler = Labeler(expert, 1)
    env = make_target(limit=1000)
    state = env.snapshot()
    for action in (2.9, 0.0, 0.0, 0.0, 0.0):  # the first one breaks
        labeler.record(0, StudentStep(state, np.array([action], np.float32), False, False))
    report = labeler.label(2, np.random.default_rng(0), None)
    assert np.isneginf(expert.plans[0].nominal_returns).sum() == 1
    assert np.isfinite([report.gain, report.student_return, report.ess]).all()
    assert report.diverged > 0


def test_the_leaf_value_is_added_for_planner_and_student_alike():
    expert = make_expert()
    labeler = Labeler(expert, 1, memory_steps=100)
    taken = drive(labeler, 20)
    labeler.label(
        5, np.random.default_rng(0), LeafValue(lambda seen: np.full(len(seen), 7.0), DISCOUNT)
    )
    states, _ = expert.asked[0]
    expected = [
        real_return(taken, index_of(taken, state)) + DISCOUNT**HORIZON * 7 for state in states
    ]
    np.testing.assert_allclose(expert.plans[0].nominal_returns, expected, rtol=1e-5)


def report_of(gain: float, student_return: float) -> LabelReport:
    return LabelReport(None, 1, 0.0, gain, student_return, 1.0, 0, 1)


def test_the_gap_runs_from_one_to_zero_and_knows_no_reward_scale():
    small, large = Gap(), Gap()
    assert small.share == 1
    for gain, student_return in ((3.0, 1.0), (2.0, -1.0), (0.5, 5.0)):
        small.update(report_of(gain, student_return))
        large.update(report_of(1000 * gain, 1000 * student_return))
        assert 0 < small.share < 1
    np.testing.assert_allclose(small.share, large.share)
    for _ in range(200):
        small.update(report_of(-1.0, 5.0))  # worse plans count as no gain
    assert small.share < 1e-6
    fresh = Gap()
    fresh.update(report_of(1.0, 3.0))
    np.testing.assert_allclose(fresh.share, 0.25)


def run_expert(num: int, num_steps: int, should_stop: Any = lambda: False, **kwargs: Any):
    expert = MPPIAgent(make_target(limit=1000, **kwargs), CONFIG)
    dynamics = target_dynamics(limit=1000, **kwargs)
    states = dynamics.initial_states(num, np.random.default_rng(0))
    simulations = dynamics.simulations(num)
    return expert, expert_episodes(expert, simulations, states, num_steps, should_stop)


def test_expert_labels_are_the_actions_that_it_executed():
    num = 3
    expert, episodes = run_expert(num, 12)
    visited, labels = episodes.states, episodes.labels
    assert len(visited) == len(labels) == len(episodes.rewards) == num * 12
    np.testing.assert_array_equal(labels.observations, [s.observation for s in visited])
    x = np.array([state.physics[0] for state in visited]).reshape(12, num)
    actions = labels.actions.reshape(12, num)
    np.testing.assert_allclose(x[1:], 0.9 * x[:-1] + 0.1 * actions[:-1], atol=1e-6)
    assert np.abs(actions - 1.5).mean() < 0.4  # it found out what pays
    assert episodes.sim_steps == expert.sim_steps + num * 12
    assert (labels.weights == 1).all()


def test_experts_stop_where_the_episode_does():
    _, episodes = run_expert(3, 30, end_at=0.5)
    visited, labels = episodes.states, episodes.labels
    x = np.array([state.physics[0] for state in visited])
    assert len(labels) == len(visited) < 3 * 30
    assert x.max() <= 0.5
    after = 0.9 * x + 0.1 * labels.actions[:, 0]
    assert (after > 0.5).sum() == 3  # each took its last step into the end


def test_experts_stop_when_told_to():
    calls = []
    _, episodes = run_expert(2, 30, should_stop=lambda: calls.append(0) or len(calls) > 3)
    assert 0 < len(episodes.states) < 60


@pytest.mark.parametrize(("num_paid", "is_sparse"), [(0, True), (9, True), (10, False)])
def test_reward_is_sparse_where_hardly_a_step_earns_any(num_paid, is_sparse):
    _, episodes = run_expert(1, 2)
    rewards = np.zeros(100)
    rewards[:num_paid] = -1.0
    assert replace(episodes, rewards=rewards).is_sparse == is_sparse
