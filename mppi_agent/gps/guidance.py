"""The planner's part of a round: expert episodes first, then labels where plans beat it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from mppi_agent.demonstrations import Demonstration, check_demonstrations
from mppi_agent.gps.dataset import LabelBatch, LabelDataset
from mppi_agent.gps.demonstrations import demonstrated_labels
from mppi_agent.gps.engine import Engine
from mppi_agent.gps.labels import LabelReport
from mppi_agent.gps.policies import settle_normalizers, update_normalizers
from mppi_agent.gps.regression import LabelRegression
from mppi_agent.gps.schedules import Gap, StepBudget
from mppi_agent.planning import LeafValue

__all__ = ["Guidance", "GuidanceConfig"]

_LEAST_GAP = 0.05  # keeps probing for plans that beat the student
_MOST_PATIENCE = 16
_MORE_EPISODES = 8  # times as many of the expert's where reward is rare
_NOISE_LABELS = 2000
_SETTLED_COUNT = 500_000  # of observations; a round brings some thousands


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """Configure the planner's part of a round.

    Attributes:
        label_states: States per labelling call; 0: no labels.
        label_steps: Most regression steps at a time.
        label_interval: Rounds from one regression to the next, while they pay.
        planner_share: Largest share of simulated steps that plans may take.
        max_grad_norm: Gradient norm limit of the regression.
    """

    label_states: int = 8
    label_steps: int = 100
    label_interval: int = 10
    planner_share: float = 0.5
    max_grad_norm: float = 1.0


class Guidance:
    """Spend simulated steps on plans, and regression on labels, as the measured gap deserves.

    Args:
        seed: Of the choice of states and labels.

    Attributes:
        gap: How far plans beat the student.
        round_number: Set by whoever runs the rounds; labels age by it.
    """

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self.configure(GuidanceConfig())
        self._budget = StepBudget()
        self.reseed(seed)
        self._is_paying = False
        self._patience = 1
        self._next_phase = self._config.label_interval
        self._last_probe: float | None = None
        self._plan_steps = 0
        self._sample_steps = 0
        self.gap = Gap()
        self.round_number = 0

    @property
    def is_paying(self) -> bool:
        """Whether the last regression on labels was worth its price.

        Only then do simulations start from archived states, too. Where sampling learns by itself,
        starts that no episode begins from distract it.
        """
        return self._is_paying

    def reseed(self, seed: np.random.SeedSequence) -> None:
        """Choose states and labels by another seed from now on."""
        self._rng = np.random.default_rng(seed)

    def configure(self, config: GuidanceConfig) -> None:
        """Change the settings; what was measured so far is kept."""
        self._config = config
        self._regression = LabelRegression(max_grad_norm=config.max_grad_norm)

    def watch_expert(
        self,
        engine: Engine,
        policy: ActorCriticPolicy,
        dataset: LabelDataset,
        *,
        num_episodes: int,
        num_steps: int,
        should_stop: Callable[[], bool],
    ) -> tuple[int, dict[str, float]]:
        """Archive the expert's first episodes; they are the first labels.

        Where hardly a step of them earns anything, more follow: what leads to a rare reward must
        be seen from many places.

        Returns:
            Env steps simulated, and figures for the log.
        """
        first = engine.expert_episodes(num_episodes, num_steps, should_stop)
        watched = [first]
        if first.is_sparse and not should_stop():
            more = (_MORE_EPISODES - 1) * num_episodes
            watched.append(engine.expert_episodes(more, num_steps, should_stop))
        for episodes in watched:
            engine.archive.add_expert(episodes.states)
            # Not into the observation statistics: a planner tumbles through states that no student
            # visits, and a few of them widen the scale of a pitch angle for good.
            dataset.add(episodes.labels, self.round_number)
        sim_steps = sum(episodes.sim_steps for episodes in watched)
        self._plan_steps += sim_steps
        untrained = engine.probe(policy)
        self._last_probe = untrained.mean
        num_watched = sum(len(episodes.states) for episodes in watched)
        return sim_steps + untrained.sim_steps, {"planner/expert_steps": float(num_watched)}

    def imitate(
        self,
        engine: Engine,
        policy: ActorCriticPolicy,
        optimizer: th.optim.Optimizer,
        dataset: LabelDataset,
        demonstrations: Sequence[Demonstration],
        *,
        num_steps: int,
        min_std: float,
    ) -> int:
        """Regress on somebody's actions and keep labels and states of theirs beside the planner's.

        Raises:
            ValueError: If demonstrations come from another env.

        Returns:
            Env steps simulated.
        """
        dynamics = engine.dynamics
        check_demonstrations(demonstrations, dynamics.observation_space, dynamics.action_space)
        labels = demonstrated_labels(demonstrations)
        engine.archive.add_expert(engine.demonstrated_states(demonstrations))
        num_kept = min(len(labels), dataset.capacity // 2)  # evenly, and with room for more
        kept = np.linspace(0, len(labels) - 1, num_kept, dtype=int)
        dataset.add(labels.select(kept), self.round_number)
        before = engine.probe(policy)
        # Samples that came next would shift what a copied policy sees before it can adapt.
        engine.view.count(labels.observations)
        labels = replace(labels, observations=engine.view.observe(labels.observations))
        update_normalizers(policy, labels.observations)
        settle_normalizers(policy, _SETTLED_COUNT)

        def draw(num: int) -> LabelBatch:
            return labels.select(self._rng.integers(len(labels), size=num))

        self._regression.fit(policy, optimizer, draw, num_steps)
        self._regression.match_noise(policy, draw(_NOISE_LABELS), min_std)
        after = engine.probe(policy)
        self._is_paying = after.mean > before.mean
        self._last_probe = after.mean
        return before.sim_steps + after.sim_steps

    def earn(self, sim_steps: int) -> None:
        """Grant plans their share beside `sim_steps` of samples."""
        share = self._config.planner_share * max(self.gap.share, _LEAST_GAP) / self._patience
        self._budget.earn(sim_steps, share)
        self._sample_steps += sim_steps

    def label(
        self,
        engine: Engine,
        dataset: LabelDataset,
        leaf_value: LeafValue | None,
    ) -> LabelReport | None:
        """Plan for some of the student's states if the budget allows it.

        Args:
            engine: Plans.
            dataset: Takes the labels.
            leaf_value: Value head, for where plans end; None while it is not to be trusted.

        Returns:
            What was measured; None if nothing was planned.
        """
        cost = self._config.label_states * engine.expert.config.steps_per_plan
        if not self._config.label_states or not self._budget.has(cost):
            return None
        report = engine.labeler.label(self._config.label_states, self._rng, leaf_value)
        if report is not None:
            self._budget.pay(cost)
            self._plan_steps += report.sim_steps
            self.gap.update(report)
            if report.labels is not None:
                dataset.add(report.labels, self.round_number)
        return report

    def regress(
        self,
        engine: Engine,
        policy: ActorCriticPolicy,
        optimizer: th.optim.Optimizer,
        dataset: LabelDataset,
    ) -> tuple[int, dict[str, float]]:
        """Regress on labels when it is time to, for as many steps as the gap deserves.

        The outcome is taken back unless the student gained at least what samples gained it for as
        many simulated steps: labels lead where sampling around the policy is stuck, and do not
        get in the way where it learns by itself. It is probed from where simulations start,
        archived states among them while they do. Each failure doubles the rounds until the next
        try.

        Returns:
            Env steps simulated, and figures for the log.
        """
        steps = round(self._config.label_steps * self.gap.share)
        if self.round_number < self._next_phase or not steps or not len(dataset):
            return 0, {}
        # What sampling learns where reward is rare shows first from the states ahead.
        archived = engine.archived_probe_states(self._rng)
        before = engine.probe(policy, archived)
        weights, moments = copy.deepcopy((policy.state_dict(), optimizer.state_dict()))
        loss = self._fit(engine, policy, optimizer, dataset, steps)
        after = engine.probe(policy, archived)
        gain = after.gain_over(before)
        paid = gain >= max(self._price(before.mean), 0.0)
        if not paid:
            policy.load_state_dict(weights)
            optimizer.load_state_dict(moments)
        self._is_paying = paid
        self._patience = 1 if paid else min(2 * self._patience, _MOST_PATIENCE)
        self._next_phase = self.round_number + self._config.label_interval * self._patience
        self._last_probe = after.mean if paid else before.mean
        self._plan_steps = self._sample_steps = 0
        figures = {"train/label_loss": loss, "train/label_gain": gain, "train/labels_paid": paid}
        return before.sim_steps + after.sim_steps, figures

    def _price(self, probe: float) -> float:
        """Return what samples gained since the last phase, for as many steps as plans took."""
        if self._last_probe is None or not self._sample_steps:
            return 0.0
        gained = max(probe - self._last_probe, 0.0)
        return gained * self._plan_steps / self._sample_steps

    def _fit(
        self,
        engine: Engine,
        policy: ActorCriticPolicy,
        optimizer: th.optim.Optimizer,
        dataset: LabelDataset,
        num_steps: int,
    ) -> float:
        def draw(num: int) -> LabelBatch | None:
            labels = dataset.sample(num, self.round_number, self._rng)
            if labels is None:
                return None
            return replace(labels, observations=engine.view.observe(labels.observations))

        return self._regression.fit(policy, optimizer, draw, num_steps)
