"""Common ground of the built-in adapters: the attributes of the unwrapped env."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mppi_agent.cloning.attributes import AttributeCapture, CapturedAttributes, copy_instances

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


# Attributes of the env; those of each inner part, with the state of its generator.
_CapturedParts = tuple[CapturedAttributes, list[tuple[CapturedAttributes, Any]]]


class AttributeAdapter:
    """Clone an env through its instance attributes; the built-in adapters derive from it.

    An instance remembers the env that it served last, so it is cheapest with one env only.

    Attributes:
        name: What reports call the adapter.
        exclude: Attributes that are not state, in the env and its inner parts; copies share them.
        inner_generator: Attribute that holds the random generator of an inner part.
    """

    name = "attributes"
    exclude: frozenset[str] = frozenset()
    inner_generator = "_np_random"

    def __init__(self) -> None:
        """Start with no env."""
        self._captures: list[AttributeCapture] = []

    def fresh(self) -> AttributeAdapter:
        """Return an equal adapter that has served no env yet."""
        return type(self)()

    def matches(self, env: Any) -> bool:
        """Say whether this adapter serves the unwrapped env."""
        return hasattr(env, "__dict__")

    def inner_parts(self, env: Any) -> dict[str, Any]:
        """Name the objects inside the env whose attributes are state and that stay in place.

        Other objects among the attributes are pickled by value, which costs more, and a restore
        puts new ones in their place.
        """
        return {}

    def shared(self, env: Any) -> dict[str, Any]:
        """Name the objects that attributes may point to and that are not copied as attributes."""
        shared = {"env": env}
        rng = env.__dict__.get("_np_random")
        if rng is not None:
            shared["np_random"] = rng
        for name, part in self.inner_parts(env).items():
            shared[name] = part
            if part.__dict__.get(self.inner_generator) is not None:
                shared[f"{name}.generator"] = part.__dict__[self.inner_generator]
        return shared

    def copy_env(self, env: Any) -> Any:
        """Return a private copy that never renders; its random generators are copies too."""
        source, target = self.shared(env), self._copy_shared(env)
        for name, value in source.items():
            if name == "np_random" or name.endswith(".generator"):
                target[name] = copy_generator(value)
        sources = {"env": env, **self.inner_parts(env)}
        copy_instances(sources, self._not_state(), source, target)
        target["env"].render_mode = None
        return target["env"]

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return an empty vector and the attributes."""
        return np.empty(0), self._capture_attributes(env)

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Put captured attributes back."""
        self._apply_attributes(env, extras)

    def _copy_shared(self, env: Any) -> dict[str, Any]:
        """Return what stands in for `shared` in a private copy, but the parts and generators."""
        return {}

    def _capture_attributes(self, env: Any) -> _CapturedParts:
        outer, *inner = self._captures_of(env)
        if not inner:
            return outer.capture(), []
        parts = [(part.capture(), self._generator_of(part.owner)) for part in inner]
        return outer.capture(), parts

    def _apply_attributes(self, env: Any, captured: _CapturedParts) -> None:
        outer, *inner = self._captures_of(env)
        outer.apply(captured[0])
        for part, (values, generator) in zip(inner, captured[1], strict=True):
            part.apply(values)
            if generator is not None:
                attributes = part.owner.__dict__
                rng = attributes.get(self.inner_generator)
                attributes[self.inner_generator] = apply_generator(rng, generator)

    def _captures_of(self, env: Any) -> list[AttributeCapture]:
        captures = self._captures
        if captures and captures[0].owner is env and len(captures) == 1:
            return captures
        parts = [env, *self.inner_parts(env).values()]
        if list(map(id, parts)) != [id(capture.owner) for capture in captures]:
            exclude = self._not_state()
            self._captures = [
                AttributeCapture(part, exclude, lambda: self.shared(env)) for part in parts
            ]
        return self._captures

    def _generator_of(self, part: Any) -> Any:
        return capture_generator(part.__dict__.get(self.inner_generator))

    def _not_state(self) -> frozenset[str]:
        return _NEVER_STATE | self.exclude | {self.inner_generator}


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
    if isinstance(rng, np.random.Generator):
        try:
            rng.bit_generator.state = state
        except ValueError:  # it is of another kind
            pass
        else:
            return rng
    if "gauss" in state and "has_gauss" in state:
        target = rng if isinstance(rng, np.random.RandomState) else np.random.RandomState()
        target.set_state(state)
        return target
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)


def copy_generator(rng: Any) -> Any:
    """Return a generator that will draw what `rng` will draw."""
    return apply_generator(None, capture_generator(rng))
