"""Capture, apply and copy the Python attributes of an env or a wrapper.

Numbers, arrays and containers of them are copied directly, in well under a microsecond each. What
is left (helper objects, random generators) goes into one pickle, so that references among those
objects survive. Spaces, specs, functions and renderers are not state.
"""

from __future__ import annotations

import logging
import types
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from mppi_agent.cloning import exact_pickle
from mppi_agent.cloning.errors import NotCloneableError

__all__ = ["AttributeCapture", "CapturedAttributes", "copy_instance", "copy_plain"]

_IMMUTABLE = frozenset(
    {int, float, bool, complex, str, bytes, type(None), range}
    | {np.dtype(code).type for code in "?bhilqBHILQefdFD"}
)
_NOT_STATE = (
    gym.Space,
    EnvSpec,
    WrapperSpec,
    logging.Logger,
    type,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
)


class CapturedAttributes(NamedTuple):
    """Hold the attributes of one object; never modified.

    Attributes:
        names: Attributes copied directly.
        values: Their values, private to this record.
        object_names: Attributes that went into `blob`.
        blob: Exact pickle of a dict of those; None without any.
        other_names: Attributes that are not state.
    """

    names: tuple[str, ...]
    values: list[Any]
    object_names: tuple[str, ...]
    blob: bytes | None
    other_names: tuple[str, ...]


class AttributeCapture:
    """Capture and apply the mutable attributes of one object, fast when repeated.

    Which attributes are state is worked out once and again whenever their number changes.
    """

    def __init__(
        self,
        owner: Any,
        exclude: frozenset[str] = frozenset(),
        shared: Callable[[], Mapping[str, Any]] = dict,
        *,
        scalars_only: bool = False,
    ) -> None:
        """Prepare for `owner`.

        Args:
            owner: Object whose `__dict__` holds the state.
            exclude: Names of attributes that are not state.
            shared: Gives the objects that attributes may point to and that are cloned elsewhere.
            scalars_only: Whether to leave out containers and objects, such as growing logs.
        """
        self.owner = owner
        self._exclude = exclude
        self._shared = shared
        self._scalars_only = scalars_only
        self._size = -1
        self._names: tuple[str, ...] = ()
        self._object_names: tuple[str, ...] = ()
        self._other_names: tuple[str, ...] = ()

    def capture(self) -> CapturedAttributes:
        """Return the attributes as they are now.

        Raises:
            NotCloneableError: If an attribute can be neither copied nor pickled.
        """
        attributes = self.owner.__dict__
        if len(attributes) != self._size:
            self._plan()
        try:
            values = self._plain_values()
        except (_NotPlainError, KeyError):
            self._plan()
            values = self._plain_values()
        blob = self._pickle_objects() if self._object_names else None
        return CapturedAttributes(self._names, values, self._object_names, blob, self._other_names)

    def apply(self, captured: CapturedAttributes) -> None:
        """Set the attributes to what was captured, here or on an equal object."""
        attributes = self.owner.__dict__
        if len(attributes) != self._size:
            self._plan()
        same = captured.names == self._names and captured.object_names == self._object_names
        for name, value in zip(captured.names, captured.values, strict=True):
            # What is not state here stays: a copy's missing renderer must not reach the original.
            if same or name not in self._other_names:
                attributes[name] = value if type(value) in _IMMUTABLE else copy_plain(value)
        if captured.blob is not None:
            attributes.update(exact_pickle.loads(captured.blob, self._shared()))
        if not same:
            self._remove_newer(captured)

    def _remove_newer(self, captured: CapturedAttributes) -> None:
        """Drop attributes that did not exist at capture: hasattr() may steer a step."""
        born_since = {*self._names, *self._object_names}.difference(
            captured.names, captured.object_names, captured.other_names
        )
        for name in born_since:
            self.owner.__dict__.pop(name, None)
        self._size = -1  # what is state here has changed: plan anew

    def _plain_values(self) -> list[Any]:
        attributes = self.owner.__dict__
        return [
            value if type(value := attributes[name]) in _IMMUTABLE else copy_plain(value)
            for name in self._names
        ]

    def _plan(self) -> None:
        attributes = self.owner.__dict__
        shared_ids = {id(obj) for obj in self._shared().values()}
        plain, objects, others = [], [], []
        for name, value in attributes.items():
            if name in self._exclude:
                others.append(name)
            elif type(value) in _IMMUTABLE:
                plain.append(name)
            elif self._scalars_only or _is_not_state(value, shared_ids):
                others.append(name)
            elif _is_plain(value):
                plain.append(name)
            else:
                objects.append(name)
        self._names, self._object_names = tuple(plain), tuple(objects)
        self._other_names = tuple(others)
        self._size = len(attributes)

    def _pickle_objects(self) -> bytes:
        attributes = self.owner.__dict__
        shared = self._shared()
        try:
            return exact_pickle.dumps({n: attributes[n] for n in self._object_names}, shared)
        except Exception as error:
            raise self._explain(shared, error) from error

    def _explain(self, shared: Mapping[str, Any], error: Exception) -> NotCloneableError:
        for name in self._object_names:
            value = self.owner.__dict__[name]
            try:
                exact_pickle.dumps(value, shared)
            except Exception as cause:
                reason = f"attribute {name!r} ({type(value).__name__}) cannot be copied: {cause}"
                return NotCloneableError.for_env(self.owner, reason)
        return NotCloneableError.for_env(self.owner, str(error))


