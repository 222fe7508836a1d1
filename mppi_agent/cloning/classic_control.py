"""Adapter for Gymnasium's classic control: the state vector and two attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mppi_agent.cloning.base import AttributeAdapter

__all__ = ["ClassicControlAdapter"]

_ENVS = frozenset(
    {"PendulumEnv", "MountainCarEnv", "Continuous_MountainCarEnv", "CartPoleEnv", "AcrobotEnv"}
)
_ATTRIBUTES = ("steps_beyond_terminated", "last_u")


class ClassicControlAdapter(AttributeAdapter):
    """Clone Pendulum, MountainCar, MountainCarContinuous, CartPole and Acrobot.

    The type of the state matters for exactness and is kept: MountainCarContinuous has float64
    after reset and float32 after a step, MountainCar a tuple after a step.
    """

    name = "classic_control"

    def matches(self, env: Any) -> bool:
        """Say whether the env is one of Gymnasium's own, not a subclass with state of its own."""
        kind = type(env)
        return (
            kind.__module__.startswith("gymnasium.envs.classic_control") and kind.__name__ in _ENVS
        )

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return the state vector; its type, `steps_beyond_terminated` and `last_u`."""
        attributes = env.__dict__
        state = attributes.get("state")
        kind: Any
        if state is None:
            physics, kind = np.empty(0), None
        elif isinstance(state, np.ndarray):
            physics, kind = state.astype(np.float64), state.dtype.char
        else:
            physics, kind = np.array(state, dtype=np.float64), tuple([type(x) for x in state])
        # `last_u` is a scalar or an array that step() makes anew and never writes to.
        return physics, (kind, [(n, attributes[n]) for n in _ATTRIBUTES if n in attributes])

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Put a captured state back."""
        kind, attributes = extras
        if kind is None:
            env.__dict__["state"] = None
        elif isinstance(kind, str):
            env.__dict__["state"] = physics.astype(kind)
        else:
            env.__dict__["state"] = tuple([t(x) for t, x in zip(kind, physics, strict=True)])
        env.__dict__.update(attributes)
