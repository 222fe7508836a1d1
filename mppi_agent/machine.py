"""Say what a figure depends on besides the code: processor, threads, versions."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from mppi_agent.dynamics.cores import num_cores

__all__ = ["describe_machine"]

_PACKAGES = ("gymnasium", "mujoco", "numpy", "stable-baselines3", "torch")


def describe_machine() -> dict[str, Any]:
    """Return cores that this process may use, platform and versions, in JSON types."""
    return {
        "cores": num_cores(),
        "torch_threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
    }
