"""Turn weighted samples into a better policy, inside a trust region.

One object, `TrustRegionUpdate`, owns the step: advantages weigh the samples and the step size
follows the measured KL divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.utils import update_learning_rate
from torch.nn import functional as F

from mppi_agent.dynamics.observations import reshape_leading, select_rows
from mppi_agent.gps.action_heads import ActionHead, action_head
from mppi_agent.gps.policies import normalised_units
from mppi_agent.gps.sampler import SampleBatch
from mppi_agent.gps.view import as_tensors
from mppi_agent.planning import softmax_weights, temperature_for_ess

__all__ = [
    "LEAST_EXPLAINED",
    "PolicyLoss",
    "TrustRegionUpdate",
    "UpdateConfig",
    "clipped_loss",
    "path_integral_loss",
]

LEAST_EXPLAINED = 0.5  # of the variance of returns, for a value head to be of use
_MOST_VALUE_ROUNDS = 20

PolicyLoss = Callable[[th.Tensor, th.Tensor], th.Tensor]


@dataclass(frozen=True, kw_only=True)
class UpdateConfig:
    """Configure the policy update.

    Attributes:
        batch_size: Samples per gradient step.
        n_epochs: Passes over a round's samples.
        clip_range: Largest relative change of a sample's likelihood that still pays.
        target_kl: KL divergence per round that the step size is adapted to, nats.
        vf_coef: Weight of the value loss.
        ent_coef: Weight of the entropy bonus.
        max_grad_norm: Gradient norm limit.
        min_std: Floor of a Gaussian policy's noise, half-range units.
        random_share: Share of random choices among the sampled actions, where they are discrete.
    """

    batch_size: int = 2048
    n_epochs: int = 5
    clip_range: float = 0.2
    target_kl: float = 0.02
    vf_coef: float = 0.5
    ent_coef: float = 0.0
    max_grad_norm: float = 1.0
    min_std: float = 0.05
    random_share: float = 0.0


def clipped_loss(clip_range: float) -> PolicyLoss:
    """Weigh samples by advantage and stop paying once their likelihood moved by `clip_range`.

    Source: Schulman et al. 2017, "Proximal policy optimization", eq. 7.
    """

    def loss(log_ratio: th.Tensor, advantages: th.Tensor) -> th.Tensor:
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        return -th.min(ratio * advantages, clipped * advantages).mean()

    return loss


def path_integral_loss(ess_fraction: float) -> PolicyLoss:
    """Pull towards samples with weights exp(A / temperature) and push away from none.

    The temperature is set so that the weights' effective sample size is `ess_fraction` of the
    batch. Learns half as fast as `clipped_loss` where failed samples carry information.

    Source: Peng et al. 2019, "Advantage-weighted regression", eq. 7; Williams et al. 2017.
    """

    def loss(log_ratio: th.Tensor, advantages: th.Tensor) -> th.Tensor:
        returns = advantages.detach().cpu().numpy().astype(np.float64)[None]
        temperature = temperature_for_ess(returns, ess_fraction, 0.0)
        weights = softmax_weights(returns, temperature)[0] * returns.shape[1]
        tensor = th.as_tensor(weights, dtype=log_ratio.dtype, device=log_ratio.device)
        return -(tensor * log_ratio).mean()

    return loss


@dataclass
class _Averages:
    """Average named scalars over gradient steps."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, **values: float) -> None:
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        return {name: total / max(self.count, 1) for name, total in self.sums.items()}


