"""Derived MuJoCo fields in captured states, for backends that run no env.

Some envs read fields such as `xpos` before they step; after a step these lag behind `qpos`, so
they are part of the state, beside the integration state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mppi_agent.cloning.cloneable import Cloneable
from mppi_agent.cloning.mujoco import MujocoAdapter

__all__ = ["DerivedFields"]


class DerivedFields:
    """Read and replace derived fields in the states of one env.

    Args:
        env: Its states are read; the env itself is not.
    """

    def __init__(self, env: Cloneable) -> None:
        adapter = env.adapter
        self._slices: dict[str, slice] = {}
        if isinstance(adapter, MujocoAdapter):
            self._slices = adapter.derived_slices(env.unwrapped)

    def __contains__(self, name: str) -> bool:
        """Say whether states hold the MjData field `name`."""
        return name in self._slices

    def read(self, extras: Any, name: str) -> np.ndarray:
        """Return a field, flat, from the extras of a state."""
        derived, *_ = extras.base
        return derived[self._slices[name]]

    def replace(self, extras: Any, values: Mapping[str, np.ndarray]) -> Any:
        """Return the extras with other values of some fields."""
        derived, *rest = extras.base
        derived = derived.copy()
        for name, value in values.items():
            derived[self._slices[name]] = value.reshape(-1)
        return extras._replace(base=(derived, *rest))
