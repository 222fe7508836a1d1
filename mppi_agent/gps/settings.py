"""Check the arguments of MPPIGPS, its env first, and fill presets in, at construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.vec_env import VecEnv

from mppi_agent.cloning import Cloneable, layers_above
from mppi_agent.dynamics import sub_env
from mppi_agent.gps.action_heads import action_head
from mppi_agent.gps.guidance import GuidanceConfig
from mppi_agent.gps.improvement import UpdateConfig
from mppi_agent.gps.presets import preset_for
from mppi_agent.gps.view import PolicyView
from mppi_agent.planning import MPPIConfig

__all__ = [
    "check_noise",
    "check_settings",
    "cloneable_env",
    "env_id",
    "fill_presets",
    "guidance_config",
    "update_config",
]


def cloneable_env(env: Any) -> Any:
    """Return an env that can be planned in: a `VecEnv` as it is, others within a `Cloneable`.

    Args:
        env: Env id, Gymnasium env or `VecEnv`; None stays None.

    Raises:
        ValueError: If its actions cannot be planned, or a wrapper around the Cloneable changes what
            the student sees, does or earns.
        TypeError: If it is no env, or an env of a `VecEnv` is not `Cloneable`.
    """
    if env is None:
        return None
    env = maybe_make_env(env, verbose=0)  # an id; able to render, as SB3 makes it
    if not hasattr(env, "action_space"):
        raise TypeError(f"env must be an env id, a Gymnasium env or a VecEnv, got {env!r}")
    action_head(env.action_space)
    if isinstance(env, VecEnv):
        sub_env(env)
        for one in getattr(env.unwrapped, "envs", []):  # those of other processes are out of reach
            _require_none_above(one)
        PolicyView(env, env.action_space)
        return env
    try:
        _require_none_above(env)
    except TypeError:
        return Cloneable(env)
    return env


def _require_none_above(env: Any) -> None:
    above = layers_above(env)
    if above:
        name = type(above[0]).__name__
        raise ValueError(
            f"{name} is around the Cloneable in {env}, where simulations know nothing of it, so "
            "that the student would learn another task: put it inside, as in "
            f"Cloneable({name}(env))"
        )


def env_id(env: VecEnv | None) -> str | None:
    """Return the id that an env was registered under; None without one."""
    if env is None:
        return None
    spec = env.get_attr("spec")[0]
    return None if spec is None else spec.id


def fill_presets(model: Any, env_id: str | None) -> None:
    """Set the arguments that were left at None to the env's preset."""
    for name, value in preset_for(env_id).items():
        if getattr(model, name) is None:
            setattr(model, name, value)


def check_settings(model: Any) -> None:
    """Refuse arguments that cannot work.

    Raises:
        ValueError: Naming the argument, what was wanted and what came.
        TypeError: The same, for an argument that is no number.
    """
    for name, (wanted, holds) in _WANTED.items():
        value = getattr(model, name)
        if name == "clip_range" and callable(value):  # a schedule
            continue
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not (is_number and np.isfinite(value) and holds(value)):
            raise ValueError(f"{name} must be {wanted}, got {value!r}")
    for name, (wanted, holds) in _WANTED_OBJECTS.items():
        value = getattr(model, name)
        if value is not None and not holds(value):
            raise TypeError(f"{name} must be {wanted}, or None, got {value!r}")
    if "log_std_init" in model.policy_kwargs:
        raise ValueError(
            f"policy_kwargs holds log_std_init={model.policy_kwargs['log_std_init']}, which "
            "init_std would overwrite: pass init_std, in half-range units, in its place"
        )


def check_noise(model: Any) -> None:
    """Check what noise a new model would begin with; later it is what training made of it.

    Raises:
        ValueError: If it is below its floor.
    """
    check_settings(model)
    if isinstance(model.action_space, gym.spaces.Box) and model.init_std < model.min_std:
        raise ValueError(
            f"init_std={model.init_std} must be >= min_std={model.min_std}, below which the noise "
            f"never falls; pass init_std={model.min_std} or more, or a lower min_std"
        )


def update_config(model: Any) -> UpdateConfig:
    """Return what the policy update is told; a schedule of `clip_range` as it stands now."""
    given = {field.name: getattr(model, field.name) for field in fields(UpdateConfig)}
    if callable(given["clip_range"]):
        given["clip_range"] = float(given["clip_range"](model._current_progress_remaining))
    return UpdateConfig(**given)


def guidance_config(model: Any) -> GuidanceConfig:
    """Return what the planner's part of a round is told."""
    return GuidanceConfig(**{f.name: getattr(model, f.name) for f in fields(GuidanceConfig)})


def _int_from(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"an int >= {least}", lambda v: isinstance(v, int | np.integer) and bool(v >= least)


_POSITIVE: tuple[str, Callable[[Any], bool]] = ("> 0 and finite", lambda v: v > 0)
_SHARE: tuple[str, Callable[[Any], bool]] = ("in [0, 1]", lambda v: 0 <= v <= 1)

_WANTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "n_steps": _int_from(1),
    "batch_size": _int_from(2),
    "n_epochs": _int_from(1),
    "num_simulations": _int_from(1),
    "simulation_steps": _int_from(2),
    "eval_episodes": _int_from(1),
    "expert_episodes": _int_from(0),
    "expert_steps": _int_from(1),
    "label_states": _int_from(0),
    "label_steps": _int_from(0),
    "label_interval": _int_from(1),
    "substeps": _int_from(0),
    "gamma": ("in (0, 1]", lambda v: 0 < v <= 1),
    "gae_lambda": _SHARE,
    "clip_range": _POSITIVE,
    "target_kl": _POSITIVE,
    "init_std": _POSITIVE,
    "min_std": _POSITIVE,
    "max_grad_norm": _POSITIVE,
    "vf_coef": _POSITIVE,
    "ent_coef": (">= 0 and finite", lambda v: v >= 0),
    "archive_share": _SHARE,
    "random_share": ("in [0, 1)", lambda v: 0 <= v < 1),
    "planner_share": ("in [0, 1)", lambda v: 0 <= v < 1),
}

_WANTED_OBJECTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "planner": ("an MPPIConfig", lambda v: isinstance(v, MPPIConfig)),
    "dynamics": ("a Dynamics, as make_dynamics returns", lambda v: hasattr(v, "rollout")),
    "expert_policy": ("an SB3 model, or what has its predict", lambda v: hasattr(v, "predict")),
    "policy_loss": ("a PolicyLoss, as clipped_loss(0.2) returns", callable),
}
