"""Clone Gymnasium envs exactly: env -> EnvState -> env."""

from __future__ import annotations

from mppi_agent.cloning.base import AttributeAdapter
from mppi_agent.cloning.check import CloneReport, Mismatch, Verdict, check_clones, require_cloneable
from mppi_agent.cloning.cloneable import Cloneable, find_cloneable, layers_above, pack, unpack
from mppi_agent.cloning.errors import NotCloneableError
from mppi_agent.cloning.mujoco import MujocoAdapter
from mppi_agent.cloning.registry import adapter_for, register_adapter
from mppi_agent.cloning.replay import ReplayAdapter

__all__ = [
    "AttributeAdapter",
    "CloneReport",
    "Cloneable",
    "Mismatch",
    "MujocoAdapter",
    "NotCloneableError",
    "ReplayAdapter",
    "Verdict",
    "adapter_for",
    "check_clones",
    "find_cloneable",
    "layers_above",
    "pack",
    "register_adapter",
    "require_cloneable",
    "unpack",
]
