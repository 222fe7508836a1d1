"""Planner settings per env: data only, each entry beside the measurement that chose it.

A key is a registered env id without module prefix; a value overrides defaults of `MPPIConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mppi_agent.planning.noise import cubic_basis

__all__ = ["PRESETS"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Not measured yet: the defaults were made for this env.
        "Pendulum-v1": {},
        # Not measured yet: the car must swing for about 100 steps before any reward differs.
        "MountainCarContinuous-v0": {
            "horizon": 100,
            "knot_spacing": 20,
            "noise_std": 1.0,
            "discount": 1.0,
        },
        # Not measured yet: one stroke takes over 1 s (25 steps); slow noise finds it.
        "Swimmer-v5": {
            "horizon": 40,
            "knot_spacing": 5,
            "knot_interpolation": cubic_basis,
        },
    }
)
