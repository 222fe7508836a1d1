"""Adapter for envs that bring `get_state()` and `set_state(state)` of their own."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from mppi_agent.cloning import exact_pickle
from mppi_agent.cloning.base import AttributeAdapter
from mppi_agent.cloning.errors import NotCloneableError
from mppi_agent.cloning.replay import make_anew

__all__ = ["UserProtocolAdapter"]


class UserProtocolAdapter(AttributeAdapter):
    """Clone an env through its own `get_state()` and `set_state(state)`.

    The two must cover everything that the next step depends on, but for `env.np_random`. Copies
    come from a method `copy_env()` where the env has one, else from its attributes, else from
    `gym.make(env.spec)`.
    """

    name = "user_protocol"

    def matches(self, env: Any) -> bool:
        """Say whether both methods are there; `MujocoEnv.set_state(qpos, qvel)` is another."""
        getter, setter = getattr(env, "get_state", None), getattr(env, "set_state", None)
        return (
            callable(getter)
            and callable(setter)
            and _num_required(getter) == 0
            and _num_required(setter) == 1
        )

    def copy_env(self, env: Any) -> Any:
        """Return a private copy, by the best way that the env allows."""
        if callable(getattr(env, "copy_env", None)):
            return env.copy_env()
        try:
            return super().copy_env(env)
        except NotCloneableError:
            if env.spec is None:
                raise
            return make_anew(env.spec)

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return the state as the vector if it is one, else among the extras."""
        state = env.get_state()
        if type(state) is np.ndarray and state.dtype == np.float64 and state.ndim == 1:
            return state.copy(), None
        try:
            return np.empty(0), ("pickle", exact_pickle.dumps(state, self.shared(env)))
        except Exception as error:
            reason = f"get_state() returned a {type(state).__name__} that cannot be copied: {error}"
            raise NotCloneableError.for_env(env, reason) from error

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Hand a private copy of the state to `set_state`."""
        if extras is None:
            env.set_state(physics.copy())
        else:
            env.set_state(exact_pickle.loads(extras[1], self.shared(env)))


def _num_required(function: Any) -> int:
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)
