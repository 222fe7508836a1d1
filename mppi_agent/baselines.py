"""PPO and SAC with the hyper-parameters that rl-baselines3-zoo publishes for each env.

Source: DLR-RM/rl-baselines3-zoo, release 2.9.2, files hyperparams/ppo.yml and
hyperparams/sac.yml. The zoo stops at the -v4 (some: -v2) MuJoCo
tasks; their entries serve the -v5 tasks here, and each entry carries the zoo's own id. As in the
zoo, `normalize` wraps the env in VecNormalize with the algorithm's own discount, and everything
that an entry leaves out is the default of Stable-Baselines3. Left out are entries whose learning
rate or clip range follows a schedule over a number of steps (CartPole, BipedalWalkerHardcore, Atari
and CarRacing; training here ends after a wall-clock), and those that need packages of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium as gym
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

__all__ = ["BASELINES", "Baseline", "baseline_for", "make_baseline", "policy_name"]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Settings of one baseline on one env.

    Attributes:
        source: Where they come from, as the table prints it.
        n_envs: Number of training envs.
        normalize: Whether VecNormalize wraps them.
        options: Arguments of the algorithm.
    """

    source: str = "SB3 defaults"
    n_envs: int = 1
    normalize: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def baseline_for(algo: str, env_id: str) -> Baseline:
    """Return the published settings, or those of Stable-Baselines3 where none are published.

    Args:
        algo: "ppo" or "sac".
        env_id: Of a Gymnasium env.
    """
    if algo not in BASELINES:
        raise ValueError(f"algo must be one of {sorted(BASELINES)}, got {algo!r}")
    return BASELINES[algo].get(env_id, Baseline())


def make_baseline(
    algo: str, env_id: str, *, seed: int, device: str = "auto", verbose: int = 0
) -> BaseAlgorithm:
    """Build a baseline and its training envs.

    Args:
        algo: "ppo" or "sac".
        env_id: Of a Gymnasium env.
        seed: Of the algorithm and of its envs.
        device: As Stable-Baselines3 takes it.
        verbose: As Stable-Baselines3 takes it.

    Returns:
        A model that is ready to learn; `model.get_env()` closes its envs.

    Raises:
        ValueError: If the algorithm cannot serve the env's action space.
    """
    settings = baseline_for(algo, env_id)
    env: VecEnv = make_vec_env(env_id, n_envs=settings.n_envs, seed=seed)
    if algo == "sac" and not isinstance(env.action_space, gym.spaces.Box):
        env.close()
        raise ValueError(f"SAC needs a Box action space, {env_id} has {env.action_space}")
    if settings.normalize:
        env = VecNormalize(env, gamma=settings.options.get("gamma", 0.99))
    policy = policy_name(env.observation_space)
    algorithm: type[BaseAlgorithm] = PPO if algo == "ppo" else SAC
    return algorithm(policy, env, seed=seed, device=device, verbose=verbose, **settings.options)


