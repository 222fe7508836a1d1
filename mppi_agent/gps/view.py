"""The border between simulations and an SB3 policy: observations in, actions out.

`PolicyView` applies what the training env's VecEnv wrappers do to observations, asks the policy,
and clips its actions to the env's bounds. It holds no learnt state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from mppi_agent.interfaces import Observation

__all__ = ["PolicyView"]

_TRANSPARENT = (VecMonitor, VecCheckNan)


class PolicyView:
    """Show simulations to a policy as the training env would.

    Args:
        env: The training env with its wrappers; None for an env without VecEnv wrappers.
        action_space: Of the env.

    Raises:
        ValueError: If a VecEnv wrapper changes observations in a way that is not known here.
    """

    def __init__(self, env: VecEnv | None, action_space: gym.Space) -> None:
        self._action_space = action_space
        self._action_shape: tuple[int, ...] = action_space.shape or ()
        self._transforms = _observation_transforms(env)

    def observe(self, observations: Observation) -> Observation:
        """Return what the policy sees of batched env observations, leading axes kept."""
        for transform in self._transforms:
            observations = transform(observations)
        return observations

    def draw_actions(
        self, policy: ActorCriticPolicy, observations: Observation, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw one action per row from the policy, before clipping, shape (N, *action)."""
        tensors = as_tensors(policy, observations)
        with th.no_grad():
            if isinstance(self._action_space, spaces.Box):
                mean, std = (part.cpu().numpy() for part in _mean_and_std(policy, tensors))
                drawn = rng.standard_normal(mean.shape, dtype=np.float32)
                drawn *= std
                drawn += mean
                return drawn.reshape(-1, *self._action_shape)
            distribution: Any = policy.get_distribution(tensors)
            logits = distribution.distribution.logits.cpu().numpy()
        return np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)

    def best_actions(self, policy: ActorCriticPolicy, observations: Observation) -> np.ndarray:
        """Return the policy's deterministic actions, ready for the env, shape (N, *action)."""
        with th.no_grad():
            actions = policy._predict(as_tensors(policy, observations), deterministic=True)
        return self.to_env(actions.cpu().numpy().reshape(-1, *self._action_shape))

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Clip drawn actions to the env's bounds."""
        if isinstance(self._action_space, spaces.Box):
            return np.clip(actions, self._action_space.low, self._action_space.high)
        return actions

    def values(self, policy: ActorCriticPolicy, observations: Observation) -> np.ndarray:
        """Return the value head, reward units, shape (N,)."""
        with th.no_grad():
            return policy.predict_values(as_tensors(policy, observations)).flatten().cpu().numpy()


def flatten_time(observations: Observation) -> Observation:
    """Merge the first two axes of batched observations."""
    if isinstance(observations, dict):
        return {key: value.reshape(-1, *value.shape[2:]) for key, value in observations.items()}
    return observations.reshape(-1, *observations.shape[2:])


def as_tensors(policy: ActorCriticPolicy, observations: Observation) -> th.Tensor:
    """Return batched policy observations as tensors on the policy's device."""
    if isinstance(observations, dict):
        return {  # type: ignore[return-value]
            key: th.as_tensor(value, device=policy.device) for key, value in observations.items()
        }
    if observations.dtype == np.float64:
        observations = observations.astype(np.float32)
    return th.as_tensor(observations, device=policy.device)


def _mean_and_std(policy: ActorCriticPolicy, tensors: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Return mean (N, nu) and standard deviation, which broadcasts to it, of a Gaussian policy."""
    kind = type(policy)
    verbs = ("get_distribution", "_get_action_dist_from_latent")
    is_plain = all(getattr(kind, verb) is getattr(ActorCriticPolicy, verb) for verb in verbs)
    if is_plain and type(policy.action_dist) is DiagGaussianDistribution:
        # What get_distribution does, without building torch's distribution of it: that costs
        # about as much as a small network.
        features = policy.pi_features_extractor(
            preprocess_obs(tensors, policy.observation_space, policy.normalize_images)
        )
        mean = policy.action_net(policy.mlp_extractor.forward_actor(features))
        assert isinstance(policy.log_std, th.Tensor)
        return mean, policy.log_std.exp()
    distribution: Any = policy.get_distribution(tensors)
    return distribution.distribution.mean, distribution.distribution.stddev


def _observation_transforms(env: VecEnv | None) -> list[Callable[[Observation], Observation]]:
    transforms: list[Callable[[Observation], Observation]] = []
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecNormalize):
            transforms.insert(0, env.normalize_obs)
        elif isinstance(env, VecTransposeImage):
            transforms.insert(0, env.transpose_observations)
        elif not isinstance(env, _TRANSPARENT):
            raise ValueError(
                f"VecEnv wrapper {type(env).__name__} changes what the policy sees in a way that "
                "simulations cannot repeat; use the gymnasium wrapper of the same purpose inside "
                "each env, below Cloneable"
            )
        env = env.venv
    return transforms
