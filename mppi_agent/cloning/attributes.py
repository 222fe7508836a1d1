"""Capture, apply and copy the Python attributes of an env or a wrapper.

Numbers, arrays and containers of them are copied directly, in well under a microsecond each. What
is left (helper objects, random generators) goes into one pickle, so that references among those
objects survive. Spaces, specs, functions and renderers are not state.
"""

from __future__ import annotations

import logging
import operator
import types
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from mppi_agent.cloning import exact_pickle
from mppi_agent.cloning.aliases import aliases
from mppi_agent.cloning.errors import NotCloneableError

__all__ = ["AttributeCapture", "CapturedAttributes", "copy_instances", "copy_plain", "is_plain"]

_IMMUTABLE = frozenset(
    {int, float, bool, complex, str, bytes, type(None), range, np.str_, np.bytes_}
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


class _Layout(NamedTuple):
    """Sort the attribute names of one object by how they are captured."""

    immutable: tuple[str, ...]
    plain: tuple[str, ...]
    objects: tuple[str, ...]
    others: tuple[str, ...]


class CapturedAttributes(NamedTuple):
    """Hold the attributes of one object; never modified.

    Attributes:
        layout: Which attribute was captured how; `layout.others` are not state.
        values: Values of `layout.immutable`: numbers, strings and such, and tuples of them.
        copies: Values of `layout.plain`, private to this record.
        blob: Exact pickle of a dict of `layout.objects`; None without any.
    """

    layout: _Layout
    values: tuple[Any, ...]
    copies: list[Any]
    blob: bytes | None


class AttributeCapture:
    """Capture and apply the mutable attributes of one object, fast when repeated.

    Which attributes are state is worked out once, and again whenever their number or the kind of
    one of them changes.
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
        self._layout = _Layout((), (), (), ())
        self._keep_views = False
        self._get_immutable = _getter(())
        self._checked: tuple[Any, ...] = ()
        self._get_others = _getter(())
        self._kinds_of_others: tuple[type, ...] = ()
        self._rendering: dict[str, Any] = {}  # inside objects that are state; of this owner alone

    def capture(self) -> CapturedAttributes:
        """Return the attributes as they are now.

        Raises:
            NotCloneableError: If an attribute can be neither copied nor pickled.
        """
        if len(self.owner.__dict__) != self._size:
            self._plan()
        try:
            return self._read()
        except (_NotPlainError, KeyError):
            self._plan()
            return self._read()

    def apply(self, captured: CapturedAttributes) -> None:
        """Set the attributes to what was captured, here or on an equal object."""
        attributes = self.owner.__dict__
        if len(attributes) != self._size:
            self._plan()
        layout = captured.layout
        is_same = layout is self._layout or layout == self._layout
        if is_same:
            # One layout, so of equal length: looking after that would take half as long again.
            attributes.update(zip(layout.immutable, captured.values))  # noqa: B905
            if layout.plain:
                attributes.update(zip(layout.plain, map(copy_plain, captured.copies), strict=True))
        else:
            names = (*layout.immutable, *layout.plain)
            for name, value in zip(names, (*captured.values, *captured.copies), strict=True):
                # What is not state here stays: a copy's missing renderer must not come back.
                if name not in self._layout.others:
                    attributes[name] = copy_plain(value)
        if captured.blob is not None:
            known = {**self._shared(), **self._rendering}
            attributes.update(exact_pickle.loads(captured.blob, known))
        if not is_same:
            self._remove_newer(layout)

    def _remove_newer(self, captured: _Layout) -> None:
        """Drop attributes that did not exist at capture: hasattr() may steer a step."""
        known = {name for names in captured for name in names}
        own = self._layout
        for name in {*own.immutable, *own.plain, *own.objects} - known:
            self.owner.__dict__.pop(name, None)
        self._size = -1  # what is state here has changed: plan anew

    def _read(self) -> CapturedAttributes:
        attributes, layout = self.owner.__dict__, self._layout
        values = self._get_immutable(attributes)
        is_sound = _IMMUTABLE.issuperset(map(type, values)) or all(
            map(operator.is_, values, self._checked)  # tuples, looked through before
        )
        if not is_sound:
            if not all(map(_is_immutable, values)):
                raise _NotPlainError
            self._checked = values
        others = self._kinds_of_others
        if others and others != tuple(map(type, self._get_others(attributes))):
            raise _NotPlainError
        plain = layout.plain
        copies = [copy_plain(attributes[name]) for name in plain] if plain else []
        blob = self._pickle_objects() if layout.objects else None
        return CapturedAttributes(layout, values, copies, blob)

    def _plan(self) -> None:
        attributes = self.owner.__dict__
        shared_ids = {id(obj) for obj in self._shared().values()}
        immutable, plain, objects, others = [], [], [], []
        for name, value in attributes.items():
            if name in self._exclude:
                others.append(name)
            elif type(value) in _IMMUTABLE:
                immutable.append(name)
            elif _is_immutable(value) and not self._scalars_only:
                immutable.append(name)
            elif self._scalars_only or _is_not_state(value, shared_ids):
                others.append(name)
            elif is_plain(value):
                plain.append(name)
            else:
                objects.append(name)
        # What shares something mutable goes into one pickle; a method of it, too.
        state = {n: attributes[n] for n in (*plain, *objects, *others) if n not in self._exclude}
        aliased, self._keep_views = aliases(state, self._shared())
        objects += [name for name in (*plain, *others) if name in aliased]
        plain, others = ([n for n in names if n not in aliased] for names in (plain, others))
        self._layout = _Layout(tuple(immutable), tuple(plain), tuple(objects), tuple(others))
        self._get_immutable = _getter(self._layout.immutable)
        self._checked = self._get_immutable(attributes)
        self._get_others = _getter(tuple(n for n in others if n not in self._exclude))
        self._kinds_of_others = tuple(map(type, self._get_others(attributes)))
        self._size = len(attributes)

    def _pickle_objects(self) -> bytes:
        attributes = self.owner.__dict__
        shared = self._shared()
        try:
            objects = {name: attributes[name] for name in self._layout.objects}
            self._rendering = {}
            return exact_pickle.dumps(
                objects, shared, keep_views=self._keep_views, rendering=self._rendering
            )
        except Exception as error:
            raise self._explain(shared, error) from error

    def _explain(self, shared: Mapping[str, Any], error: Exception) -> NotCloneableError:
        for name in self._layout.objects:
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
    if kind is np.ndarray and not value.dtype.hasobject:
        return value.copy("K")
    if _is_immutable(value):
        return value
    if kind is tuple:
        return tuple([copy_plain(item) for item in value])
    if kind is list:
        return [copy_plain(item) for item in value]
    if kind is dict:
        return {copy_plain(key): copy_plain(item) for key, item in value.items()}
    if kind is deque:
        return deque([copy_plain(item) for item in value], value.maxlen)
    if kind is set:
        return {copy_plain(item) for item in value}
    raise _NotPlainError(kind.__name__)


def copy_instances(
    sources: Mapping[str, Any],
    exclude: frozenset[str],
    shared_source: Mapping[str, Any],
    shared_target: dict[str, Any],
) -> None:
    """Add new objects of the same classes, each with its own copy of all state.

    The constructors do not run. References to objects in `shared_source`, also from bound methods
    and closures, point to the object of the same name in `shared_target` afterwards.

    Args:
        sources: Objects to copy, by their names in `shared_source`; they may point to each other.
        exclude: Names of attributes that are not state; they are shared.
        shared_source: Objects that the sources may point to, by name.
        shared_target: Their counterparts for the copies; the copies themselves are added.
    """
    for key, source in sources.items():
        shared_target[key] = object.__new__(type(source))
    for key, source in sources.items():
        clone = shared_target[key]
        captured = AttributeCapture(source, exclude, lambda: shared_source).capture()
        for name in captured.layout.others:
            value = _redirect(source.__dict__[name], shared_source, shared_target)
            clone.__dict__[name] = value
        AttributeCapture(clone, exclude, lambda: shared_target).apply(captured)
        # Keep the order of attributes: two chains then capture the same tuple of names.
        ordered = {name: clone.__dict__[name] for name in source.__dict__}
        clone.__dict__.clear()
        clone.__dict__.update(ordered)


class _NotPlainError(Exception):
    pass


def _getter(names: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Return a fast function that looks up `names`, as a tuple at any number of them."""
    if len(names) > 1:
        return operator.itemgetter(*names)
    return lambda attributes: tuple([attributes[name] for name in names])


def _is_immutable(value: Any) -> bool:
    """Say whether a value is a number, a string or the like, or a tuple of nothing else."""
    kind = type(value)
    return kind in _IMMUTABLE or (kind is tuple and _IMMUTABLE.issuperset(map(type, value)))


def is_plain(value: Any) -> bool:
    """Say whether `copy_plain` copies a value."""
    try:
        copy_plain(value)
    except _NotPlainError:
        return False
    return True


def _is_not_state(value: Any, shared_ids: set[int]) -> bool:
    return (
        isinstance(value, _NOT_STATE)
        or id(value) in shared_ids
        or _is_rendering(value)
        or exact_pickle.is_foreign_view(value)
    )


def _is_rendering(value: Any) -> bool:
    """Say whether a value is a window, a surface or such, or a collection of them."""
    if type(value) in (list, tuple, dict) and value:
        return all(map(_is_rendering, value.values() if type(value) is dict else value))
    return exact_pickle.is_rendering(value)


def _redirect(value: Any, source: Mapping[str, Any], target: Mapping[str, Any]) -> Any:
    """Return what a constant attribute must be in the copy."""
    names = {id(obj): name for name, obj in source.items()}
    if id(value) in names:
        return target.get(names[id(value)])
    if _is_rendering(value):
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
