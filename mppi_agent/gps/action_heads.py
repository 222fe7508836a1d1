"""What the output layer of a student means as actions: noise, likelihood, units, regression.

`action_head` finds the one for an action space; nothing else in `gps` asks which kind it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from torch.nn import functional as F

from mppi_agent.gps.inference import mean_actions

__all__ = ["ActionHead", "CategoricalHead", "GaussianHead", "action_head"]


class ActionHead(ABC):
    """Say how a policy's action distribution is drawn from, scored and taught.

    A `distribution` is SB3's, as `policy.get_distribution` returns it for N observations; `targets`
    are actions as `as_targets` returns them.
    """

    @abstractmethod
    def initialise(self, policy: ActorCriticPolicy, std: float) -> None:
        """Give an untrained policy its first noise.

        Raises:
            ValueError: If the policy draws its actions in another way than this head does.
        """

    @abstractmethod
    def draw(
        self, policy: ActorCriticPolicy, observations: Any, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw one action per row of observation tensors, before clipping, shape (N, *action)."""

    @abstractmethod
    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Return actions that the env takes, shape (N, *action)."""

    @abstractmethod
    def as_targets(self, policy: ActorCriticPolicy, actions: np.ndarray) -> th.Tensor:
        """Return actions in the units of `normalise`, on the policy's device, one row each."""

    @abstractmethod
    def log_prob(self, distribution: Any, targets: th.Tensor) -> th.Tensor:
        """Return the log-likelihood with which `draw` gives the targets, nats, shape (N,)."""

    @abstractmethod
    def entropy(self, distribution: Any) -> th.Tensor:
        """Return the entropy of what `draw` gives, nats, shape (N,)."""

    @abstractmethod
    def errors(self, distribution: Any, targets: th.Tensor, margin: float) -> th.Tensor:
        """Return how far the noise-free policy is from the targets, shape (N,).

        Args:
            distribution: See above.
            targets: See above.
            margin: Half-range units: a continuous target further off pulls no harder.
        """

    @abstractmethod
    def normalise(self, policy: ActorCriticPolicy) -> None:
        """Let the output layer speak in units of order one until `denormalise`."""

    @abstractmethod
    def denormalise(self, policy: ActorCriticPolicy) -> None:
        """Undo `normalise`."""

    @abstractmethod
    def floor_noise(self, policy: ActorCriticPolicy, std: float) -> None:
        """Keep the policy's own noise at `std` or above, in the units that it is in."""

    @abstractmethod
    def match_noise(
        self, policy: ActorCriticPolicy, distribution: Any, targets: th.Tensor, min_std: float
    ) -> None:
        """Lower the noise to that under which the targets are most likely, `min_std` at least."""

    @abstractmethod
    def figures(self, policy: ActorCriticPolicy) -> dict[str, float]:
        """Return what a log should say about the noise beside its entropy."""


