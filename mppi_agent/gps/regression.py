"""Regress the student onto planner labels (the DAgger part of a round)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from mppi_agent.gps.action_heads import action_head
from mppi_agent.gps.dataset import LabelBatch
from mppi_agent.gps.policies import normalised_units
from mppi_agent.gps.view import as_tensors

__all__ = ["LabelRegression"]


@dataclass(frozen=True, kw_only=True)
class LabelRegression:
    """Pull the policy without its noise towards labels, each by its weight.

    It has an optimiser of its own: its gradients are far larger than those of the weighted
    samples, and shared moments would slow those down.

    Attributes:
        batch_size: Labels per gradient step.
        margin: Huber threshold of continuous actions, half-range units: a label further off pulls
            no harder.
        max_grad_norm: Gradient norm limit.
    """

    batch_size: int = 256
    margin: float = 0.2
    max_grad_norm: float = 1.0

    def fit(
        self,
        policy: ActorCriticPolicy,
        optimizer: th.optim.Optimizer,
        draw_labels: Callable[[int], LabelBatch | None],
        num_steps: int,
    ) -> float:
        """Take gradient steps.

        Args:
            policy: Improved in place.
            optimizer: Of the policy's parameters.
            draw_labels: Called with a number; returns that many labels, None if there are none.
            num_steps: Gradient steps.

        Returns:
            Mean loss; NaN without labels or steps.
        """
        total = float("nan")
        policy.set_training_mode(True)
        with normalised_units(policy, 0.0, 1.0):
            for step in range(num_steps):
                labels = draw_labels(self.batch_size)
                if labels is None:
                    break
                loss = self._loss(policy, labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                th.nn.utils.clip_grad_norm_(policy.parameters(), self.max_grad_norm)
                optimizer.step()
                total = loss.item() + (total if step else 0.0)
        policy.set_training_mode(False)
        return total / max(num_steps, 1)

    @th.no_grad()
    def match_noise(self, policy: ActorCriticPolicy, labels: LabelBatch, min_std: float) -> None:
        """Lower a Gaussian policy's noise to how far labels scatter around it.

        With more of it a policy that was just copied meets nothing of what made its teacher
        succeed, and unlearns the rest.

        Args:
            policy: Changed in place.
            labels: What it regressed on.
            min_std: Half-range units; no less noise than this.
        """
        head = action_head(policy.action_space)
        with normalised_units(policy, 0.0, 1.0):
            distribution = policy.get_distribution(as_tensors(policy, labels.observations))
            targets = head.as_targets(policy, labels.actions)
            head.match_noise(policy, distribution, targets, min_std)

    def _loss(self, policy: ActorCriticPolicy, labels: LabelBatch) -> th.Tensor:
        head = action_head(policy.action_space)
        distribution = policy.get_distribution(as_tensors(policy, labels.observations))
        weights = th.as_tensor(labels.weights, dtype=th.float32, device=policy.device)
        weights = weights / weights.mean().clamp(min=1e-8)
        targets = head.as_targets(policy, labels.actions)
        return (weights * head.errors(distribution, targets, self.margin)).mean()
