"""Planner settings per env: data only, each entry beside the measurement that chose it.

A key is a registered env id without module prefix; a value overrides defaults of `MPPIConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["PRESETS"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Expert alone, 3 held-out episodes: 96.5 to 96.9; 0.0 in each with the defaults. The car
        # must swing for about 100 steps before any reward differs.
        "MountainCarContinuous-v0": {
            "horizon": 100,
            "knot_spacing": 20,
            "noise_std": 1.0,
            "discount": 1.0,
        },
        # Discrete actions. Expert alone, 5 held-out episodes each, and what the defaults get there.
        # 500 in each; 150 to 500 with the defaults, which see the end of the track too late.
        "CartPole-v1": {"horizon": 50},
        # -87 to -102; -200, the time limit, with the defaults: no plan reaches the goal.
        "MountainCar-v0": {"horizon": 150, "knot_spacing": 25, "discount": 1.0},
        # -79 to -104; with the defaults not there after 150 steps (1 episode). A swing to one side
        # takes about 5 steps; of 9,000 random plans of 100 steps none reaches the goal.
        "Acrobot-v1": {"horizon": 150, "knot_spacing": 5, "discount": 1.0},
        # -13, a shortest path, four times and -14; with the defaults not there after 40 steps.
        "CliffWalking-v1": {"horizon": 36, "knot_spacing": 12},
    }
)
