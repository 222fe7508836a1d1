"""Pickle live objects as they are, with no trust in their constructors.

`copy.deepcopy` and `pickle` rebuild an `EzPickle` env from its constructor arguments, which gives
a fresh env without a word. This pickler keeps the instance attributes instead. Objects that the
receiver already has (the env itself, its MjModel) travel by name, not by value.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym
import numpy as np
from cloudpickle.cloudpickle import _class_setstate  # type: ignore[import-untyped]
from gymnasium.utils import EzPickle

__all__ = ["dumps", "field_of_view", "is_foreign_view", "is_rendering", "loads", "visit"]

_RENDER_MODULES = (
    "pygame",
    "glfw",
    "gymnasium.envs.mujoco.mujoco_rendering",
    "gymnasium.envs.classic_control.rendering",
    "mujoco.renderer",
    "mujoco.viewer",
)
_VALUES = ("pygame.rect", "pygame.math", "pygame.color")  # which are numbers, and state
_RENDERING = "rendering:"


def dumps(
    value: Any,
    shared: Mapping[str, Any] | None = None,
    owners: Sequence[Any] = (),
    recipes: Mapping[int, tuple[Any, ...]] | None = None,
    *,
    keep_views: bool = False,
    rendering: dict[str, Any] | None = None,
) -> bytes:
    """Pickle `value` as it stands.

    Args:
        value: Any object; renderers and windows inside it become None.
        shared: Objects to write by name; `loads` puts its own objects of that name there.
        owners: Simulator objects inside `value`; arrays that show their memory will show that of
            their copies. Those in `shared` need no mention.
        recipes: Function and arguments that make an object anew, by the `id` of the object, for
            those that cannot be pickled.
        keep_views: Whether arrays that show the memory of others will show that of their copies.
            What is shown is then written as a whole.
        rendering: Filled with renderers and windows inside `value`, by the names that stand for
            them; `loads` puts them back where they are passed on.
    """
    shared = shared or {}
    buffer = io.BytesIO()
    names = {id(obj): name for name, obj in shared.items()}
    _ExactPickler(
        buffer,
        names,
        (*shared.values(), *owners),
        recipes or {},
        keep_views=keep_views,
        rendering=rendering,
    ).dump(value)
    return buffer.getvalue()


def loads(blob: bytes, shared: Mapping[str, Any] | None = None) -> Any:
    """Rebuild what `dumps` wrote, with the objects in `shared` put in by name."""
    return _ExactUnpickler(io.BytesIO(blob), shared or {}).load()


def visit(value: Any, found: dict[int, Any], shared: Mapping[str, Any] | None = None) -> None:
    """Put every object that `dumps` would write into `found`, by its `id`.

    Args:
        value: As of `dumps`.
        found: Added to; it keeps the objects alive, so that no `id` stands for two of them.
        shared: Objects that `dumps` would write by name; they are left out.
    """
    _Visitor(io.BytesIO(), found, shared or {}).dump(value)


def is_foreign_view(value: Any) -> bool:
    """Say whether an array shows memory that numpy does not own, such as an MjData field."""
    while isinstance(value, np.ndarray):
        if value.base is None:
            return False
        value = value.base
    return type(value).__name__ == "PyCapsule"


def is_rendering(value: Any) -> bool:
    """Say whether an object is a window, a surface or the like, which no simulation needs."""
    module = type(value).__module__
    return module not in _VALUES and any(
        module == known or module.startswith(f"{known}.") for known in _RENDER_MODULES
    )


def field_of_view(owner: Any, view: np.ndarray) -> str | None:
    """Return the field of an MjModel or MjData that a view shows as a whole; None without one."""
    if not type(owner).__module__.startswith("mujoco"):
        return None
    for field in dir(owner):
        array = None if field.startswith("_") else getattr(owner, field, None)
        if (
            isinstance(array, np.ndarray)
            and array.ctypes.data == view.ctypes.data
            and array.shape == view.shape
        ):
            return field
    return None


class _ExactPickler(cloudpickle.Pickler):
    def __init__(
        self,
        file: io.BytesIO,
        names: dict[int, str],
        owners: Sequence[Any],
        recipes: Mapping[int, tuple[Any, ...]],
        *,
        keep_views: bool = False,
        rendering: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._names = names
        self._owners = owners
        self._recipes = recipes
        self._keep_views = keep_views
        self._rendering = rendering

    def persistent_id(self, obj: Any) -> str | None:
        if self._rendering is not None and is_rendering(obj):
            name = f"{_RENDERING}{type(obj).__name__}:{id(obj)}"
            self._rendering[name] = obj
            return name
        return self._names.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        if id(obj) in self._recipes:
            return self._recipes[id(obj)]
        kind = type(obj)
        if is_rendering(obj):
            return _nothing, ()
        if isinstance(obj, io.TextIOWrapper) and obj.writable():
            raise pickle.PicklingError(f"{obj.name!r} is open for writing")
        if kind.__name__ == "MjData" and kind.__module__.startswith("mujoco"):
            from mppi_agent.cloning.mujoco import reduce_data

            return reduce_data(obj)
        if kind is np.ndarray and is_foreign_view(obj):
            for owner in self._owners:
                field = field_of_view(owner, obj)
                if field is not None:
                    return getattr, (owner, field)
        if self._keep_views and kind is np.ndarray and type(obj.base) is np.ndarray:
            offset = obj.ctypes.data - obj.base.ctypes.data
            return _view, (obj.base, offset, obj.shape, obj.strides, obj.dtype)
        is_plain_env = isinstance(obj, gym.Env) and _has_no_ways_of_its_own(kind)
        if is_plain_env or isinstance(obj, EzPickle):
            return _blank, (kind,), obj.__dict__, None, None, _set_attributes
        return super().reducer_override(obj)


class _Visitor(_ExactPickler):
    def __init__(self, file: io.BytesIO, found: dict[int, Any], shared: Mapping[str, Any]) -> None:
        names = {id(obj): name for name, obj in shared.items()}
        super().__init__(file, names, tuple(shared.values()), {})
        self._found = found

    def persistent_id(self, obj: Any) -> str | None:
        name = super().persistent_id(obj)
        if name is None:
            self._found[id(obj)] = obj
        return name


class _ExactUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: Mapping[str, Any]) -> None:
        super().__init__(file)
        self._shared = shared

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("cloudpickle.cloudpickle", "_class_setstate"):
            return _fill_class
        return super().find_class(module, name)

    def persistent_load(self, pid: str) -> Any:
        return self._shared.get(pid) if pid.startswith(_RENDERING) else self._shared[pid]


def _fill_class(kind: type, state: tuple[dict[str, Any], Any]) -> type:
    """Give a class that travelled by value its attributes, unless it is here and has them already.

    Its methods would be replaced, for all of this process, and a constant changed since set back.
    """
    if state[0].keys() <= kind.__dict__.keys():
        return kind
    return _class_setstate(kind, state)


def _view(
    base: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any
) -> np.ndarray:
    return np.ndarray(shape, dtype, base.reshape(-1, order="A"), offset, strides)


def _nothing() -> None:
    return None


def _has_no_ways_of_its_own(kind: type) -> bool:
    """Say whether the attributes of an object are all that pickle would look at.

    It would look for `__setstate__` before there are any, where a `__getattr__` may need one.
    """
    return (
        all(
            getattr(kind, name) is getattr(object, name)
            for name in ("__reduce__", "__reduce_ex__", "__getstate__")
        )
        and not hasattr(kind, "__setstate__")
        and not any(vars(parent).get("__slots__") for parent in kind.__mro__)
    )


def _blank(kind: type) -> Any:
    return object.__new__(kind)


def _set_attributes(obj: Any, attributes: dict[str, Any]) -> None:
    obj.__dict__.update(attributes)
