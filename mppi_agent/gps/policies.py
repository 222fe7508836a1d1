"""Policies of MPPIGPS: SB3 actor-critics whose observation normalisation travels with the weights.

The normaliser is a features extractor, so PPO built with `model.policy_kwargs` takes the weights
as they are and no `VecNormalize` file has to be kept beside the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import nn

__all__ = [
    "CnnPolicy",
    "MlpPolicy",
    "MultiInputPolicy",
    "NormalizedCombinedExtractor",
    "NormalizedExtractor",
    "RunningNormalizer",
    "action_scaling",
    "default_policy_kwargs",
    "floor_std",
    "initialise_actions",
    "mean_std",
    "normalised_actions",
    "normalised_units",
    "settle_normalizers",
    "update_normalizers",
]

MlpPolicy = ActorCriticPolicy
CnnPolicy = ActorCriticCnnPolicy
MultiInputPolicy = MultiInputActorCriticPolicy


class RunningNormalizer(nn.Module):
    """Shift and scale features by running statistics kept as buffers.

    The statistics change only in `update`, never in `forward`: they stand still while a round
    collects and learns.

    Args:
        num_features: Size of the flat feature vector.
        clip: Largest absolute value that leaves the module.
    """

    def __init__(self, num_features: int, clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", th.zeros(num_features))
        self.register_buffer("var", th.ones(num_features))
        self.register_buffer("count", th.zeros(()))
        self.mean: th.Tensor
        self.var: th.Tensor
        self.count: th.Tensor

    def forward(self, features: th.Tensor) -> th.Tensor:
        """Return normalised features, shape (N, num_features)."""
        scaled = (features - self.mean) * th.rsqrt(self.var + 1e-6)
        return scaled.clamp(-self.clip, self.clip)

    @th.no_grad()
    def update(self, features: th.Tensor) -> None:
        """Merge a batch of features, shape (N, num_features), into the statistics.

        Source: Chan et al. 1979, parallel variance.
        """
        mean = features.mean(dim=0)
        var = features.var(dim=0, unbiased=False)
        total = self.count + len(features)
        delta = mean - self.mean
        weight = len(features) / total
        self.var.copy_(
            self.var * (1 - weight) + var * weight + delta.square() * weight * (1 - weight)
        )
        self.mean.add_(delta * weight)
        self.count.copy_(total)


class NormalizedExtractor(FlattenExtractor):
    """Flatten a vector observation and normalise it."""

    def __init__(self, observation_space: gym.Space) -> None:
        super().__init__(observation_space)
        self.normalizer = RunningNormalizer(self.features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Return normalised features, shape (N, features_dim)."""
        return self.normalizer(self.flatten(observations))

    @th.no_grad()
    def update(self, observations: Any) -> None:
        """Merge preprocessed observations into the statistics."""
        self.normalizer.update(self.flatten(observations))


class NormalizedCombinedExtractor(CombinedExtractor):
    """Normalise the vector entries of a Dict observation; images go through SB3's CNN."""

    def __init__(self, observation_space: spaces.Dict, **kwargs: Any) -> None:
        super().__init__(observation_space, **kwargs)
        self.normalizers = nn.ModuleDict(
            {
                key: RunningNormalizer(spaces.utils.flatdim(space))
                for key, space in observation_space.spaces.items()
                if not is_image_space(space)
            }
        )

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """Return features of all entries, concatenated, shape (N, features_dim)."""
        encoded = []
        for key, extractor in self.extractors.items():
            features = extractor(observations[key])
            encoded.append(self.normalizers[key](features) if key in self.normalizers else features)
        return th.cat(encoded, dim=1)

    @th.no_grad()
    def update(self, observations: Any) -> None:
        """Merge preprocessed observations into the statistics."""
        for key, normalizer in self.normalizers.items():
            assert isinstance(normalizer, RunningNormalizer)
            normalizer.update(self.extractors[key](observations[key]))


def default_policy_kwargs(policy_class: type) -> dict[str, Any]:
    """Return what MPPIGPS passes to an SB3 policy class unless the user says otherwise.

    Args:
        policy_class: An `ActorCriticPolicy`; other classes get no defaults.

    Returns:
        Keyword arguments that PPO's policy takes as well.
    """
    extractor: type[BaseFeaturesExtractor]
    if policy_class is MultiInputPolicy:
        extractor = NormalizedCombinedExtractor
    elif policy_class is CnnPolicy:
        extractor = NatureCNN
    elif policy_class is MlpPolicy:
        extractor = NormalizedExtractor
    else:
        return {}
    return {
        "features_extractor_class": extractor,
        "net_arch": {"pi": [128, 128], "vf": [128, 128]},
    }