def copy_plain(value: Any) -> Any:
    """Copy numbers, strings, arrays and builtin containers of them, all the way down."""
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is np.ndarray and value.dtype != object:
        return value.copy(order="K")
    if kind is list:
        return [copy_plain(item) for item in value]
    if kind is tuple:
        return tuple([copy_plain(item) for item in value])
    if kind is dict:
        return {copy_plain(key): copy_plain(item) for key, item in value.items()}
    if kind is deque:
        return deque([copy_plain(item) for item in value], value.maxlen)
    if kind is set:
        return {copy_plain(item) for item in value}
    raise _NotPlainError(kind.__name__)


def copy_instance(
    source: Any,
    exclude: frozenset[str],
    shared_source: Mapping[str, Any],
    shared_target: dict[str, Any],
    key: str,
) -> Any:
    """Return a new object of the same class with its own copy of all state.

    The constructor does not run. References to objects in `shared_source`, also from bound methods
    and closures, point to the object of the same name in `shared_target` afterwards.

    Args:
        source: Object to copy.
        exclude: Names of attributes that are not state; they are shared.
        shared_source: Objects that `source` may point to, by name.
        shared_target: Their counterparts for the copy; the copy itself is added.
        key: Name of `source` in `shared_source`.
    """
    clone = object.__new__(type(source))
    shared_target[key] = clone
    captured = AttributeCapture(source, exclude, lambda: shared_source).capture()
    state_names = {*captured.names, *captured.object_names}
    for name, value in source.__dict__.items():
        if name not in state_names:
            clone.__dict__[name] = _redirect(value, shared_source, shared_target)
    AttributeCapture(clone, exclude, lambda: shared_target).apply(captured)
    # Keep the order of attributes: two chains then capture the same tuple of names.
    ordered = {n: clone.__dict__[n] for n in source.__dict__}
    clone.__dict__.clear()
    clone.__dict__.update(ordered)
    return clone


class _NotPlainError(Exception):
    pass


def _is_plain(value: Any) -> bool:
    try:
        copy_plain(value)
    except _NotPlainError:
        return False
    return True


def _is_not_state(value: Any, shared_ids: set[int]) -> bool:
    return (
        isinstance(value, _NOT_STATE)
        or id(value) in shared_ids
        or type(value).__module__.startswith(exact_pickle.RENDER_MODULES)
        or exact_pickle.is_foreign_view(value)
    )


def _redirect(value: Any, source: Mapping[str, Any], target: Mapping[str, Any]) -> Any:
    """Return what a constant attribute must be in the copy."""
    names = {id(obj): name for name, obj in source.items()}
    if id(value) in names:
        return target.get(names[id(value)])
    if type(value).__module__.startswith(exact_pickle.RENDER_MODULES):
        return None
    if isinstance(value, types.MethodType) and id(value.__self__) in names:
        return types.MethodType(value.__func__, target[names[id(value.__self__)]])
    if isinstance(value, types.FunctionType) and value.__closure__:
        return _redirect_closure(value, names, target)
    if exact_pickle.is_foreign_view(value):
        return _redirect_view(value, source, target)
    return value


def _redirect_closure(
    function: types.FunctionType, names: dict[int, str], target: Mapping[str, Any]
) -> types.FunctionType:
    cells = []
    for cell in function.__closure__ or ():
        try:
            name = names.get(id(cell.cell_contents))
        except ValueError:  # an empty cell
            name = None
        cells.append(cell if name is None else types.CellType(target.get(name)))
    copied = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(cells),
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    copied.__dict__.update(function.__dict__)
    return copied


def _redirect_view(
    view: np.ndarray, source: Mapping[str, Any], target: Mapping[str, Any]
) -> np.ndarray:
    """Find the field that a view shows and return the same field of the counterpart."""
    for name, owner in source.items():
        field = exact_pickle.field_of_view(owner, view)
        if field is not None:
            return getattr(target[name], field)
    raise NotCloneableError(
        f"an array of shape {view.shape} shows part of a simulator's memory that is no whole "
        "field of the env's model or data; store the field itself, or read it when needed"
    )
