"""Common ground of the built-in adapters: the attributes of the unwrapped env."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mppi_agent.cloning.attributes import AttributeCapture, CapturedAttributes, copy_instance

__all__ = ["AttributeAdapter"]

_NEVER_STATE = frozenset(
    {
        "action_space",
        "observation_space",
        "reward_range",
        "spec",
        "metadata",
        "render_mode",
        # Copied by Cloneable, for every adapter alike.
        "_np_random",
        "_np_random_seed",
        "_ezpickle_args",
        "_ezpickle_kwargs",
    }
)


class AttributeAdapter:
    """Clone an env through its instance attributes; the built-in adapters derive from it.

    An instance remembers the env that it served last, so it is cheapest with one env only.
    """

    name = "attributes"
    exclude: frozenset[str] = frozenset()

    def __init__(self) -> None:
        """Start with no env."""
        self._attributes: AttributeCapture | None = None

    def fresh(self) -> AttributeAdapter:
        """Return an equal adapter that has served no env yet."""
        return type(self)()

    def matches(self, env: Any) -> bool:
        """Say whether this adapter serves the unwrapped env."""
        return hasattr(env, "__dict__")

    def shared(self, env: Any) -> dict[str, Any]:
        """Name the objects that attributes may point to and that are not copied as attributes."""
        shared = {"env": env}
        rng = env.__dict__.get("_np_random")
        if rng is not None:
            shared["np_random"] = rng
        return shared

    def copy_env(self, env: Any) -> Any:
        """Return a private copy that never renders; its random generator is a copy too."""
        target = self._copy_shared(env)
        rng = env.__dict__.get("_np_random")
        if rng is not None:
            target["np_random"] = copy_generator(rng)
        exclude = _NEVER_STATE | self.exclude
        clone = copy_instance(env, exclude, self.shared(env), target, "env")
        if rng is not None:
            clone.__dict__["_np_random"] = target["np_random"]
        clone.render_mode = None
        return clone

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return an empty vector and the attributes."""
        return np.empty(0), self._capture_attributes(env)

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Put captured attributes back."""
        self._apply_attributes(env, extras)

    def _copy_shared(self, env: Any) -> dict[str, Any]:
        """Return what stands in for `shared` in a private copy, but the env and its generator."""
        return {}

    def _capture_attributes(self, env: Any) -> CapturedAttributes:
        return self._attributes_of(env).capture()

    def _apply_attributes(self, env: Any, captured: CapturedAttributes) -> None:
        self._attributes_of(env).apply(captured)

    def _attributes_of(self, env: Any) -> AttributeCapture:
        if self._attributes is None or self._attributes.owner is not env:
            exclude = _NEVER_STATE | self.exclude
            self._attributes = AttributeCapture(env, exclude, lambda: self.shared(env))
        return self._attributes


def shared_objects(adapter: Any, env: Any) -> Mapping[str, Any]:
    """Return the adapter's shared objects; for an adapter without that method, the env alone."""
    if isinstance(adapter, AttributeAdapter):
        return adapter.shared(env)
    shared = {"env": env}
    rng = getattr(env, "_np_random", None)
    return shared if rng is None else {**shared, "np_random": rng}


def capture_generator(rng: Any) -> Any:
    """Return the state of a numpy generator; None for None."""
    if rng is None:
        return None
    if isinstance(rng, np.random.Generator):
        return rng.bit_generator.state
    return rng.get_state(legacy=False)  # RandomState, in envs of the old days


def apply_generator(rng: Any, state: Any) -> Any:
    """Return a generator in `state`: `rng` itself where its kind allows."""
    if state is None:
        return None
    kind = state["bit_generator"]
    if isinstance(rng, np.random.Generator) and type(rng.bit_generator).__name__ == kind:
        rng.bit_generator.state = state
        return rng
    if "gauss" in state and "has_gauss" in state:
        target = rng if rng is not None else np.random.RandomState()
        target.set_state(state)
        return target
    bits = getattr(np.random, kind)()
    bits.state = state
    return np.random.Generator(bits)


def copy_generator(rng: Any) -> Any:
    """Return a generator that will draw what `rng` will draw."""
    return apply_generator(None, capture_generator(rng))
