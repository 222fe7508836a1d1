"""The border between simulations and an SB3 policy: observations in, actions out.

`PolicyView` applies what the training env's VecEnv wrappers do to observations, asks the policy,
and makes its actions fit for the env. It holds no learnt state.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from mppi_agent.gps.action_heads import action_head
from mppi_agent.gps.inference import values
from mppi_agent.interfaces import Observation

__all__ = ["PolicyView", "as_tensors"]

_TRANSPARENT = (VecMonitor, VecCheckNan)


class PolicyView:
    """Show simulations to a policy as the training env would.

    Args:
        env: The training env with its wrappers; None for an env without VecEnv wrappers.
        action_space: Of the env.
        random_share: Share of random choices among the drawn actions, where they are discrete.

    Raises:
        ValueError: If no policy can act in the action space, or a VecEnv wrapper changes
            observations in a way that is not known here.
    """

    def __init__(
        self, env: VecEnv | None, action_space: gym.Space, random_share: float = 0.0
    ) -> None:
        self._head = action_head(action_space, random_share)
        self._action_shape: tuple[int, ...] = action_space.shape or ()
        self._wrappers = _observation_wrappers(env)

    def observe(self, observations: Observation) -> Observation:
        """Return what the policy sees of batched env observations, leading axes kept."""
        for wrapper in self._wrappers:
            observations = _through(wrapper, observations)
        return observations

    def count(self, observations: Observation) -> None:
        """Let a `VecNormalize` in training count a batch of env observations, shape (N, *obs)."""
        for wrapper in self._wrappers:
            if isinstance(wrapper, VecNormalize) and wrapper.training and wrapper.norm_obs:
                if isinstance(wrapper.obs_rms, dict):
                    for key, statistics in wrapper.obs_rms.items():
                        statistics.update(observations[key])
                else:
                    wrapper.obs_rms.update(observations)
            observations = _through(wrapper, observations)

    def draw_actions(
        self, policy: ActorCriticPolicy, observations: Observation, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw one action per row from the policy, before clipping, shape (N, *action)."""
        with th.no_grad():
            return self._head.draw(policy, as_tensors(policy, observations), rng)

    def best_actions(self, policy: ActorCriticPolicy, observations: Observation) -> np.ndarray:
        """Return the policy's deterministic actions, ready for the env, shape (N, *action)."""
        with th.no_grad():
            actions = policy._predict(as_tensors(policy, observations), deterministic=True)
        return self.to_env(actions.cpu().numpy().reshape(-1, *self._action_shape))

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Return drawn actions as the env takes them: a Box clips them to its bounds."""
        return self._head.to_env(actions)

    def values(self, policy: ActorCriticPolicy, observations: Observation) -> np.ndarray:
        """Return the value head, to rounding, reward units, shape (N,)."""
        return values(policy, as_tensors(policy, observations)).flatten().cpu().numpy()


def as_tensors(policy: ActorCriticPolicy, observations: Observation) -> th.Tensor:
    """Return batched policy observations as tensors on the policy's device."""
    if isinstance(observations, dict):
        return {  # type: ignore[return-value]
            key: th.as_tensor(value, device=policy.device) for key, value in observations.items()
        }
    if observations.dtype == np.float64:
        observations = observations.astype(np.float32)
    return th.as_tensor(observations, device=policy.device)


def _through(wrapper: VecNormalize | VecTransposeImage, observations: Any) -> Any:
    if isinstance(wrapper, VecNormalize):
        return wrapper.normalize_obs(observations)
    return wrapper.transpose_observations(observations)


def _observation_wrappers(env: VecEnv | None) -> list[VecNormalize | VecTransposeImage]:
    """Return the wrappers that change observations, innermost first."""
    wrappers: list[VecNormalize | VecTransposeImage] = []
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecNormalize | VecTransposeImage):
            wrappers.insert(0, env)
        elif not isinstance(env, _TRANSPARENT):
            raise ValueError(
                f"VecEnv wrapper {type(env).__name__} changes what the policy sees in a way that "
                "simulations cannot repeat; use the gymnasium wrapper of the same purpose inside "
                "each env, below Cloneable"
            )
        env = env.venv
    return wrappers
