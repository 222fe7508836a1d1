"""Policies of MPPIGPS: SB3 actor-critics whose observation normalisation travels with the weights.

The normaliser is a features extractor, so PPO built with `model.policy_kwargs` takes the weights
as they are and no `VecNormalize` file has to be kept beside the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import torch as th
from gymnasium import spaces
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

from mppi_agent.gps.action_heads import action_head
from mppi_agent.gps.inference import DirectMode

__all__ = [
    "CnnPolicy",
    "MlpPolicy",
    "MultiInputPolicy",
    "NormalizedCombinedExtractor",
    "NormalizedExtractor",
    "RunningNormalizer",
    "check_observation_space",
    "default_policy_kwargs",
    "normalised_units",
    "settle_normalizers",
    "update_normalizers",
]


class MlpPolicy(DirectMode):
    """Act on vectors; SB3's policy of the same name, with the same weights."""


class CnnPolicy(DirectMode, ActorCriticCnnPolicy):
    """Act on images; SB3's policy of the same name, with the same weights."""


class MultiInputPolicy(DirectMode, MultiInputActorCriticPolicy):
    """Act on Dict observations; SB3's policy of the same name, with the same weights."""


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
        # Follows `var`, so that `forward` need not; not part of the weights.
        self.register_buffer("_scale", th.ones(num_features), persistent=False)
        self._scale: th.Tensor
        self._rescale()
        self.register_load_state_dict_post_hook(lambda module, _: module._rescale())

    def forward(self, features: th.Tensor) -> th.Tensor:
        """Return normalised features, shape (N, num_features)."""
        scaled = (features - self.mean).mul_(self._scale)
        return scaled.clamp_(-self.clip, self.clip)

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
        self._rescale()

    @th.no_grad()
    def _rescale(self) -> None:
        self._scale.copy_(th.rsqrt(self.var + 1e-6))


class NormalizedExtractor(FlattenExtractor):
    """Flatten a vector observation and normalise it."""

    def __init__(self, observation_space: gym.Space) -> None:
        super().__init__(observation_space)
        self.normalizer = RunningNormalizer(self.features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Return normalised features, shape (N, features_dim)."""
        # Where one observation is predicted for, calling modules costs as much as the arithmetic.
        return self.normalizer.forward(observations.flatten(1))

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
        policy_class: One of ours or of SB3's that they stand for; other classes get no defaults.

    Returns:
        Keyword arguments that PPO's policy takes as well.
    """
    extractors: dict[type, type[BaseFeaturesExtractor]] = {
        MlpPolicy: NormalizedExtractor,
        ActorCriticPolicy: NormalizedExtractor,
        CnnPolicy: NatureCNN,
        ActorCriticCnnPolicy: NatureCNN,
        MultiInputPolicy: NormalizedCombinedExtractor,
        MultiInputActorCriticPolicy: NormalizedCombinedExtractor,
    }
    if policy_class not in extractors:
        return {}
    return {
        "features_extractor_class": extractors[policy_class],
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


def check_observation_space(space: gym.Space) -> None:
    """Refuse observations that no SB3 policy can read.

    Raises:
        ValueError: Naming the space and the cure.
    """
    readable = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    if not all(isinstance(part, readable) for part in parts):
        raise ValueError(
            f"observation_space={space} is not supported: policies read Box, Discrete, "
            "MultiDiscrete, MultiBinary or a Dict of these; wrap the env in "
            "gymnasium.wrappers.FlattenObservation"
        )


@contextlib.contextmanager
def normalised_units(
    policy: ActorCriticPolicy, return_mean: float, return_std: float
) -> Iterator[None]:
    """Let the output layers work in units of order one while the optimiser runs.

    Outside this context the value head speaks reward units and the action head env units, as PPO
    expects. Inside, values are standardised returns and continuous actions have half-range 1, so
    that one learning rate fits an action range of 0.4 and returns of 10,000.

    Args:
        policy: Rescaled in place, and scaled back on exit.
        return_mean: Mean of the value targets, reward units.
        return_std: Spread of the value targets, reward units, > 0.

    Source: van Hasselt et al. 2016, "Learning values across many orders of magnitude", eq. 4.
    """
    value_net = policy.value_net
    assert isinstance(value_net, nn.Linear)
    head = action_head(policy.action_space)
    with th.no_grad():
        value_net.weight.div_(return_std)
        value_net.bias.sub_(return_mean).div_(return_std)
        head.normalise(policy)
    try:
        yield
    finally:
        with th.no_grad():
            value_net.weight.mul_(return_std)
            value_net.bias.mul_(return_std).add_(return_mean)
            head.denormalise(policy)
        # SB3 keeps the last one, with the graph behind it: that cannot be deep-copied.
        policy.action_dist.distribution = None  # type: ignore[assignment]
