"""Evaluate actor-critics without gradients, with no more calls of torch than it takes.

`mean_actions` and `values` serve samples, thousands at a time, and equal SB3's own methods but for
rounding; `DirectMode` equals them to the last digit.
"""

from __future__ import annotations

import numpy as np
import torch as th
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

__all__ = ["DirectMode", "mean_actions", "values"]


class DirectMode(ActorCriticPolicy):
    """Answer without the distribution where the answer is the output of the network.

    Building a Gaussian takes longer than the network that it is built from.
    """

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        is_gaussian = isinstance(self.action_dist, DiagGaussianDistribution)
        if not (deterministic and is_gaussian and _ends_in_action_net(self)):
            return super()._predict(observation, deterministic)
        features = BaseModel.extract_features(self, observation, self.pi_features_extractor)
        return self.action_net(self.mlp_extractor.forward_actor(features))


@th.no_grad()
def mean_actions(policy: ActorCriticPolicy, observations: PyTorchObs) -> th.Tensor:
    """Return the noise-free actions of a Gaussian policy, env units, shape (N, nu)."""
    policy = _uncompiled(policy)
    is_direct = type(policy)._predict in (ActorCriticPolicy._predict, DirectMode._predict)
    if not (is_direct and _ends_in_action_net(policy) and _has_plain_net(policy)):
        return policy._predict(observations, deterministic=True)
    features = BaseModel.extract_features(policy, observations, policy.pi_features_extractor)
    return policy.action_net(_run(policy.mlp_extractor.policy_net, features))


@th.no_grad()
def values(policy: ActorCriticPolicy, observations: PyTorchObs) -> th.Tensor:
    """Return the value head, reward units, shape (N, 1)."""
    policy = _uncompiled(policy)
    own = type(policy).predict_values
    if own is not ActorCriticPolicy.predict_values or not _has_plain_net(policy):
        return policy.predict_values(observations)
    features = BaseModel.extract_features(policy, observations, policy.vf_features_extractor)
    return policy.value_net(_run(policy.mlp_extractor.value_net, features))


def _uncompiled(policy: ActorCriticPolicy) -> ActorCriticPolicy:
    """Return the policy that `torch.compile` wrapped, or itself: both take the same way."""
    return getattr(policy, "_orig_mod", policy)


def _ends_in_action_net(policy: ActorCriticPolicy) -> bool:
    """Say whether the mean of the distribution is what the last layer says, as in SB3."""
    return all(
        getattr(type(policy), name) is getattr(ActorCriticPolicy, name)
        for name in ("get_distribution", "_get_action_dist_from_latent")
    )


def _has_plain_net(policy: ActorCriticPolicy) -> bool:
    return type(policy.mlp_extractor) is MlpExtractor and policy.device.type == "cpu"


def _run(layers: nn.Sequential, features: th.Tensor) -> th.Tensor:
    """Apply layers on the CPU; numpy's tanh takes a seventh of the time of torch's."""
    for layer in layers:
        if type(layer) is nn.Tanh:
            features = th.from_numpy(np.tanh(features.numpy()))
        else:
            features = layer(features)
    return features
