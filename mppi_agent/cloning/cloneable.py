"""A Gymnasium wrapper with `snapshot()` and `restore()`: where every `EnvState` comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import exact_pickle
from mppi_agent.cloning.attributes import AttributeCapture, CapturedAttributes
from mppi_agent.cloning.base import (
    AttributeAdapter,
    apply_generator,
    capture_generator,
    copy_generator,
    shared_objects,
)
from mppi_agent.cloning.errors import NotCloneableError
from mppi_agent.cloning.registry import adapter_for
from mppi_agent.cloning.wrappers import (
    copy_wrapper,
    has_state,
    is_passive,
    is_transparent,
    layers_of,
    not_state,
    refuse_pixels,
    skip_first_checks,
)
from mppi_agent.interfaces import EnvState, Observation, StateAdapter

__all__ = ["Cloneable", "find_cloneable", "layers_above", "pack", "unpack"]


class Cloneable(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Give an env, with all wrappers inside this one, an exact snapshot and restore.

    The law: after `restore(state)`, the same actions bring the same observations, rewards and
    ends, bit for bit, on this env and on each `private_copy()`.

    Wrappers that only watch (Monitor, RecordVideo, ...) keep their logs on restore; of them only
    numbers and flags are put back, such as Monitor's `needs_reset`.
    """

    def __init__(
        self, env: gym.Env, adapter: StateAdapter | None = None, *, allow_inexact: bool = False
    ) -> None:
        """Wrap `env`.

        Args:
            env: Gymnasium env, wrapped or not; it need not have been reset.
            adapter: Captures the unwrapped env; None: the first that matches, see `adapter_for`.
            allow_inexact: Whether to plan with this env, after a warning, even where the check at
                start-up finds that clones do not repeat what the env does.

        Raises:
            ValueError: If there is a Cloneable inside already.
            NotCloneableError: If no adapter serves the env, or an attribute cannot be copied.
        """
        gym.utils.RecordConstructorArgs.__init__(self, adapter=adapter, allow_inexact=allow_inexact)
        super().__init__(env)
        layers = layers_of(env)
        if not _is_of_arrays(env.observation_space):
            raise NotCloneableError.for_env(
                env.unwrapped,
                f"observations in {env.observation_space} are neither arrays nor dicts of them; "
                "convert them with gymnasium.wrappers.FlattenObservation or TransformObservation",
            )
        if any(isinstance(layer, Cloneable) for layer in layers):
            raise ValueError(
                f"{env} contains a Cloneable already; use it as it is, "
                "or get hold of the inner one with find_cloneable(env)"
            )
        self._base = layers[-1]
        self._adapter = adapter if adapter is not None else adapter_for(self._base)
        attach = getattr(self._adapter, "attach", None)
        if attach is not None:
            attach(self._base)
        self._allow_inexact = allow_inexact
        self._observation: Observation | None = None
        self._num_resets = 0
        self._wrappers = [layer for layer in layers[:-1] if has_state(layer)]
        for wrapper in self._wrappers:
            refuse_pixels(wrapper)
        self._keys = (*_name_wrappers(self._wrappers), _name_class(self._base))
        self._captures = [self._capture_of(wrapper) for wrapper in self._wrappers]
        self._routes: dict[tuple[str, ...], list[int]] = {}
        for capture in self._captures:
            capture.capture()

    @property
    def adapter(self) -> StateAdapter:
        """The adapter that captures the unwrapped env."""
        return self._adapter

    @property
    def allow_inexact(self) -> bool:
        """Whether planning may go on although clones do not repeat what the env does."""
        return self._allow_inexact

    @property
    def num_resets(self) -> int:
        """Resets so far: whoever keeps a plan for this env drops it when the number changes."""
        return self._num_resets

    @property
    def is_transparent(self) -> bool:
        """Whether the wrappers inside leave actions, observations and rewards as they are."""
        return all(is_transparent(wrapper) for wrapper in self._wrappers)

    @property
    def last_observation(self) -> Observation:
        """What the env returned last; never modify it.

        Raises:
            RuntimeError: Before the first reset.
        """
        if self._observation is None:
            raise RuntimeError("no observation yet: call reset() on the Cloneable first")
        return self._observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the env and remember the observation.

        Raises:
            TypeError: If the env returns something else than Gymnasium's two.
        """
        outcome = self.env.reset(seed=seed, options=options)
        if not isinstance(outcome, tuple) or len(outcome) != 2 or not _is_info(outcome[1]):
            raise self._contract_error("reset", outcome, "(observation, info)")
        self._num_resets += 1
        self._observation = _copy_observation(outcome[0], self.observation_space)
        return outcome

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the env and remember the observation.

        Raises:
            TypeError: If the env returns something else than Gymnasium's five.
        """
        outcome = self.env.step(action)
        if len(outcome) != 5:
            wanted = "(observation, reward, terminated, truncated, info)"
            raise self._contract_error("step", outcome, wanted)
        self._observation = _copy_observation(outcome[0], self.observation_space)
        return outcome

    def snapshot(self) -> EnvState:
        """Return everything that the future of the env depends on; picklable.

        Raises:
            RuntimeError: Before the first reset.
        """
        return self._capture(self.last_observation)

    @contextmanager
    def left_as_found(self) -> Iterator[None]:
        """Put the env back into its present state afterwards, even one before any reset.

        An env whose own `get_state()` needs a reset first has no state to go back to before that.
        """
        try:
            before = self._capture(self._observation)
        except AttributeError:
            if self._observation is not None:
                raise
            before = None
        try:
            yield
        finally:
            if before is not None:
                self.restore(before)

    def restore(self, state: EnvState) -> None:
        """Put the env into `state`, captured here, on a private copy or in another process.

        Raises:
            TypeError: If `state` does not come from a Cloneable.
            ValueError: If it comes from another env or another chain of wrappers.
        """
        extras = _extras_of(state)
        if self._observation is None and state.observation is not None:
            skip_first_checks(self.env)
        route = None if extras.keys == self._keys else self._route(extras.keys)
        self._adapter.apply(self._base, state.physics, extras.base)
        rng = self._base.__dict__.get("_np_random")
        self._base.__dict__["_np_random"] = apply_generator(rng, extras.rng)
        self._base.__dict__["_np_random_seed"] = extras.rng_seed
        if route is None:
            for capture, captured in zip(self._captures, extras.wrappers, strict=True):
                capture.apply(captured)
        else:
            for capture, index in zip(self._captures, route, strict=True):
                if index >= 0:
                    capture.apply(extras.wrappers[index])
        self._observation = state.observation

    def require_own(self, state: EnvState) -> None:
        """Check that `state` is of the unwrapped env here, for simulators that apply it themselves.

        Raises:
            TypeError: If `state` does not come from a Cloneable.
            ValueError: If it comes from another env or another version of its simulator.
        """
        extras = _extras_of(state)
        self._require_class(extras.keys[-1])
        probe = getattr(self._adapter, "require_version", None)
        if probe is not None:
            probe(extras.base)

    def private_copy(self) -> Cloneable:
        """Return an independent copy in the same state.

        It shares read-only parts such as an MjModel, keeps what the user changed, never renders,
        has no passive wrappers, and does not learn running statistics.
        """
        base = self._adapter.copy_env(self._base)
        rng = self._base.__dict__.get("_np_random")
        if rng is not None and base.__dict__.get("_np_random") in (None, rng):
            base.__dict__["_np_random"] = copy_generator(rng)
        base.render_mode = None
        source, target = self._shared(), dict(shared_objects(self._adapter, base))
        chain = base
        for wrapper, key in reversed(list(zip(self._wrappers, self._keys[:-1], strict=True))):
            if is_passive(wrapper):
                continue
            clone = copy_wrapper(wrapper, key, source, target)
            clone.env = chain
            chain = clone
        copy = Cloneable(chain, _fresh(self._adapter), allow_inexact=self._allow_inexact)
        if self._observation is not None:
            copy.restore(self.snapshot())
        return copy

    def packed(self) -> bytes:
        """Return `pack(self)`; a method, so that a VecEnv in another process can be asked."""
        return pack(self)

    def has_diverged(self) -> bool:
        """Say whether the simulator itself reported bad numbers since the last restore."""
        probe = getattr(self._adapter, "has_diverged", None)
        return probe is not None and bool(probe(self._base))

    def _contract_error(self, method: str, outcome: Any, wanted: str) -> TypeError:
        kinds = [type(part).__name__ for part in outcome] if isinstance(outcome, tuple) else outcome
        return TypeError(
            f"{method}() of {type(self._base).__name__} returned {kinds}, wanted {wanted} with a "
            "dict as info, as Gymnasium has it; shimmy's GymV21CompatibilityV0 turns envs of the "
            "older gym into that"
        )

    def _capture(self, observation: Observation | None) -> EnvState:
        physics, base = self._adapter.capture(self._base)
        attributes = self._base.__dict__
        rng = attributes.get("_np_random")
        extras = _Extras(
            base,
            None if rng is None else capture_generator(rng),
            attributes.get("_np_random_seed"),
            self._keys,
            [capture.capture() for capture in self._captures],
        )
        # None before the first reset, for check_cloneable's eyes only.
        return EnvState(observation, physics, extras)  # type: ignore[arg-type]

    def _capture_of(self, wrapper: Any) -> AttributeCapture:
        return AttributeCapture(
            wrapper, not_state(wrapper), self._shared, scalars_only=is_passive(wrapper)
        )

    def _shared(self) -> dict[str, Any]:
        named = dict(zip(self._keys[:-1], self._wrappers, strict=True))
        return {**shared_objects(self._adapter, self._base), **named}

    def _route(self, keys: tuple[str, ...]) -> list[int]:
        """Return where each own wrapper finds its state among `keys`; -1: nowhere, and rightly."""
        self._require_class(keys[-1])
        if keys not in self._routes:
            where = {key: index for index, key in enumerate(keys)}
            unmatched = {key for key in {*keys} ^ {*self._keys} if not key.startswith(_PASSIVE)}
            if unmatched:
                raise ValueError(
                    "the state was captured from another chain of wrappers: "
                    f"{', '.join(sorted(unmatched))} on one side only"
                )
            self._routes[keys] = [where.get(key, -1) for key in self._keys[:-1]]
        return self._routes[keys]

    def _require_class(self, name: str) -> None:
        if name != self._keys[-1]:
            raise ValueError(f"the state was captured from {name}, this env is {self._keys[-1]}")


