"""Vectorised tasks of known envs, each proved equal to `env.step` by a test."""

from __future__ import annotations

import warnings
from typing import Any

from mppi_agent.dynamics.tasks import (
    arms,
    classic_control,
    discrete_control,
    legged,
    locomotion,
    pendulums,
)
from mppi_agent.interfaces import BatchTask, VectorTask

__all__ = ["batch_task_of", "vector_task_of"]

_GYMNASIUM = "gymnasium.envs.mujoco."

# Keyed by the exact class: a subclass may have changed `step`.
_BUILDERS = {
    _GYMNASIUM + "half_cheetah_v5.HalfCheetahEnv": locomotion.half_cheetah,
    _GYMNASIUM + "swimmer_v5.SwimmerEnv": locomotion.swimmer,
    # Of version 4 these two compute the same; the others do not.
    _GYMNASIUM + "half_cheetah_v4.HalfCheetahEnv": locomotion.half_cheetah,
    _GYMNASIUM + "swimmer_v4.SwimmerEnv": locomotion.swimmer,
    _GYMNASIUM + "hopper_v5.HopperEnv": locomotion.hopper,
    _GYMNASIUM + "walker2d_v5.Walker2dEnv": locomotion.walker2d,
    _GYMNASIUM + "inverted_pendulum_v5.InvertedPendulumEnv": pendulums.inverted_pendulum,
    _GYMNASIUM
    + "inverted_double_pendulum_v5.InvertedDoublePendulumEnv": pendulums.inverted_double_pendulum,
    _GYMNASIUM + "reacher_v5.ReacherEnv": arms.reacher,
    _GYMNASIUM + "pusher_v5.PusherEnv": arms.pusher,
    _GYMNASIUM + "ant_v5.AntEnv": legged.ant,
    _GYMNASIUM + "humanoid_v5.HumanoidEnv": legged.humanoid,
    _GYMNASIUM + "humanoidstandup_v5.HumanoidStandupEnv": legged.humanoid_standup,
}

_CLASSIC = "gymnasium.envs.classic_control."

_VECTOR_BUILDERS = {
    _CLASSIC + "pendulum.PendulumEnv": classic_control.pendulum,
    _CLASSIC
    + "continuous_mountain_car.Continuous_MountainCarEnv": classic_control.mountain_car_continuous,
    _CLASSIC + "cartpole.CartPoleEnv": discrete_control.cart_pole,
    _CLASSIC + "mountain_car.MountainCarEnv": discrete_control.mountain_car,
    _CLASSIC + "acrobot.AcrobotEnv": discrete_control.acrobot,
}


def batch_task_of(env: Any) -> BatchTask | None:
    """Return the vectorised task of an unwrapped env, or None where there is none.

    An env of your own joins by a method `batch_task()` that returns a `BatchTask`; a subclass that
    changes `step` needs another.
    """
    if hasattr(env, "batch_task"):
        return env.batch_task() if _is_of_this_step(env, "batch_task") else None
    builder = _BUILDERS.get(_class_name(env))
    return None if builder is None else builder(env)


def vector_task_of(env: Any) -> VectorTask | None:
    """Return the array form of an unwrapped env that has no simulator, or None.

    An env of your own joins by a method `vector_task()` that returns a `VectorTask`; a subclass
    that changes `step` needs another.
    """
    if hasattr(env, "vector_task"):
        return env.vector_task() if _is_of_this_step(env, "vector_task") else None
    builder = _VECTOR_BUILDERS.get(_class_name(env))
    return None if builder is None else builder(env)


def _is_of_this_step(env: Any, name: str) -> bool:
    """Say whether no subclass changed `step` behind what returns the task; warn if one did."""
    scopes = [vars(env), *(vars(kind) for kind in type(env).__mro__)]
    is_its_own = next(name in scope for scope in scopes if name in scope or "step" in scope)
    if not is_its_own:
        warnings.warn(
            f"{type(env).__name__} has a step() that need not be what {name}() describes, so "
            f"steps are taken one by one, which is slower; define {name}() in the class that "
            "defines step()",
            stacklevel=2,
        )
    return is_its_own


def _class_name(env: Any) -> str:
    kind = type(env)
    return f"{kind.__module__}.{kind.__qualname__}"
