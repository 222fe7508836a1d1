"""Regress the student onto planner labels (the DAgger part of a round)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch as th
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional as F

from mppi_agent.gps.dataset import LabelBatch
from mppi_agent.gps.policies import normalised_actions, normalised_units
from mppi_agent.gps.view import as_tensors

__all__ = ["LabelRegression"]


@dataclass(frozen=True, kw_only=True)
class LabelRegression:
    """Pull the policy's mean action towards labels, each by its weight.

    It has an optimiser of its own: its gradients are far larger than those of the weighted
    samples, and shared moments would slow those down.

    Attributes:
        batch_size: Labels per gradient step.
        margin: Huber threshold, half-range units: a label further off pulls no harder.
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

        That is the noise under which they are most likely. With more of it a policy that was just
        copied meets nothing of what made its teacher succeed, and unlearns the rest.

        Args:
            policy: Changed in place.
            labels: What it regressed on.
            min_std: Half-range units; no less noise than this.
        """
        if not isinstance(policy.action_dist, DiagGaussianDistribution):
            return
        assert isinstance(policy.log_std, th.nn.Parameter)
        actions = normalised_actions(policy, labels.actions)
        with normalised_units(policy, 0.0, 1.0):
            distribution: Any = policy.get_distribution(as_tensors(policy, labels.observations))
            errors = distribution.distribution.mean - actions
            scatter = errors.square().mean(dim=0).sqrt().clamp(min=min_std)
            policy.log_std.copy_(th.minimum(policy.log_std, scatter.log()))

    def _loss(self, policy: ActorCriticPolicy, labels: LabelBatch) -> th.Tensor:
        distribution: Any = policy.get_distribution(as_tensors(policy, labels.observations))
        weights = th.as_tensor(labels.weights, dtype=th.float32, device=policy.device)
        weights = weights / weights.mean().clamp(min=1e-8)
        actions = normalised_actions(policy, labels.actions)
        if isinstance(policy.action_dist, DiagGaussianDistribution):
            mean = distribution.distribution.mean
            errors = F.huber_loss(mean, actions, reduction="none", delta=self.margin)
            return (weights * errors.sum(dim=1)).mean()
        return -(weights * distribution.log_prob(actions)).mean()