def find_cloneable(env: Any) -> Cloneable:
    """Return the Cloneable in a wrapper chain.

    Raises:
        TypeError: If there is none.
    """
    layer = env
    while not isinstance(layer, Cloneable):
        if not isinstance(layer, gym.Wrapper):
            raise TypeError(
                f"no Cloneable in {env}; wrap the env first: Cloneable(env), "
                "or vec_env = make_vec_env(env_id, wrapper_class=Cloneable)"
            )
        layer = layer.env
    return layer


def layers_above(env: Any) -> list[Any]:
    """Return the wrappers around the Cloneable in a chain that do more than watch, outermost first.

    Simulations know nothing of them.

    Raises:
        TypeError: If there is no Cloneable.
    """
    layers, cloneable = layers_of(env), find_cloneable(env)
    return [layer for layer in layers[: layers.index(cloneable)] if not is_passive(layer)]


def pack(cloneable: Cloneable) -> bytes:
    """Pickle a private copy exactly, edits of the model included, for another process.

    Raises:
        NotCloneableError: If part of the env or its adapter cannot be pickled.
    """
    copy = cloneable.private_copy()
    recipe = getattr(copy.adapter, "recipe", None)
    try:
        state = None if copy._observation is None else copy.snapshot()
        payload = (copy.env, _fresh(cloneable.adapter), cloneable.allow_inexact, state)
        return exact_pickle.dumps(
            payload,
            owners=list(shared_objects(copy._adapter, copy._base).values()),
            recipes={} if recipe is None else {id(copy._base): recipe(copy._base)},
        )
    except Exception as error:
        reason = f"it cannot be sent to another process: {error}"
        raise NotCloneableError.for_env(cloneable.unwrapped, reason) from error


