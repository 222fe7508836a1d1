"""Pickle live objects as they are, with no trust in their constructors.

`copy.deepcopy` and `pickle` rebuild an `EzPickle` env from its constructor arguments, which gives
a fresh env without a word. This pickler keeps the instance attributes instead. Objects that the
receiver already has (the env itself, its MjModel) travel by name, not by value.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

import cloudpickle
from gymnasium.utils import EzPickle

__all__ = ["RENDER_MODULES", "dumps", "loads"]

RENDER_MODULES = (
    "pygame",
    "glfw",
    "gymnasium.envs.mujoco.mujoco_rendering",
    "gymnasium.envs.classic_control.rendering",
    "mujoco.renderer",
    "mujoco.viewer",
)


def dumps(value: Any, shared: Mapping[str, Any] | None = None) -> bytes:
    """Pickle `value` as it stands.

    Args:
        value: Any object; renderers and windows inside it become None.
        shared: Objects to write by name; `loads` puts its own objects of that name there.
    """
    buffer = io.BytesIO()
    _ExactPickler(buffer, {id(obj): name for name, obj in (shared or {}).items()}).dump(value)
    return buffer.getvalue()


def loads(blob: bytes, shared: Mapping[str, Any] | None = None) -> Any:
    """Rebuild what `dumps` wrote, with the objects in `shared` put in by name."""
    return _ExactUnpickler(io.BytesIO(blob), shared or {}).load()


class _ExactPickler(cloudpickle.Pickler):
    def __init__(self, file: io.BytesIO, names: dict[int, str]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._names = names

    def persistent_id(self, obj: Any) -> str | None:
        return self._names.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind.__module__.startswith(RENDER_MODULES):
            return _nothing, ()
        if kind.__name__ == "MjData" and kind.__module__.startswith("mujoco"):
            from mppi_agent.cloning.mujoco import reduce_data

            return reduce_data(obj)
        if isinstance(obj, EzPickle):
            return _blank, (kind,), obj.__dict__, None, None, _set_attributes
        return super().reducer_override(obj)


class _ExactUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: Mapping[str, Any]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, pid: str) -> Any:
        return self._shared[pid]


def _nothing() -> None:
    return None


def _blank(kind: type) -> Any:
    return object.__new__(kind)


def _set_attributes(obj: Any, attributes: dict[str, Any]) -> None:
    obj.__dict__.update(attributes)
