"""Clone Gymnasium envs exactly: env -> EnvState -> env."""

from __future__ import annotations

from mppi_agent.cloning.check import CloneReport, Mismatch, check_cloneable, require_cloneable
from mppi_agent.cloning.cloneable import Cloneable, find_cloneable, pack, unpack
from mppi_agent.cloning.errors import NotCloneableError
from mppi_agent.cloning.mujoco import MujocoAdapter
from mppi_agent.cloning.registry import adapter_for, register_adapter

__all__ = [
    "CloneReport",
    "Cloneable",
    "Mismatch",
    "MujocoAdapter",
    "NotCloneableError",
    "adapter_for",
    "check_cloneable",
    "find_cloneable",
    "pack",
    "register_adapter",
    "require_cloneable",
    "unpack",
]
