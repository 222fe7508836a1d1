"""The monitor keeps the best weights and leaves a coarse model that misleads."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from toy_envs import make_policy

from mppi_agent.gps.monitor import Monitor


class DictatedEngine:
    """Evaluates to what a test dictates: pairs of returns on the true and the coarse model."""

    evaluation_steps = 1
    is_coarse = True

    def __init__(self, *pairs: tuple[float, float]) -> None:
        self._means = iter([mean for pair in pairs for mean in pair])

    def evaluate(self, policy, discount=None, *, on_coarse=False):
        mean = next(self._means)
        returns = SimpleNamespace(min=lambda: mean)
        return SimpleNamespace(mean=mean, sim_steps=1, value_r2=0.0, returns=returns)

    def use_true_model(self) -> None:
        self.is_coarse = False


def look(engine: DictatedEngine, times: int, progress_remaining: float = 1.0) -> None:
    monitor, policy = Monitor(0.99), make_policy()
    for _ in range(times):
        monitor.earn(1000)
        monitor.look(engine, policy, progress_remaining)


def worsened(monitor: Monitor, engine: DictatedEngine) -> tuple[ActorCriticPolicy, th.Tensor]:
    """Return a policy that was good once and is not any more, and the bias that it had then."""
    policy = make_policy()
    monitor.offer(engine, policy)
    best = policy.action_net.bias.detach().clone()
    with th.no_grad():
        policy.action_net.bias.add_(1.0)
    return policy, best


def test_the_best_weights_come_back():
    monitor, engine = Monitor(0.99), DictatedEngine((3.0, 1.0))
    policy, best = worsened(monitor, engine)
    monitor.finish(engine, policy)
    assert monitor.best_mean == 3.0
    assert th.equal(policy.action_net.bias, best)


def test_training_goes_on_from_the_latest_weights_as_if_it_had_not_finished():
    monitor, engine = Monitor(0.99), DictatedEngine((3.0, 5.0))
    policy, best = worsened(monitor, engine)
    monitor.finish(engine, policy)
    assert monitor.best_mean == 5.0
    monitor.go_on(policy)
    assert monitor.best_mean == 3.0
    assert th.equal(policy.action_net.bias, best + 1.0)


def test_weights_that_the_user_put_in_after_training_stay():
    monitor, engine = Monitor(0.99), DictatedEngine((3.0, 1.0))
    policy, _ = worsened(monitor, engine)
    monitor.finish(engine, policy)
    with th.no_grad():
        policy.action_net.bias.fill_(7.0)
    monitor.go_on(policy)
    assert (policy.action_net.bias == 7.0).all()


def test_a_coarse_model_that_helps_the_true_one_is_kept():
    engine = DictatedEngine((1, 9), (2, 10), (3, 11), (4, 12), (5, 13))
    look(engine, 5)
    assert engine.is_coarse


def test_a_coarse_model_that_only_helps_itself_is_left():
    engine = DictatedEngine((5, 9), (4, 10), (4, 11), (4, 12))
    look(engine, 4)
    assert not engine.is_coarse


@pytest.mark.parametrize(
    ("pairs", "is_left"),
    [
        (((0, 0), (10, 10), (5, 9), (5, 9), (5, 9)), True),
        (((0, 0), (10, 10), (5, 6), (5, 6), (5, 6)), False),  # worse on both
        (((0, 0), (10, 10), (5, 9), (8, 9), (5, 9)), False),
    ],
)
def test_a_coarse_model_whose_promises_the_true_one_does_not_keep_is_left(pairs, is_left):
    engine = DictatedEngine(*pairs)
    look(engine, len(pairs))
    assert engine.is_coarse is not is_left


def test_the_end_of_training_runs_on_the_true_model():
    engine = DictatedEngine((1, 1))
    look(engine, 1, progress_remaining=0.1)
    assert not engine.is_coarse


def test_the_end_of_training_runs_on_the_true_model_however_rare_evaluations_are():
    monitor, engine = Monitor(0.99), DictatedEngine()
    monitor.look(engine, make_policy(), 0.3)
    assert engine.is_coarse
    monitor.look(engine, make_policy(), 0.2)  # nothing was earned that would pay for one
    assert not engine.is_coarse


@pytest.mark.parametrize(
    ("means", "goes_back"),
    [
        ((0, 10, 6, 6, 6), True),
        ((0, 10, 8, 8, 8), False),  # a fifth of its progress
        ((0, 10, 6, 6, 9), False),
        ((10, 6, 6, 6), False),  # there was no progress yet
        ((-np.inf, 0, 10, 6, 6, 6), True),
    ],
)
def test_a_student_that_has_lost_its_way_goes_back_to_its_best(means, goes_back):
    monitor, policy = Monitor(0.99), make_policy()
    engine = DictatedEngine(*((mean, 0) for mean in means))
    best = None
    for mean in means:
        monitor.earn(1000)
        with th.no_grad():
            policy.action_net.bias.add_(1.0)
        if mean == 10:
            best = policy.action_net.bias.detach().clone()
        monitor.look(engine, policy, 1.0)
    assert th.equal(policy.action_net.bias, best) is goes_back


def test_the_best_weights_are_measured_again_by_another_engine():
    monitor = Monitor(0.99)
    policy, best = worsened(monitor, DictatedEngine((3.0, 0.0)))
    now = policy.action_net.bias.detach().clone()
    assert monitor.judge_anew(DictatedEngine((-7.0, 0.0)), policy) == 1
    assert monitor.best_mean == -7.0
    assert th.equal(policy.action_net.bias, now)
    monitor.finish(DictatedEngine((-8.0, 0.0)), policy)
    assert th.equal(policy.action_net.bias, best)
    assert Monitor(0.99).judge_anew(DictatedEngine(), policy) == 0


class InterruptedEngine(DictatedEngine):
    def evaluate(self, *args, **kwargs):
        raise KeyboardInterrupt


def test_what_interrupts_the_second_measurement_costs_no_weights_and_no_judgement():
    monitor = Monitor(0.99)
    policy, _ = worsened(monitor, DictatedEngine((3.0, 0.0)))
    now = policy.action_net.bias.detach().clone()
    with pytest.raises(KeyboardInterrupt):
        monitor.judge_anew(InterruptedEngine(), policy)
    assert th.equal(policy.action_net.bias, now)
    assert monitor.best_mean == -np.inf  # not that of another env


def test_where_training_never_began_the_best_weights_come_back_all_the_same():
    monitor = Monitor(0.99)
    policy, best = worsened(monitor, DictatedEngine((3.0, 0.0)))
    assert monitor.finish(None, policy) == 0
    assert th.equal(policy.action_net.bias, best)
    monitor.go_on(policy)
    assert th.equal(policy.action_net.bias, best + 1.0)
