"""Vectorised tasks of known MuJoCo envs, each proved equal to `env.step` by a test."""

from __future__ import annotations

from typing import Any

from mppi_agent.dynamics.tasks import arms, locomotion, pendulums
from mppi_agent.interfaces import BatchTask

__all__ = ["batch_task_of"]

_GYMNASIUM = "gymnasium.envs.mujoco."

# Keyed by the exact class: a subclass may have changed `step`.
_BUILDERS = {
    _GYMNASIUM + "half_cheetah_v5.HalfCheetahEnv": locomotion.half_cheetah,
    _GYMNASIUM + "swimmer_v5.SwimmerEnv": locomotion.swimmer,
    _GYMNASIUM + "hopper_v5.HopperEnv": locomotion.hopper,
    _GYMNASIUM + "walker2d_v5.Walker2dEnv": locomotion.walker2d,
    _GYMNASIUM + "inverted_pendulum_v5.InvertedPendulumEnv": pendulums.inverted_pendulum,
    _GYMNASIUM
    + "inverted_double_pendulum_v5.InvertedDoublePendulumEnv": pendulums.inverted_double_pendulum,
    _GYMNASIUM + "reacher_v5.ReacherEnv": arms.reacher,
    _GYMNASIUM + "pusher_v5.PusherEnv": arms.pusher,
}


def batch_task_of(env: Any) -> BatchTask | None:
    """Return the vectorised task of an unwrapped env, or None where there is none.

    An env of your own joins by a method `batch_task()` that returns a `BatchTask`.
    """
    if hasattr(env, "batch_task"):
        return env.batch_task()
    kind = type(env)
    builder = _BUILDERS.get(f"{kind.__module__}.{kind.__qualname__}")
    return None if builder is None else builder(env)
