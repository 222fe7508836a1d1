"""Watch the student on the true env, in simulation, and keep its best weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from mppi_agent.gps.engine import Engine
from mppi_agent.gps.evaluation import Evaluation
from mppi_agent.gps.schedules import StepBudget

__all__ = ["Monitor"]

Weights = dict[str, th.Tensor]

_EVAL_SHARE = 0.05  # of simulated steps
_MOST_COARSE_FAILURES = 3
_TRUE_SHARE = 0.25  # of the training that always runs on the true model
_MOST_LOST = 0.3  # of the progress since the first evaluation
_MOST_LOSSES = 3  # in a row, before training goes back to the best


class Monitor:
    """Evaluate the student now and then, keep its best weights, watch what misleads.

    Attributes:
        best_mean: Mean return of the best weights so far, undiscounted.
        value_r2: Share of held-out returns that the value head explained last; NaN at first.
    """

    def __init__(self, discount: float) -> None:
        self._discount = discount
        self.value_r2 = float("nan")
        self.best_mean = -np.inf
        self._best_weights: Weights | None = None
        self._aside: _Aside | None = None
        self._budget = StepBudget()
        self._coarse_failures = 0
        self._best_coarse_mean = -np.inf
        self._first_mean = -np.inf
        self._losses = 0

    def earn(self, sim_steps: int) -> None:
        """Grant evaluations their share beside `sim_steps` of samples."""
        self._budget.earn(sim_steps, _EVAL_SHARE)

    def look(
        self, engine: Engine, policy: ActorCriticPolicy, progress_remaining: float
    ) -> tuple[int, dict[str, float]]:
        """Evaluate if it is time to.

        The coarse model is left for the true one when three evaluations in a row on the true one,
        none of them the best so far, lack 30 % of the progress that the coarse one shows, or
        returns on that go on rising; and when training nears its end. A student that has lost 30 %
        of its progress, three in a row, goes back to its best weights.

        Returns:
            Env steps simulated, and figures for the log.
        """
        if engine.is_coarse and progress_remaining < _TRUE_SHARE:
            engine.use_true_model()
        if not self._budget.has(engine.evaluation_steps):
            return 0, {}
        self._budget.pay(engine.evaluation_steps)
        result = self.offer(engine, policy)
        sim_steps = result.sim_steps
        figures = {
            "student/mean_reward": result.mean,
            "student/min_reward": float(result.returns.min()),
            "student/value_r2": self.value_r2,
            "student/best_mean_reward": self.best_mean,
        }
        if not np.isfinite(self._first_mean):
            self._first_mean = result.mean
        if engine.is_coarse:
            coarse = engine.evaluate(policy, on_coarse=True)
            sim_steps += coarse.sim_steps
            figures["student/coarse_mean_reward"] = coarse.mean
            if self._is_misled(result.mean, coarse.mean):
                engine.use_true_model()
        if self._has_lost_its_way(result.mean) and self._best_weights is not None:
            policy.load_state_dict(self._best_weights)
        return sim_steps, figures

    def _is_misled(self, mean: float, coarse_mean: float) -> bool:
        """Say whether to leave the coarse model: it promised what the true one did not keep."""
        is_record = coarse_mean >= self._best_coarse_mean
        self._best_coarse_mean = max(self._best_coarse_mean, coarse_mean)
        unkept = coarse_mean - mean > _MOST_LOST * (coarse_mean - self._first_mean) > 0
        misleads = mean < self.best_mean and (is_record or unkept)
        self._coarse_failures = self._coarse_failures + 1 if misleads else 0
        return self._coarse_failures >= _MOST_COARSE_FAILURES

    def _has_lost_its_way(self, mean: float) -> bool:
        """Say whether to go back to the best weights, which starts the count anew."""
        progress = self.best_mean - self._first_mean
        is_loss = self.best_mean - mean > _MOST_LOST * progress > 0
        self._losses = self._losses + 1 if is_loss else 0
        if self._losses < _MOST_LOSSES:
            return False
        self._losses = 0
        return True

    def offer(self, engine: Engine, policy: ActorCriticPolicy) -> Evaluation:
        """Evaluate the policy and keep its weights if they are the best so far."""
        result = engine.evaluate(policy, self._discount)
        self.value_r2 = result.value_r2
        if result.mean >= self.best_mean:
            self.best_mean = result.mean
            self._best_weights = _copy_weights(policy)
        return result

    def judge_anew(self, engine: Engine, policy: ActorCriticPolicy) -> int:
        """Measure the best weights again: in another env their return was no measure for this one.

        Returns:
            Env steps simulated.
        """
        if self._best_weights is None:
            return 0
        latest, self.best_mean = _copy_weights(policy), -np.inf
        policy.load_state_dict(self._best_weights)
        try:
            result = engine.evaluate(policy)
        finally:
            policy.load_state_dict(latest)
        self.best_mean = result.mean
        self._coarse_failures, self._best_coarse_mean = 0, -np.inf
        return result.sim_steps

    def finish(self, engine: Engine | None, policy: ActorCriticPolicy) -> int:
        """Evaluate a last time and put the best weights into the policy; `go_on` undoes both.

        Args:
            engine: Evaluates; None: training failed before it began, and nothing is new.
            policy: What was trained.

        Returns:
            Env steps simulated.
        """
        latest, judged = _copy_weights(policy), (self.value_r2, self.best_mean, self._best_weights)
        sim_steps = 0 if engine is None else self.offer(engine, policy).sim_steps
        if self._best_weights is not None:  # None: none yet, or no return was a number
            policy.load_state_dict(self._best_weights)
        self._aside = _Aside(latest, _copy_weights(policy), judged)
        return sim_steps

    def go_on(self, policy: ActorCriticPolicy) -> None:
        """Take up what `finish` put aside: training goes on as if it had not stopped.

        Weights that somebody changed since then stay as they are.
        """
        aside, self._aside = self._aside, None
        if aside is None:
            return
        self.value_r2, self.best_mean, self._best_weights = aside.judged
        now = _copy_weights(policy)
        if all(th.equal(now[name], kept) for name, kept in aside.kept.items()):
            policy.load_state_dict(aside.latest)


class _Aside(NamedTuple):
    """Hold the weights that training goes on from, those kept meanwhile, and what was measured."""

    latest: Weights
    kept: Weights
    judged: tuple[float, float, Weights | None]


def _copy_weights(policy: ActorCriticPolicy) -> Weights:
    # On the CPU, so that a model saved from elsewhere loads on any machine.
    return {name: tensor.detach().cpu().clone() for name, tensor in policy.state_dict().items()}
