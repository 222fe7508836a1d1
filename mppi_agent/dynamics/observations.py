"""Observations of many simulations as arrays, or as dicts of arrays for Dict spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mppi_agent.interfaces import Observation

__all__ = [
    "agree",
    "copy_observations",
    "copy_row",
    "empty_observations",
    "finite_rows",
    "join_observations",
    "reshape_leading",
    "select_rows",
    "stack_observations",
    "write_rows",
]

_TOLERANCE = 1e-6  # another processor may round differently; another env differs by more


def stack_observations(observations: Sequence[Any]) -> Observation:
    """Stack N observations along a new first axis."""
    return _combine(observations, np.array)


def join_observations(parts: Sequence[Any], axis: int) -> Observation:
    """Concatenate arrays, or dicts of them, along an axis."""
    return _combine(parts, lambda leaves: np.concatenate(leaves, axis=axis))


def empty_observations(example: Observation, shape: tuple[int, ...]) -> Observation:
    """Return zeros for observations of the kind that `example`, shape (N, *obs), holds.

    Args:
        example: Observations with one leading axis.
        shape: Leading axes of the result.
    """
    return _combine([example], lambda leaf: np.zeros((*shape, *leaf[0].shape[1:]), leaf[0].dtype))


def select_rows(observations: Observation, index: Any) -> Observation:
    """Return `observations[index]` for arrays and dicts of them."""
    return _combine([observations], lambda leaf: leaf[0][index])


def copy_observations(observations: Observation) -> Observation:
    """Return observations that share no memory with these."""
    return _combine([observations], lambda leaf: np.array(leaf[0]))


def copy_row(observations: Observation, index: int) -> Observation:
    """Return one of N observations, which shares no memory with the others."""
    return _combine([observations], lambda leaf: leaf[0][index].copy())


def reshape_leading(observations: Observation, num: int, shape: tuple[int, ...]) -> Observation:
    """Replace the first `num` axes by `shape`."""
    return _combine([observations], lambda leaf: leaf[0].reshape(*shape, *leaf[0].shape[num:]))


def write_rows(target: Any, index: Any, rows: Any) -> None:
    """Do `target[index] = rows` for arrays and dicts of them."""
    if isinstance(target, dict):
        for key, value in target.items():
            write_rows(value, index, rows[key])
    else:
        target[index] = rows


def finite_rows(observations: Any) -> np.ndarray:
    """Say for each of N observations whether all its numbers are finite, shape (N,)."""
    if isinstance(observations, dict):
        return np.all([finite_rows(value) for value in observations.values()], axis=0)
    if observations.dtype.kind not in "fc":
        return np.ones(len(observations), dtype=bool)
    return np.isfinite(observations.reshape(len(observations), -1)).all(axis=1)


def agree(one: Any, other: Any) -> bool:
    """Say whether numbers, arrays, or dicts and lists of them, are equal but for rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(agree(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(agree, one, other))
    return np.shape(one) == np.shape(other) and np.allclose(
        one, other, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
    )


def _combine(parts: Sequence[Any], function: Callable[[list[Any]], np.ndarray]) -> Any:
    """Apply `function` to the list of arrays at each leaf of equally structured observations."""
    if isinstance(parts[0], dict):
        return {key: _combine([part[key] for part in parts], function) for key in parts[0]}
    return function(list(parts))