def update_normalizers(policy: ActorCriticPolicy, observations: Any) -> None:
    """Merge policy observations, a batch as SB3 hands it to `predict`, into the statistics."""
    extractors = {id(e): e for e in (policy.pi_features_extractor, policy.vf_features_extractor)}
    for extractor in extractors.values():
        if isinstance(extractor, NormalizedExtractor | NormalizedCombinedExtractor):
            tensor, _ = policy.obs_to_tensor(observations)
            extractor.update(
                preprocess_obs(tensor, policy.observation_space, policy.normalize_images)
            )


@th.no_grad()
def settle_normalizers(policy: ActorCriticPolicy, count: int) -> None:
    """Let the statistics weigh as if `count` observations, at least, had made them."""
    for module in policy.modules():
        if isinstance(module, RunningNormalizer):
            module.count.clamp_(min=count)


@contextlib.contextmanager
def normalised_units(
    policy: ActorCriticPolicy, return_mean: float, return_std: float
) -> Iterator[None]:
    """Let the output layers work in units of order one while the optimiser runs.

    Outside this context the value head speaks reward units and the action head env units, as PPO
    expects. Inside, values are standardised returns and actions have half-range 1, so that one
    learning rate fits an action range of 0.4 and returns of 10,000.

    Args:
        policy: Rescaled in place, and scaled back on exit.
        return_mean: Mean of the value targets, reward units.
        return_std: Spread of the value targets, reward units, > 0.

    Source: van Hasselt et al. 2016, "Learning values across many orders of magnitude", eq. 4.
    """
    value_net, action_net = _linear(policy.value_net), _linear(policy.action_net)
    scaling = action_scaling(policy)
    with th.no_grad():
        value_net.weight.div_(return_std)
        value_net.bias.sub_(return_mean).div_(return_std)
        if scaling is not None:
            half_range, centre = scaling
            action_net.weight.div_(half_range[:, None])
            action_net.bias.sub_(centre).div_(half_range)
            _log_std(policy).sub_(half_range.log())
    try:
        yield
    finally:
        with th.no_grad():
            value_net.weight.mul_(return_std)
            value_net.bias.mul_(return_std).add_(return_mean)
            if scaling is not None:
                action_net.weight.mul_(half_range[:, None])
                action_net.bias.mul_(half_range).add_(centre)
                _log_std(policy).add_(half_range.log())


def initialise_actions(policy: ActorCriticPolicy, std: float) -> None:
    """Centre a Gaussian policy in the action space, with noise of `std` half-ranges."""
    scaling = action_scaling(policy)
    if scaling is not None:
        half_range, centre = scaling
        with th.no_grad():
            _log_std(policy).copy_((half_range * std).log())
            _linear(policy.action_net).bias.copy_(centre)


def floor_std(policy: ActorCriticPolicy, std: float) -> None:
    """Keep the noise of a Gaussian policy at `std` or above, in the units it is in."""
    if isinstance(policy.action_dist, DiagGaussianDistribution):
        _log_std(policy).data.clamp_(min=float(np.log(std)))


def mean_std(policy: ActorCriticPolicy) -> float | None:
    """Return the mean noise of a Gaussian policy, env units; None for other policies."""
    if not isinstance(policy.action_dist, DiagGaussianDistribution):
        return None
    return _log_std(policy).exp().mean().item()


def action_scaling(policy: ActorCriticPolicy) -> tuple[th.Tensor, th.Tensor] | None:
    """Return half-range and centre of a Gaussian policy's Box, each (nu,); None for others."""
    if not isinstance(policy.action_dist, DiagGaussianDistribution):
        return None
    assert isinstance(policy.action_space, spaces.Box)
    low = np.asarray(policy.action_space.low, dtype=np.float64).ravel()
    high = np.asarray(policy.action_space.high, dtype=np.float64).ravel()
    return (
        th.as_tensor((high - low) / 2, dtype=th.float32, device=policy.device),
        th.as_tensor((high + low) / 2, dtype=th.float32, device=policy.device),
    )


def normalised_actions(policy: ActorCriticPolicy, actions: np.ndarray) -> th.Tensor:
    """Return a batch of actions in half-range units, shape (N, nu); as they are if discrete."""
    tensor = th.as_tensor(actions, device=policy.device)
    scaling = action_scaling(policy)
    if scaling is None:
        return tensor
    half_range, centre = scaling
    return (tensor.reshape(len(tensor), -1).float() - centre) / half_range


def _linear(layer: Any) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    return layer


def _log_std(policy: ActorCriticPolicy) -> nn.Parameter:
    assert isinstance(policy.log_std, nn.Parameter)
    return policy.log_std