def unpack(blob: bytes) -> Cloneable:
    """Rebuild what `pack` wrote."""
    env, adapter, allow_inexact, state = exact_pickle.loads(blob)
    cloneable = Cloneable(env, adapter, allow_inexact=allow_inexact)
    if state is not None:
        cloneable.restore(state)
    return cloneable


_PASSIVE = "passive:"


class _Extras(NamedTuple):
    base: Any
    rng: Any
    rng_seed: int | None
    keys: tuple[str, ...]
    wrappers: list[CapturedAttributes]


def _extras_of(state: EnvState) -> _Extras:
    if not isinstance(state.extras, _Extras):
        raise TypeError(
            f"state.extras is a {type(state.extras).__name__}; "
            "restore() takes states that Cloneable.snapshot() returned"
        )
    return state.extras


def _name_wrappers(wrappers: list[Any]) -> tuple[str, ...]:
    """Name each wrapper by its class and how many of that class are inside it."""
    keys: list[str] = []
    for wrapper in reversed(wrappers):
        prefix = _PASSIVE if is_passive(wrapper) else ""
        name = prefix + _name_class(wrapper)
        keys.append(f"{name}#{sum(key.startswith(f'{name}#') for key in keys)}")
    return tuple(reversed(keys))


def _name_class(layer: Any) -> str:
    # A class from within a function loses its `__qualname__` on the way to another process.
    return f"{type(layer).__module__}.{type(layer).__name__}"


def _fresh(adapter: StateAdapter) -> StateAdapter:
    return adapter.fresh() if isinstance(adapter, AttributeAdapter) else adapter


def _is_of_arrays(space: gym.Space) -> bool:
    """Say whether observations are numbers, arrays, dicts of them or tuples that make an array."""
    if isinstance(space, gym.spaces.Tuple):
        return len({part.shape for part in space}) == 1 and all(map(_is_of_arrays, space))
    if isinstance(space, gym.spaces.Dict):
        return all(map(_is_of_arrays, space.values()))
    return not isinstance(space, gym.spaces.Sequence | gym.spaces.Graph | gym.spaces.OneOf)


def _is_info(value: Any) -> bool:
    return isinstance(value, Mapping)


def _copy_observation(observation: Any, space: Any) -> Any:
    """Return a copy; whole numbers, as some resets return, become floats where the space has."""
    if isinstance(observation, dict):
        parts = getattr(space, "spaces", {})
        return {key: _copy_observation(part, parts.get(key)) for key, part in observation.items()}
    own = observation.copy() if type(observation) is np.ndarray else np.array(observation)
    if own.dtype.kind in "biu":
        wanted = getattr(space, "dtype", None)
        if wanted is not None and wanted.kind == "f":
            return own.astype(wanted)
    return own
