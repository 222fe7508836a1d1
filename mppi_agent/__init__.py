"""MPPI-guided policy learning for Gymnasium and Stable-Baselines3.

Public names load on first use, so that importing this package (as every rollout worker does)
never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mppi_agent.batch_vec_env import BatchVecEnv
    from mppi_agent.cloning import Cloneable
    from mppi_agent.dynamics.check import check_cloneable
    from mppi_agent.expert import MPPIAgent
    from mppi_agent.gps import MPPIGPS
    from mppi_agent.planning import MPPIConfig

__version__ = "0.1.0"

__all__ = [
    "MPPIGPS",
    "BatchVecEnv",
    "Cloneable",
    "MPPIAgent",
    "MPPIConfig",
    "__version__",
    "check_cloneable",
]

_MODULE_OF = {
    "MPPIGPS": "mppi_agent.gps",
    "BatchVecEnv": "mppi_agent.batch_vec_env",
    "Cloneable": "mppi_agent.cloning",
    "MPPIAgent": "mppi_agent.expert",
    "MPPIConfig": "mppi_agent.planning",
    "check_cloneable": "mppi_agent.dynamics.check",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