def policy_name(observation_space: gym.Space) -> str:
    """Return the name of Stable-Baselines3's policy for a kind of observations."""
    if isinstance(observation_space, gym.spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(observation_space) else "MlpPolicy"


def _relu_256(log_std_init: float) -> dict[str, Any]:
    """Return the network that the zoo gives PPO on the larger MuJoCo tasks."""
    return {
        "log_std_init": log_std_init,
        "ortho_init": False,
        "activation_fn": nn.ReLU,
        "net_arch": {"pi": [256, 256], "vf": [256, 256]},
    }


def _zoo(zoo_id: str, *, n_envs: int = 1, normalize: bool = False, **options: Any) -> Baseline:
    return Baseline(source=f"zoo {zoo_id}", n_envs=n_envs, normalize=normalize, options=options)


_LUNAR_LANDER: dict[str, Any] = {
    "n_steps": 1024,
    "batch_size": 64,
    "gae_lambda": 0.98,
    "gamma": 0.999,
    "n_epochs": 4,
    "ent_coef": 0.01,
}

_PPO: dict[str, Baseline] = {
    "Pendulum-v1": _zoo(
        "Pendulum-v1",
        n_envs=4,
        n_steps=1024,
        gae_lambda=0.95,
        gamma=0.9,
        n_epochs=10,
        ent_coef=0.0,
        learning_rate=1e-3,
        clip_range=0.2,
        use_sde=True,
        sde_sample_freq=4,
    ),
    "MountainCarContinuous-v0": _zoo(
        "MountainCarContinuous-v0",
        normalize=True,
        batch_size=256,
        n_steps=8,
        gamma=0.9999,
        learning_rate=7.77e-5,
        ent_coef=0.00429,
        clip_range=0.1,
        n_epochs=10,
        gae_lambda=0.9,
        max_grad_norm=5,
        vf_coef=0.19,
        use_sde=True,
        policy_kwargs={"log_std_init": -3.29, "ortho_init": False},
    ),
    "MountainCar-v0": _zoo(
        "MountainCar-v0",
        normalize=True,
        n_envs=16,
        n_steps=16,
        gae_lambda=0.98,
        gamma=0.99,
        n_epochs=4,
        ent_coef=0.0,
    ),
    "Acrobot-v1": _zoo(
        "Acrobot-v1",
        normalize=True,
        n_envs=16,
        n_steps=256,
        gae_lambda=0.94,
        gamma=0.99,
        n_epochs=4,
        ent_coef=0.0,
    ),
    "LunarLander-v3": _zoo("LunarLander-v3", n_envs=16, **_LUNAR_LANDER),
    "LunarLanderContinuous-v3": _zoo("LunarLanderContinuous-v3", n_envs=16, **_LUNAR_LANDER),
    "BipedalWalker-v3": _zoo(
        "BipedalWalker-v3",
        normalize=True,
        n_envs=32,
        n_steps=2048,
        batch_size=64,
        gae_lambda=0.95,
        gamma=0.999,
        n_epochs=10,
        ent_coef=0.0,
        learning_rate=3e-4,
        clip_range=0.18,
    ),
    "Ant-v5": _zoo("Ant-v4", normalize=True),
    "Swimmer-v5": _zoo(
        "Swimmer-v4",
        normalize=True,
        gamma=0.9999,
        n_envs=4,
        n_steps=1024,
        batch_size=256,
        learning_rate=6e-4,
        gae_lambda=0.98,
    ),
    "HalfCheetah-v5": _zoo(
        "HalfCheetah-v4",
        normalize=True,
        batch_size=64,
        n_steps=512,
        gamma=0.98,
        learning_rate=2.0633e-05,
        ent_coef=0.000401762,
        clip_range=0.1,
        n_epochs=20,
        gae_lambda=0.92,
        max_grad_norm=0.8,
        vf_coef=0.58096,
        policy_kwargs=_relu_256(-2),
    ),
    "Hopper-v5": _zoo(
        "Hopper-v4",
        normalize=True,
        batch_size=32,
        n_steps=512,
        gamma=0.999,
        learning_rate=9.80828e-05,
        ent_coef=0.00229519,
        clip_range=0.2,
        n_epochs=5,
        gae_lambda=0.99,
        max_grad_norm=0.7,
        vf_coef=0.835671,
        policy_kwargs=_relu_256(-2),
    ),
    "HumanoidStandup-v5": _zoo(
        "HumanoidStandup-v2",
        normalize=True,
        batch_size=32,
        n_steps=512,
        gamma=0.99,
        learning_rate=2.55673e-05,
        ent_coef=3.62109e-06,
        clip_range=0.3,
        n_epochs=20,
        gae_lambda=0.9,
        max_grad_norm=0.7,
        vf_coef=0.430793,
        policy_kwargs=_relu_256(-2),
    ),
    "Humanoid-v5": _zoo(
        "Humanoid-v4",
        normalize=True,
        batch_size=256,
        n_steps=512,
        gamma=0.95,
        learning_rate=3.56987e-05,
        ent_coef=0.00238306,
        clip_range=0.3,
        n_epochs=5,
        gae_lambda=0.9,
        max_grad_norm=2,
        vf_coef=0.431892,
        policy_kwargs=_relu_256(-2),
    ),
    "InvertedDoublePendulum-v5": _zoo(
        "InvertedDoublePendulum-v2",
        normalize=True,
        batch_size=512,
        n_steps=128,
        gamma=0.98,
        learning_rate=0.000155454,
        ent_coef=1.05057e-06,
        clip_range=0.4,
        n_epochs=10,
        gae_lambda=0.8,
        max_grad_norm=0.5,
        vf_coef=0.695929,
    ),
    "InvertedPendulum-v5": _zoo(
        "InvertedPendulum-v2",
        normalize=True,
        batch_size=64,
        n_steps=32,
        gamma=0.999,
        learning_rate=0.000222425,
        ent_coef=1.37976e-07,
        clip_range=0.4,
        n_epochs=5,
        gae_lambda=0.9,
        max_grad_norm=0.3,
        vf_coef=0.19816,
    ),
    "Reacher-v5": _zoo(
        "Reacher-v2",
        normalize=True,
        batch_size=32,
        n_steps=512,
        gamma=0.9,
        learning_rate=0.000104019,
        ent_coef=7.52585e-08,
        clip_range=0.3,
        n_epochs=5,
        gae_lambda=1.0,
        max_grad_norm=0.9,
        vf_coef=0.950368,
    ),
    "Walker2d-v5": _zoo(
        "Walker2d-v4",
        normalize=True,
        batch_size=32,
        n_steps=512,
        gamma=0.99,
        learning_rate=5.05041e-05,
        ent_coef=0.000585045,
        clip_range=0.1,
        n_epochs=20,
        gae_lambda=0.95,
        max_grad_norm=1,
        vf_coef=0.871923,
    ),
}

_SAC: dict[str, Baseline] = {
    "MountainCarContinuous-v0": _zoo(
        "MountainCarContinuous-v0",
        learning_rate=3e-4,
        buffer_size=50_000,
        batch_size=512,
        ent_coef=0.1,
        train_freq=32,
        gradient_steps=32,
        gamma=0.9999,
        tau=0.01,
        learning_starts=0,
        use_sde=True,
        policy_kwargs={"log_std_init": -3.67, "net_arch": [64, 64], "use_expln": True},
    ),
    "Pendulum-v1": _zoo("Pendulum-v1", learning_rate=1e-3),
    "BipedalWalker-v3": _zoo(
        "BipedalWalker-v3",
        learning_rate=7.3e-4,
        buffer_size=300_000,
        batch_size=256,
        ent_coef="auto",
        gamma=0.98,
        tau=0.02,
        train_freq=64,
        gradient_steps=64,
        learning_starts=10_000,
        use_sde=True,
        policy_kwargs={"log_std_init": -3, "net_arch": [400, 300], "use_expln": True},
    ),
    "HalfCheetah-v5": _zoo("HalfCheetah-v4", learning_starts=10_000),
    "Ant-v5": _zoo("Ant-v4", learning_starts=10_000),
    "Hopper-v5": _zoo("Hopper-v4", learning_starts=10_000),
    "Walker2d-v5": _zoo("Walker2d-v4", learning_starts=10_000),
    "Humanoid-v5": _zoo("Humanoid-v4", learning_starts=10_000),
    "Swimmer-v5": _zoo("Swimmer-v4", learning_starts=10_000, gamma=0.999),
}

BASELINES: Mapping[str, Mapping[str, Baseline]] = MappingProxyType(
    {"ppo": MappingProxyType(_PPO), "sac": MappingProxyType(_SAC)}
)
