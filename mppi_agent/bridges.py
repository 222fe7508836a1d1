"""Hand what MPPIGPS and its planner know to the algorithms of Stable-Baselines3.

MPPIGPS --to_ppo--> PPO that learns on from the weights
[Demonstration] --fill_replay_buffer--> buffer of SAC, TD3, DDPG or DQN
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecNormalize

from mppi_agent.demonstrations import Demonstration, check_demonstrations, rewards_of
from mppi_agent.dynamics.observations import agree, join_observations, select_rows
from mppi_agent.gps import MPPIGPS

__all__ = ["fill_replay_buffer", "to_ppo"]

# PPO's own 3e-4 without a limit moves trained policies by a KL of 0.04 to 0.14 per update and clips
# a third to half of the samples; docs/bridges.md has what that costs.
_SETTINGS: Mapping[str, Any] = MappingProxyType({"learning_rate": 1e-4, "target_kl": 0.02})


def to_ppo(model: MPPIGPS, env: GymEnv | str, **settings: Any) -> PPO:
    """Return a PPO that goes on from a trained model's policy and value head.

    Discount and lambda are the model's, so that the value head means the same, and updates are
    kept small, to a KL of 0.02 unless told. Observation statistics are part of the weights and
    stay as they are. The optimiser begins afresh.

    Args:
        model: Trained; it stays as it is.
        env: For PPO; it need not be cloneable.
        settings: Of `PPO`, in place of the ones chosen here.

    Raises:
        ValueError: If `env` has other spaces than the model, or a `VecNormalize` that scales
            rewards, which the value head does not, or shows other observations than the model saw.
    """
    plain_policy = getattr(model.policy, "_orig_mod", model.policy)  # without th.compile's shell
    kept = {"gamma": model.gamma, "gae_lambda": model.gae_lambda, "device": model.device}
    ppo = PPO(
        type(plain_policy),
        env,
        **{"policy_kwargs": model.policy_kwargs, **kept, **_SETTINGS, **settings},
    )
    assert ppo.env is not None
    check_for_correct_spaces(ppo.env, model.observation_space, model.action_space)
    _check_normalisation(model, ppo)
    ppo.policy.load_state_dict(plain_policy.state_dict())
    return ppo


def fill_replay_buffer(buffer: ReplayBuffer, demonstrations: Sequence[Demonstration]) -> int:
    """Add every step of some demonstrations, as an off-policy algorithm would have stored it.

    Box actions are scaled to [-1, 1], observations and rewards stay as the env gave them, and an
    episode that a time limit ended is marked as such, so that its value is bootstrapped. A buffer
    for several envs gets one stretch of the steps per env; up to `n_envs - 1` steps at the end are
    left out.

    Args:
        buffer: Such as `SAC(...).replay_buffer`; what it holds already stays, as far as it fits.
        demonstrations: With rewards, of the env that the buffer was made for.

    Returns:
        The number of steps that were added.

    Raises:
        TypeError: If `buffer` is no `ReplayBuffer`.
        ValueError: If there are more steps than fit, rewards are missing, or demonstrations come
            from another env.
    """
    if not isinstance(buffer, ReplayBuffer):
        raise TypeError(
            f"buffer must be a ReplayBuffer of Stable-Baselines3, got a {type(buffer).__name__}; "
            "pass model.replay_buffer of a SAC, TD3, DDPG or DQN model"
        )
    check_demonstrations(demonstrations, buffer.observation_space, buffer.action_space)
    num = sum(len(episode) for episode in demonstrations) // buffer.n_envs
    if num > buffer.buffer_size:
        raise ValueError(
            f"{num * buffer.n_envs} steps do not fit into a buffer of "
            f"{buffer.buffer_size * buffer.n_envs}; make the model with a larger buffer_size, or "
            "pass fewer demonstrations"
        )
    before = _observations(demonstrations, slice(None, -1))
    after = _observations(demonstrations, slice(1, None))
    actions = _scaled(np.concatenate([e.actions for e in demonstrations]), buffer.action_space)
    rewards = np.concatenate([rewards_of(episode) for episode in demonstrations])
    done, cut = _ends(demonstrations, num, buffer.n_envs)
    add: Any = buffer.add  # typed for arrays; a DictReplayBuffer takes dicts
    for t in range(num):
        rows = t + num * np.arange(buffer.n_envs)  # one row per env
        add(
            select_rows(before, rows),
            select_rows(after, rows),
            actions[rows],
            rewards[rows],
            done[rows],
            [{"TimeLimit.truncated": bool(is_cut)} for is_cut in cut[rows]],
        )
    return num * buffer.n_envs


def _check_normalisation(model: MPPIGPS, ppo: PPO) -> None:
    seen, shown = model.get_vec_normalize_env(), ppo.get_vec_normalize_env()
    if shown is not None and shown.norm_reward:
        raise ValueError(
            "env scales rewards, and the value head speaks unscaled ones: make it with "
            "VecNormalize(..., norm_reward=False)"
        )
    if shown is not None and shown.norm_obs and model.env is None:
        raise ValueError(
            "the model was loaded without its env, so that nobody knows what it saw behind "
            "VecNormalize: load it with MPPIGPS.load(path, env=env)"
        )
    if not agree(_observation_statistics(seen), _observation_statistics(shown)):
        raise ValueError(
            "VecNormalize changes the observations of one env and not of the other: give PPO the "
            "wrappers and the statistics that the model was trained with; without VecNormalize "
            "the model's own statistics do"
        )


def _observation_statistics(normalizer: VecNormalize | None) -> list[Any]:
    """Return what a VecNormalize makes of observations; nothing where it leaves them."""
    if normalizer is None or not normalizer.norm_obs:
        return []
    own = normalizer.obs_rms
    parts = [own[key] for key in sorted(own)] if isinstance(own, dict) else [own]
    return [[part.mean, part.var] for part in parts]


def _ends(
    demonstrations: Sequence[Demonstration], stretch: int, num_stretches: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return for every step whether it was the last one, and whether something else ended it."""
    last = np.cumsum([len(episode) for episode in demonstrations]) - 1
    done = np.zeros(last[-1] + 1, dtype=bool)
    done[last] = True
    cut = done.copy()
    cut[last] = [not episode.terminated for episode in demonstrations]
    # Where a stretch ends inside an episode, what comes next in the buffer is not its next step.
    torn = stretch * np.arange(1, num_stretches + 1) - 1
    cut[torn] |= ~done[torn]
    return done | cut, cut


def _observations(demonstrations: Sequence[Demonstration], steps: slice) -> Any:
    return join_observations([select_rows(e.observations, steps) for e in demonstrations], 0)


def _scaled(actions: np.ndarray, space: Any) -> np.ndarray:
    """Return Box actions in [-1, 1], as off-policy algorithms store them; others as they are."""
    if not isinstance(space, spaces.Box):
        return actions
    return np.clip(2.0 * (actions - space.low) / (space.high - space.low) - 1.0, -1.0, 1.0)
