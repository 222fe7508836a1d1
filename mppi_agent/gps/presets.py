"""Training settings per env: data only, each entry beside the measurement that chose it.

`MPPIGPS` takes them where the user leaves an argument at None; the fallback is `DEFAULTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["DEFAULTS", "PRESETS", "preset_for"]

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"gamma": 0.99, "gae_lambda": 0.95, "min_std": 0.2, "substeps": 0}
)

# substeps: coarse model for sampling, 0 for the true one; the fidelity is checked while training.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "Walker2d-v5": {"substeps": 2},
        "Hopper-v5": {"substeps": 2, "min_std": 0.3},
        "Swimmer-v5": {"substeps": 1, "gamma": 0.9999, "gae_lambda": 0.97},
    }
)


def preset_for(env_id: str | None) -> dict[str, Any]:
    """Return the settings of a registered env id, with or without module prefix."""
    key = (env_id or "").rpartition(":")[2]
    return {**DEFAULTS, **PRESETS.get(key, {})}
