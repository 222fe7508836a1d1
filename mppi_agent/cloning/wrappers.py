"""Which wrappers take part in cloning, and how one is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import gymnasium as gym
from gymnasium import wrappers as gym_wrappers

from mppi_agent.cloning.attributes import copy_instances
from mppi_agent.cloning.errors import NotCloneableError

__all__ = [
    "copy_wrapper",
    "has_state",
    "is_passive",
    "is_transparent",
    "layers_of",
    "not_state",
    "refuse_pixels",
    "skip_first_checks",
    "without_passive_wrappers",
]

_PASSIVE = (
    gym_wrappers.PassiveEnvChecker,
    gym_wrappers.RecordEpisodeStatistics,
    gym_wrappers.RecordVideo,
    gym_wrappers.RenderCollection,
    gym_wrappers.HumanRendering,
    gym_wrappers.Autoreset,
)
_TRANSPARENT = (gym_wrappers.OrderEnforcing, gym_wrappers.TimeLimit)
_NORMALIZERS = (gym_wrappers.NormalizeObservation, gym_wrappers.NormalizeReward)
_NEVER_STATE = frozenset(
    {
        "env",
        "action_space",
        "observation_space",
        "_action_space",
        "_observation_space",
        "_metadata",
        "_cached_spec",
        "_saved_kwargs",
    }
)


def layers_of(env: gym.Env) -> list[Any]:
    """Return the wrapper chain, outermost first, ending with the unwrapped env."""
    layers: list[Any] = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers


def has_state(wrapper: Any) -> bool:
    """Say whether a wrapper does more than check each call of the env once."""
    return not isinstance(wrapper, gym_wrappers.PassiveEnvChecker)


def is_passive(wrapper: Any) -> bool:
    """Say whether a wrapper only watches, records or resets: a private copy does without it."""
    return any(_acts_as(wrapper, kind) for kind in _PASSIVE) or any(
        kind.__module__ == "stable_baselines3.common.monitor" and _acts_as(wrapper, kind)
        for kind in type(wrapper).__mro__
    )


def is_transparent(wrapper: Any) -> bool:
    """Say whether a wrapper leaves actions, observations, rewards and terminations as they are."""
    return is_passive(wrapper) or any(_acts_as(wrapper, kind) for kind in _TRANSPARENT)


def _acts_as(wrapper: Any, kind: Any) -> bool:
    """Say whether a wrapper steps and resets just as one of that kind does."""
    own = type(wrapper)
    return issubclass(own, kind) and (own.step, own.reset) == (kind.step, kind.reset)


def not_state(wrapper: Any) -> frozenset[str]:
    """Name the attributes of a wrapper that are not state."""
    if isinstance(wrapper, _NORMALIZERS):
        return _NEVER_STATE | {"_update_running_mean"}
    return _NEVER_STATE


def copy_wrapper(wrapper: Any, key: str, source: Mapping[str, Any], target: dict[str, Any]) -> Any:
    """Return a copy of one wrapper that never learns statistics; its `env` is still to be set."""
    copy_instances({key: wrapper}, not_state(wrapper), source, target)
    clone = target[key]
    if isinstance(clone, _NORMALIZERS):
        clone.__dict__["_update_running_mean"] = False
    return clone


def skip_first_checks(env: gym.Env) -> None:
    """Keep Gymnasium's checker from comparing a step with a reset that never was."""
    for layer in layers_of(env):
        if isinstance(layer, gym_wrappers.PassiveEnvChecker) and not layer.checked_reset:
            layer.checked_step = layer.checked_data_reuse = True


def refuse_pixels(wrapper: Any) -> None:
    """Raise for a wrapper that renders in every step: private copies do not render."""
    if isinstance(wrapper, gym_wrappers.AddRenderObservation):
        raise NotCloneableError(
            "AddRenderObservation inside Cloneable would render in every planned step; "
            "put Cloneable below it: AddRenderObservation(Cloneable(env))"
        )


@contextmanager
def without_passive_wrappers(env: gym.Env) -> Iterator[None]:
    """Take the passive wrappers out of a chain and freeze running statistics for a while."""
    layers = layers_of(env)
    active = [layers[0], *(layer for layer in layers[1:] if not is_passive(layer))]
    links = [(layer, layer.env) for layer in active[:-1]]
    normalizers = [layer for layer in active if isinstance(layer, _NORMALIZERS)]
    updating = [layer.__dict__["_update_running_mean"] for layer in normalizers]
    try:
        for layer, inner in pairwise(active):
            layer.env = inner
        for layer in normalizers:
            layer.__dict__["_update_running_mean"] = False
        yield
    finally:
        for layer, inner in links:
            layer.env = inner
        for layer, flag in zip(normalizers, updating, strict=True):
            layer.__dict__["_update_running_mean"] = flag