class TrustRegionUpdate:
    """Improve a policy from a round's samples.

    Args:
        rng: Shuffles samples.
        config: The settings; None: the defaults.
        policy_loss: Weighs samples; None: `clipped_loss(config.clip_range)`.

    Attributes:
        explained_variance: Share of the last round's returns that the value head explained before
            it learnt from them; 0 at first.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        config: UpdateConfig | None = None,
        policy_loss: PolicyLoss | None = None,
    ) -> None:
        self.configure(config or UpdateConfig(), policy_loss)
        self._rng = rng
        self.explained_variance = 0.0
        self._step_scale = 1.0
        self._return_mean = 0.0
        self._return_std = 0.0

    def reseed(self, rng: np.random.Generator) -> None:
        """Shuffle samples by another generator from now on."""
        self._rng = rng

    def configure(self, config: UpdateConfig, policy_loss: PolicyLoss | None = None) -> None:
        """Change the settings; the adapted step size is kept."""
        self.config = config
        self.policy_loss = policy_loss or clipped_loss(config.clip_range)

    def update(
        self,
        policy: ActorCriticPolicy,
        samples: SampleBatch,
        advantages: np.ndarray,
        *,
        learning_rate: float,
        values_only: bool = False,
    ) -> dict[str, float]:
        """Run the epochs of one round.

        Args:
            policy: Improved in place.
            samples: T x N samples.
            advantages: Reward units, shape (T, N).
            learning_rate: Of the optimiser, before the trust region scales it.
            values_only: Let the value head learn and leave the actions as they are.

        Returns:
            Averages of the losses and of the KL divergence, for the logger.
        """
        config = self.config
        keep = np.flatnonzero(samples.valid.ravel())
        if len(keep) < 2:
            return {}  # all simulations diverged: nothing was learnt, and nothing is broken
        observations = select_rows(reshape_leading(samples.observations, 2, (-1,)), keep)
        returns = (advantages + samples.values).ravel()[keep]
        self._track_returns(returns)
        standardised = advantages.ravel()[keep]
        standardised = (standardised - standardised.mean()) / (standardised.std() + 1e-8)
        policy.set_training_mode(True)
        head = action_head(policy.action_space, config.random_share)
        averages = _Averages()
        with normalised_units(policy, self._return_mean, self._return_std):
            tensors = {
                "actions": head.as_targets(policy, np.concatenate(samples.actions)[keep]),
                "advantages": _float(standardised, policy),
                "returns": _float((returns - self._return_mean) / self._return_std, policy),
            }
            obs_tensor = as_tensors(policy, observations)
            with th.no_grad():
                log_probs = head.log_prob(policy.get_distribution(obs_tensor), tensors["actions"])
            tensors["log_probs"] = log_probs
            with ThreadPoolExecutor(1) as helper:
                for _ in range(config.n_epochs):
                    update_learning_rate(policy.optimizer, learning_rate * self._step_scale)
                    if values_only:
                        self._value_epoch(policy, obs_tensor, tensors, averages)
                        continue
                    kl = self._epoch(policy, head, obs_tensor, tensors, averages, helper)
                    self._adapt_step(kl)
                    if kl > 4 * config.target_kl:
                        break
        policy.set_training_mode(False)
        residual = returns - samples.values.ravel()[keep]
        self.explained_variance = float(1 - residual.var() / (returns.var() + 1e-8))
        return averages.means() | {
            "explained_variance": self.explained_variance,
            "step_scale": self._step_scale,
        }

    def acquaint_values(
        self,
        policy: ActorCriticPolicy,
        sample: Callable[[ActorCriticPolicy], SampleBatch],
        *,
        discount: float,
        gae_lambda: float,
        learning_rate: float,
    ) -> int:
        """Let the value head get to know a policy that it has not learnt with.

        With values that know nothing, all that is done in bad states looks bad, the way out of
        them too, and the policy unlearns it. A head that shares weights with the policy must do
        without.

        Args:
            policy: Only its value head changes.
            sample: Draws samples of the policy.
            discount: Per control step.
            gae_lambda: Of the returns that are learnt.
            learning_rate: Of the optimiser.

        Returns:
            Env steps simulated.
        """
        sim_steps = 0
        for _ in range(_MOST_VALUE_ROUNDS if _is_separable(policy) else 0):
            samples = sample(policy)
            sim_steps += samples.sim_steps
            advantages = samples.advantages(discount, gae_lambda)
            self.update(policy, samples, advantages, learning_rate=learning_rate, values_only=True)
            if self.explained_variance >= LEAST_EXPLAINED:
                break
        return sim_steps

    def _epoch(
        self,
        policy: ActorCriticPolicy,
        head: ActionHead,
        observations: th.Tensor,
        tensors: dict[str, th.Tensor],
        averages: _Averages,
        helper: ThreadPoolExecutor,
    ) -> float:
        config = self.config
        kls = []
        for seen, batch in self._batches(policy, observations, tensors):
            policy.optimizer.zero_grad(set_to_none=True)
            value_loss = partial(self._value_backward, policy, seen, batch)
            if _is_separable(policy):
                # Two networks without common weights: a core for each.
                running = helper.submit(value_loss)
                figures = self._policy_backward(policy, head, seen, batch)
                value_loss_item = running.result()
            else:
                value_loss_item = value_loss()
                figures = self._policy_backward(policy, head, seen, batch)
            th.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
            policy.optimizer.step()
            head.floor_noise(policy, config.min_std)
            averages.add(value_loss=value_loss_item, **figures)
            kls.append(figures["kl"])
        return float(np.mean(kls))

    def _value_epoch(
        self,
        policy: ActorCriticPolicy,
        observations: th.Tensor,
        tensors: dict[str, th.Tensor],
        averages: _Averages,
    ) -> None:
        for seen, batch in self._batches(policy, observations, tensors):
            policy.optimizer.zero_grad(set_to_none=True)  # which leaves the other weights alone
            averages.add(value_loss=self._value_backward(policy, seen, batch))
            th.nn.utils.clip_grad_norm_(policy.parameters(), self.config.max_grad_norm)
            policy.optimizer.step()

    def _batches(
        self, policy: ActorCriticPolicy, observations: th.Tensor, tensors: dict[str, th.Tensor]
    ) -> Iterator[tuple[Any, dict[str, th.Tensor]]]:
        num = len(tensors["returns"])
        all_seen: Any = observations  # or a dict of tensors
        order = th.as_tensor(self._rng.permutation(num), device=policy.device)
        for start in range(0, num, self.config.batch_size):
            rows = order[start : start + self.config.batch_size]
            yield (
                select_rows(all_seen, rows),
                {name: tensor[rows] for name, tensor in tensors.items()},
            )

    def _policy_backward(
        self,
        policy: ActorCriticPolicy,
        head: ActionHead,
        observations: Any,
        batch: dict[str, th.Tensor],
    ) -> dict[str, float]:
        distribution = policy.get_distribution(observations)
        log_ratio = head.log_prob(distribution, batch["actions"]) - batch["log_probs"]
        policy_loss = self.policy_loss(log_ratio, batch["advantages"])
        entropy = head.entropy(distribution).mean()
        (policy_loss - self.config.ent_coef * entropy).backward()
        with th.no_grad():
            # Low-variance estimate, Schulman 2020, "Approximating KL divergence".
            kl = ((log_ratio.exp() - 1) - log_ratio).mean().item()
        return {"kl": kl, "policy_loss": policy_loss.item(), "entropy": entropy.item()}

    def _value_backward(
        self, policy: ActorCriticPolicy, observations: Any, batch: dict[str, th.Tensor]
    ) -> float:
        loss = F.mse_loss(policy.predict_values(observations).flatten(), batch["returns"])
        (self.config.vf_coef * loss).backward()
        return loss.item()

    def _adapt_step(self, kl: float) -> None:
        if kl > 2 * self.config.target_kl:
            self._step_scale = max(self._step_scale / 1.5, 0.01)
        elif kl < self.config.target_kl / 2:
            self._step_scale = min(self._step_scale * 1.5, 10.0)

    def _track_returns(self, returns: np.ndarray) -> None:
        mean, std = float(returns.mean()), float(returns.std() + 1e-6)
        if self._return_std == 0.0:
            self._return_mean, self._return_std = mean, std
        else:
            self._return_mean += 0.05 * (mean - self._return_mean)
            self._return_std += 0.05 * (std - self._return_std)


def _is_separable(policy: ActorCriticPolicy) -> bool:
    shares_weights = type(policy.mlp_extractor) is not MlpExtractor or (
        policy.share_features_extractor
        and any(True for _ in policy.features_extractor.parameters())
    )
    # Dropout in two threads would draw from one generator in an order that no seed fixes.
    draws = any(isinstance(part, th.nn.modules.dropout._DropoutNd) for part in policy.modules())
    return not (shares_weights or draws)


def _float(array: np.ndarray, policy: ActorCriticPolicy) -> th.Tensor:
    return th.as_tensor(array, dtype=th.float32, device=policy.device)