class GaussianHead(ActionHead):
    """Serve a Gaussian with one state-independent std per dimension of a bounded Box.

    Args:
        space: The Box.

    Attributes:
        half_range: Of each dimension, env units, shape (nu,).
        centre: Of each dimension, env units, shape (nu,).
    """

    def __init__(self, space: spaces.Box) -> None:
        self._space = space
        low = np.asarray(space.low, dtype=np.float64).ravel()
        high = np.asarray(space.high, dtype=np.float64).ravel()
        self.half_range = th.as_tensor((high - low) / 2, dtype=th.float32)
        self.centre = th.as_tensor((high + low) / 2, dtype=th.float32)

    def initialise(self, policy: ActorCriticPolicy, std: float) -> None:
        """Centre the policy in the action space, with noise of `std` half-ranges."""
        if not isinstance(policy.action_dist, DiagGaussianDistribution):
            raise ValueError(
                f"the policy draws from a {type(policy.action_dist).__name__}, which is not "
                "supported: simulated samples need Gaussian noise that is drawn anew in each "
                "step; leave use_sde out of policy_kwargs"
            )
        half_range, centre = self._scaling(policy)
        with th.no_grad():
            _log_std(policy).copy_((half_range * std).log())
            _linear(policy.action_net).bias.copy_(centre)

    def draw(
        self, policy: ActorCriticPolicy, observations: Any, rng: np.random.Generator
    ) -> np.ndarray:
        """Add Gaussian noise to the noise-free action."""
        mean = mean_actions(policy, observations).cpu().numpy()
        drawn = rng.standard_normal(mean.shape, dtype=np.float32)
        drawn *= _log_std(policy).exp().cpu().numpy()
        drawn += mean
        return drawn.reshape(-1, *self._space.shape)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Clip to the bounds."""
        return np.clip(actions, self._space.low, self._space.high)

    def as_targets(self, policy: ActorCriticPolicy, actions: np.ndarray) -> th.Tensor:
        """Return actions in half-range units, shape (N, nu)."""
        half_range, centre = self._scaling(policy)
        tensor = th.as_tensor(actions, device=policy.device)
        return (tensor.reshape(len(tensor), -1).float() - centre) / half_range

    def log_prob(self, distribution: Any, targets: th.Tensor) -> th.Tensor:
        """Return the log-density."""
        return distribution.log_prob(targets)

    def entropy(self, distribution: Any) -> th.Tensor:
        """Return the differential entropy."""
        return distribution.entropy()

    def errors(self, distribution: Any, targets: th.Tensor, margin: float) -> th.Tensor:
        """Return Huber losses of the mean, summed over dimensions."""
        mean = distribution.distribution.mean
        return F.huber_loss(mean, targets, reduction="none", delta=margin).sum(dim=1)

    def normalise(self, policy: ActorCriticPolicy) -> None:
        """Divide the output layer by the half-ranges and centre it."""
        half_range, centre = self._scaling(policy)
        action_net = _linear(policy.action_net)
        action_net.weight.div_(half_range[:, None])
        action_net.bias.sub_(centre).div_(half_range)
        _log_std(policy).sub_(half_range.log())

    def denormalise(self, policy: ActorCriticPolicy) -> None:
        """Return the output layer to env units."""
        half_range, centre = self._scaling(policy)
        action_net = _linear(policy.action_net)
        action_net.weight.mul_(half_range[:, None])
        action_net.bias.mul_(half_range).add_(centre)
        _log_std(policy).add_(half_range.log())

    def floor_noise(self, policy: ActorCriticPolicy, std: float) -> None:
        """Keep the std at `std` or above."""
        _log_std(policy).data.clamp_(min=float(np.log(std)))

    def match_noise(
        self, policy: ActorCriticPolicy, distribution: Any, targets: th.Tensor, min_std: float
    ) -> None:
        """Lower the std of each dimension to the scatter of the targets around the mean."""
        errors = distribution.distribution.mean - targets
        scatter = errors.square().mean(dim=0).sqrt().clamp(min=min_std)
        log_std = _log_std(policy)
        log_std.copy_(th.minimum(log_std, scatter.log()))

    def figures(self, policy: ActorCriticPolicy) -> dict[str, float]:
        """Return the mean std, env units."""
        return {"std": _log_std(policy).exp().mean().item()}

    def _scaling(self, policy: ActorCriticPolicy) -> tuple[th.Tensor, th.Tensor]:
        return self.half_range.to(policy.device), self.centre.to(policy.device)


class CategoricalHead(ActionHead):
    """Serve one choice (Discrete) or several independent ones (MultiDiscrete).

    What samples are drawn from is the policy mixed with a share of random choices, per choice
    (1 - e) p + e / n, and that mixture is what their likelihood is measured by. The noise-free
    policy is the same with and without it.

    Args:
        shape: Of an action: () for one choice, (C,) for several.
        random_share: e, the share of random choices, in [0, 1).
    """

    def __init__(self, shape: tuple[int, ...], random_share: float) -> None:
        self._shape = shape
        self._random_share = random_share

    def initialise(self, policy: ActorCriticPolicy, std: float) -> None:
        """Leave the policy alone: SB3's small output weights make all choices about as likely."""

    def draw(
        self, policy: ActorCriticPolicy, observations: Any, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw by the Gumbel-max trick, one category per choice."""
        drawn = []
        for log_probs in self._mixtures(policy.get_distribution(observations)):
            scores = log_probs.cpu().numpy()
            drawn.append(np.argmax(scores + rng.gumbel(size=scores.shape), axis=1))
        return np.stack(drawn, axis=1).reshape(-1, *self._shape)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Return the actions: there is nothing to clip."""
        return actions

    def as_targets(self, policy: ActorCriticPolicy, actions: np.ndarray) -> th.Tensor:
        """Return the categories, shape (N, C)."""
        tensor = th.as_tensor(actions, device=policy.device)
        return tensor.reshape(len(tensor), -1).long()

    def log_prob(self, distribution: Any, targets: th.Tensor) -> th.Tensor:
        """Return the log-likelihood under the mixture, summed over choices."""
        return _picked(self._mixtures(distribution), targets)

    def entropy(self, distribution: Any) -> th.Tensor:
        """Return the entropy of the mixture, summed over choices."""
        parts = [-(log.exp() * log).sum(dim=1) for log in self._mixtures(distribution)]
        return th.stack(parts, dim=1).sum(dim=1)

    def errors(self, distribution: Any, targets: th.Tensor, margin: float) -> th.Tensor:
        """Return the cross entropy between the targets and the policy without random choices."""
        return -_picked(_logits(distribution), targets)

    def normalise(self, policy: ActorCriticPolicy) -> None:
        """Leave the logits alone: they have no unit."""

    def denormalise(self, policy: ActorCriticPolicy) -> None:
        """Leave the logits alone."""

    def floor_noise(self, policy: ActorCriticPolicy, std: float) -> None:
        """Leave the policy alone: random choices are the floor."""

    def match_noise(
        self, policy: ActorCriticPolicy, distribution: Any, targets: th.Tensor, min_std: float
    ) -> None:
        """Leave the policy alone: regression on categories teaches its noise, too."""

    def figures(self, policy: ActorCriticPolicy) -> dict[str, float]:
        """Return nothing: the entropy says it all."""
        return {}

    def _mixtures(self, distribution: Any) -> list[th.Tensor]:
        """Return normalised log-probabilities of what is drawn, (N, n) for each choice."""
        logits = _logits(distribution)
        if not self._random_share:
            return logits
        kept = float(np.log1p(-self._random_share))
        # A tensor, as logaddexp wants it, on the device of the rest.
        shares = [np.log(self._random_share / log.shape[1]) for log in logits]
        return [
            th.logaddexp(log + kept, log.new_tensor(share))
            for log, share in zip(logits, shares, strict=True)
        ]


def action_head(space: gym.Space, random_share: float = 0.0) -> ActionHead:
    """Return what serves an action space.

    Args:
        space: A bounded Box, a Discrete or a MultiDiscrete space.
        random_share: Of `CategoricalHead`; a Gaussian has noise of its own.

    Raises:
        ValueError: If no policy of MPPIGPS can act in the space.
    """
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise ValueError(
                f"action_space={space} is unbounded: MPPIGPS samples between bounds; give it some "
                "with TransformAction(env, lambda action: action, Box(low, high)) of "
                "gymnasium.wrappers"
            )
        return GaussianHead(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        if np.any(space.start) or len(space.shape or ()) > 1:
            raise ValueError(
                f"action_space={space} is not supported by Stable-Baselines3, whose actions count "
                "from 0 along one axis; convert them with gymnasium.wrappers.TransformAction"
            )
        return CategoricalHead(space.shape or (), random_share)
    raise ValueError(
        f"action_space={space} is not supported: MPPIGPS needs a bounded Box of floats, a Discrete "
        "or a MultiDiscrete space; give the env one of them with "
        "gymnasium.wrappers.TransformAction, MultiDiscrete([2] * n) for MultiBinary(n), say"
    )


def _logits(distribution: Any) -> list[th.Tensor]:
    """Return normalised log-probabilities of the policy, shape (N, n) for each choice."""
    inner = distribution.distribution  # torch's, inside SB3's; a list of them for several choices
    return [choice.logits for choice in (inner if isinstance(inner, list) else [inner])]


def _picked(log_probs: list[th.Tensor], targets: th.Tensor) -> th.Tensor:
    parts = [log.gather(1, targets[:, i : i + 1]) for i, log in enumerate(log_probs)]
    return th.cat(parts, dim=1).sum(dim=1)


def _linear(layer: Any) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    return layer


def _log_std(policy: ActorCriticPolicy) -> nn.Parameter:
    assert isinstance(policy.log_std, nn.Parameter)
    return policy.log_std
