"""Adapter for Atari games: the state of the emulator and of its random generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from mppi_agent.cloning.base import AttributeAdapter
from mppi_agent.cloning.errors import NotCloneableError
from mppi_agent.cloning.replay import constructor_of, make_anew

__all__ = ["AtariAdapter"]


class AtariAdapter(AttributeAdapter):
    """Clone the envs of ale-py, without its own sticky actions.

    With `repeat_action_probability` > 0 the emulator remembers the last action in a place that its
    saved states leave out, so a restored game would now and then repeat the wrong one.
    Gymnasium's wrapper `StickyAction` does the same job and is cloned exactly.
    """

    name = "atari"
    exclude = frozenset({"ale", "_action_set"})

    def matches(self, env: Any) -> bool:
        """Say whether the env is ale-py's.

        Raises:
            NotCloneableError: If its actions are sticky inside the emulator.
        """
        if not any(k.__module__ == "ale_py.env" for k in type(env).__mro__):
            return False
        stickiness = env.ale.getFloat("repeat_action_probability")
        if stickiness > 0:
            reason = (
                f"repeat_action_probability={stickiness:g}, and the emulator's saved states leave "
                "out the action to repeat. Make the env with repeat_action_probability=0.0 and put "
                f"gymnasium.wrappers.StickyAction(env, {stickiness:g}) around it"
            )
            raise NotCloneableError.for_env(env, reason)
        return True

    def shared(self, env: Any) -> dict[str, Any]:
        """Add the emulator, which some wrappers point to."""
        return {**super().shared(env), "ale": env.ale}

    def copy_env(self, env: Any) -> Any:
        """Return a new env from the constructor of `env`, with an emulator of its own."""
        return make_anew(*constructor_of(env))

    def recipe(self, env: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return function and arguments that make such an env in another process."""
        return make_anew, constructor_of(env)

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return an empty vector, and the emulator's state with the attributes."""
        return np.empty(0), (env.ale.cloneState(include_rng=True), self._capture_attributes(env))

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Put a captured state back."""
        state, attributes = extras
        env.ale.restoreState(state)
        self._apply_attributes(env, attributes)
