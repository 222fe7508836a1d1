"""Observations of many simulations as arrays, or as dicts of arrays for Dict spaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mppi_agent.interfaces import Observation

__all__ = [
    "empty_observations",
    "finite_rows",
    "join_observations",
    "reshape_leading",
    "select_rows",
    "stack_observations",
    "write_rows",
]


def stack_observations(observations: Sequence[Any]) -> Observation:
    """Stack N observations along a new first axis."""
    if isinstance(observations[0], dict):
        keys = observations[0].keys()
        return {key: stack_observations([obs[key] for obs in observations]) for key in keys}
    return np.array(observations)


def empty_observations(example: Observation, shape: tuple[int, ...]) -> Observation:
    """Return zeros for observations of the kind that `example`, shape (N, *obs), holds.

    Args:
        example: Observations with one leading axis.
        shape: Leading axes of the result.
    """
    if isinstance(example, dict):
        return {key: empty_observations(value, shape) for key, value in example.items()}
    return np.zeros((*shape, *example.shape[1:]), dtype=example.dtype)


def write_rows(target: Observation, index: Any, rows: Observation) -> None:
    """Do `target[index] = rows` for arrays and dicts of them."""
    if isinstance(target, dict):
        for key, value in target.items():
            write_rows(value, index, rows[key])
    else:
        target[index] = rows


def select_rows(observations: Observation, index: Any) -> Observation:
    """Return `observations[index]` for arrays and dicts of them."""
    if isinstance(observations, dict):
        return {key: select_rows(value, index) for key, value in observations.items()}
    return observations[index]


def reshape_leading(observations: Observation, num: int, shape: tuple[int, ...]) -> Observation:
    """Replace the first `num` axes by `shape`."""
    if isinstance(observations, dict):
        return {key: reshape_leading(value, num, shape) for key, value in observations.items()}
    return observations.reshape(*shape, *observations.shape[num:])


def join_observations(parts: Sequence[Any], axis: int) -> Observation:
    """Concatenate arrays, or dicts of them, along an axis."""
    if isinstance(parts[0], dict):
        return {key: join_observations([part[key] for part in parts], axis) for key in parts[0]}
    return np.concatenate(parts, axis=axis)


def finite_rows(observations: Observation) -> np.ndarray:
    """Say for each of N observations whether all its numbers are finite, shape (N,)."""
    if isinstance(observations, dict):
        return np.logical_and.reduce([finite_rows(value) for value in observations.values()])
    if observations.dtype.kind not in "fc":
        return np.ones(len(observations), dtype=bool)
    return np.isfinite(observations.reshape(len(observations), -1)).all(axis=1)
