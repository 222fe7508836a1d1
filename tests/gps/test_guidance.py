"""Labels stay only where they pay: otherwise the policy is put back bit for bit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from toy_envs import make_policy, plain_view

from mppi_agent.gps.dataset import LabelBatch, LabelDataset, StateArchive
from mppi_agent.gps.evaluation import Probe
from mppi_agent.gps.guidance import Guidance, GuidanceConfig
from mppi_agent.gps.labels import ExpertEpisodes
from mppi_agent.gps.schedules import Gap, StepBudget


class ProbedEngine:
    """Reports the returns that a test dictates, one per probe, and those from archived states."""

    def __init__(self, *means: float, archived: tuple[float, ...] = ()) -> None:
        self._means = iter(means)
        self._archived = iter(archived)
        self._num_archived = 1 if archived else 0
        self.view = plain_view()

    def probe(self, policy, archived=()):
        others = np.array([next(self._archived) for _ in archived])
        return Probe(np.full(2, next(self._means)), others, sim_steps=10)

    def archived_probe_states(self, rng):
        return [SimpleNamespace()] * self._num_archived


def make_guidance(**kwargs):
    guidance = Guidance(np.random.SeedSequence(0))
    guidance.configure(GuidanceConfig(label_interval=1, label_steps=5, **kwargs))
    guidance.round_number = 100
    return guidance


def regress(guidance, policy, *means, archived=()):
    labels = LabelDataset(half_life=10, capacity=100)
    observations = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    labels.add(LabelBatch(observations, np.ones((20, 1), np.float32), np.ones(20)), 100)
    optimizer = th.optim.Adam(policy.parameters(), lr=1e-2)
    engine = ProbedEngine(*means, archived=archived)
    return guidance.regress(engine, policy, optimizer, labels)


def weights(policy):
    return th.nn.utils.parameters_to_vector(policy.parameters()).detach().clone()


class PaidEngine(ProbedEngine):
    """Shows episodes of the expert, of ten steps each, that earn what a test dictates."""

    def __init__(self, reward: float) -> None:
        super().__init__(0.0)
        self.archive = StateArchive(1000)
        self.asked: list[int] = []
        self._reward = reward

    def expert_episodes(self, num, num_steps, should_stop):
        self.asked.append(num)
        labels = LabelBatch(np.zeros((10 * num, 2)), np.zeros((10 * num, 1)), np.ones(10 * num))
        states = [SimpleNamespace() for _ in range(10 * num)]
        return ExpertEpisodes(states, labels, np.full(10 * num, self._reward), 100 * num)


@pytest.mark.parametrize(
    ("reward", "is_over", "asked"), [(0.5, False, [2]), (0.0, False, [2, 14]), (0.0, True, [2])]
)
def test_the_expert_shows_more_where_reward_is_rare(reward, is_over, asked):
    engine, dataset = PaidEngine(reward), LabelDataset(half_life=10, capacity=1000)
    sim_steps, figures = make_guidance().watch_expert(
        engine, make_policy(), dataset, num_episodes=2, num_steps=10, should_stop=lambda: is_over
    )
    assert engine.asked == asked
    assert len(dataset) == len(engine.archive) == figures["planner/expert_steps"] == 10 * sum(asked)
    assert sim_steps == 100 * sum(asked) + 10


def test_labels_that_help_are_kept():
    policy = make_policy()
    before = weights(policy)
    sim_steps, figures = regress(make_guidance(), policy, 1.0, 2.0)
    assert figures["train/labels_paid"] and figures["train/label_gain"] == 1.0
    assert sim_steps == 20
    assert not th.equal(weights(policy), before)


def test_labels_that_hurt_leave_no_trace():
    policy = make_policy()
    before = weights(policy)
    _, figures = regress(make_guidance(), policy, 2.0, 1.0)
    assert not figures["train/labels_paid"]
    assert th.equal(weights(policy), before)


@pytest.mark.parametrize(("archived", "paid"), [((0.0, 1.0), True), ((1.0, 0.0), False)])
def test_what_shows_only_from_archived_states_counts(archived, paid):
    _, figures = regress(make_guidance(), make_policy(), 0.0, 0.0, archived=archived)
    assert figures["train/labels_paid"] == paid
    np.testing.assert_allclose(figures["train/label_gain"], (archived[1] - archived[0]) / 3)


def test_labels_must_gain_what_samples_gained_for_as_many_steps():
    guidance, policy = make_guidance(), make_policy()
    regress(guidance, policy, 0.0, 0.0)  # the last probe is 0
    guidance.earn(1000)
    guidance._plan_steps = 500  # half as many as samples took
    guidance.round_number += 100
    before = weights(policy)
    # Samples gained 10, so plans had to gain 5.
    _, figures = regress(guidance, policy, 10.0, 14.9)
    assert not figures["train/labels_paid"]
    assert th.equal(weights(policy), before)


def test_a_gain_that_was_taken_back_is_no_gain_of_samples():
    guidance, policy = make_guidance(), make_policy()
    regress(guidance, policy, 0.0, 0.0)
    for before, after in [(10.0, 12.0), (10.0, 10.5)]:
        guidance.earn(1000)
        guidance._plan_steps = 1000
        guidance.round_number += 100
        # At first samples gained 10 and labels 2: taken back. Then samples gained nothing.
        _, figures = regress(guidance, policy, before, after)
    assert figures["train/labels_paid"]


def test_it_says_whether_the_last_labels_paid():
    guidance, policy = make_guidance(), make_policy()
    assert not guidance.is_paying
    regress(guidance, policy, 1.0, 2.0)
    assert guidance.is_paying
    guidance.round_number += 100
    regress(guidance, policy, 2.0, 1.0)
    assert not guidance.is_paying


def test_each_failure_doubles_the_wait():
    guidance, policy = make_guidance(), make_policy()
    waits = []
    for _ in range(4):
        regress(guidance, policy, 2.0, 1.0)
        start = guidance.round_number
        while not regress(guidance, policy, 2.0, 1.0)[1]:
            guidance.round_number += 1
        waits.append(guidance.round_number - start)
        guidance.round_number += 100
    assert waits == sorted(waits) and waits[0] < waits[-1]


def test_the_gap_is_a_share_without_a_scale():
    shares = []
    for scale in (1.0, 1000.0):
        gap = Gap()
        assert gap.share == 1.0
        gap.update(SimpleNamespace(gain=1.0 * scale, student_return=3.0 * scale))
        shares.append(gap.share)
    np.testing.assert_allclose(shares, 0.25)


def test_a_step_budget_spends_the_share_that_it_earns():
    budget, spent = StepBudget(), 0
    for _ in range(1000):
        budget.earn(100, share=0.2)
        while budget.has(70):
            budget.pay(70)
            spent += 70
    np.testing.assert_allclose(spent / (spent + 100_000), 0.2, rtol=0.01)
