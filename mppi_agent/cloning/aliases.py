"""Which attributes of one object share something mutable, so that copying each alone would part it.

attributes --one pickle each, nothing kept--> what each reaches --> names that must stay together
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from mppi_agent.cloning import exact_pickle

__all__ = ["aliases"]

_NEVER_PARTED = (
    *(str, bytes, int, float, complex, type(None), type, tuple, frozenset, np.generic, np.dtype),
    *(types.FunctionType, types.ModuleType, types.MethodType, types.BuiltinMethodType),
)
_BOUND = (types.MethodType, types.BuiltinMethodType)
_MOST_WORK = 10_000  # of deciding whether two arrays overlap; beyond it they are taken to


def aliases(attributes: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[set[str], bool]:
    """Find attributes that lead to the same mutable object, or to memory of the same array.

    Args:
        attributes: By name; what cannot be pickled is passed over.
        shared: Objects that are cloned elsewhere, by name; what they hold does not count.

    Returns:
        The names of such attributes; and whether any arrays are different ones on the same memory.
    """
    reached = {name: _reached(value, shared) for name, value in attributes.items()}
    names: dict[int, set[str]] = {}
    arrays: dict[int, tuple[int, int, np.ndarray]] = {}
    for name, things in reached.items():
        for thing in things:
            names.setdefault(id(thing), set()).add(name)
            if isinstance(thing, np.ndarray) and thing.size:
                arrays[id(thing)] = (*np.lib.array_utils.byte_bounds(thing), thing)
    aliased = {name for together in names.values() if len(together) > 1 for name in together}
    views = _overlapping(sorted(arrays.values(), key=lambda entry: entry[:2]))
    return aliased.union(*(names[id(array)] for array in views)), bool(views)


def _reached(value: Any, shared: Mapping[str, Any]) -> list[Any]:
    """Return the mutable objects that a value leads to; of a method, the one it is bound to."""
    if isinstance(value, _BOUND):
        return [value.__self__]
    found: dict[int, Any] = {}
    try:
        exact_pickle.visit(value, found, shared)
    except Exception:  # whoever pickles it in earnest says why
        return []
    return [
        thing
        for thing in found.values()
        if not isinstance(thing, _NEVER_PARTED) and not exact_pickle.is_foreign_view(thing)
    ]


def _overlapping(arrays: list[tuple[int, int, np.ndarray]]) -> list[np.ndarray]:
    """Return the arrays that share memory with another, given (start, end, array) in order."""
    found: list[np.ndarray] = []
    for index, (_, end, array) in enumerate(arrays):
        for start, _, other in arrays[index + 1 :]:
            if start >= end:
                break
            if _overlap(array, other):
                found += [array, other]
    return found


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    try:
        return bool(np.shares_memory(one, other, max_work=_MOST_WORK))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
