"""The monitor keeps the best weights and leaves a coarse model that misleads."""

from __future__ import annotations

from types import SimpleNamespace

import torch as th
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


def test_the_best_weights_come_back():
    monitor, policy = Monitor(0.99), make_policy()
    engine = DictatedEngine((3.0, 1.0))
    monitor.offer(engine, policy)  # 3
    best = policy.action_net.bias.detach().clone()
    with th.no_grad():
        policy.action_net.bias.add_(1.0)
    monitor.offer(engine, policy)  # 1
    monitor.restore_best(policy)
    assert monitor.best_mean == 3.0
    assert th.equal(policy.action_net.bias, best)


def test_a_coarse_model_that_helps_the_true_one_is_kept():
    engine = DictatedEngine((1, 9), (2, 10), (3, 11), (4, 12), (5, 13))
    look(engine, 5)
    assert engine.is_coarse


def test_a_coarse_model_that_only_helps_itself_is_left():
    engine = DictatedEngine((5, 9), (4, 10), (4, 11), (4, 12))
    look(engine, 4)
    assert not engine.is_coarse


def test_the_end_of_training_runs_on_the_true_model():
    engine = DictatedEngine((1, 1))
    look(engine, 1, progress_remaining=0.1)
    assert not engine.is_coarse
