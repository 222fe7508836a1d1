"""Find the adapter that serves an env."""

from __future__ import annotations

from typing import Any

from mppi_agent.cloning.atari import AtariAdapter
from mppi_agent.cloning.box2d import Box2DAdapter
from mppi_agent.cloning.classic_control import ClassicControlAdapter
from mppi_agent.cloning.deepcopy import DeepcopyAdapter
from mppi_agent.cloning.dm_control import DmControlAdapter
from mppi_agent.cloning.mujoco import MujocoAdapter
from mppi_agent.cloning.robotics import RoboticsAdapter
from mppi_agent.cloning.toy_text import ToyTextAdapter
from mppi_agent.cloning.user_protocol import UserProtocolAdapter
from mppi_agent.interfaces import StateAdapter

__all__ = ["adapter_for", "register_adapter"]

# The one piece of module state in this package: what users registered, newest first. Workers do
# not depend on it, they are sent the adapter along with the env.
_registered: list[StateAdapter] = []


def register_adapter(adapter: StateAdapter) -> None:
    """Let `adapter` serve the envs that it matches, before any other adapter.

    Args:
        adapter: Must be picklable to be used with worker processes.

    Raises:
        TypeError: If something of `StateAdapter` is missing.
    """
    wanted = ("name", "matches", "copy_env", "capture", "apply")
    missing = [name for name in wanted if not hasattr(adapter, name)]
    if missing:
        raise TypeError(
            f"adapter {type(adapter).__name__} lacks {', '.join(missing)}; "
            "it must have all that mppi_agent.interfaces.StateAdapter has"
        )
    _registered.insert(0, adapter)


def adapter_for(env: Any) -> StateAdapter:
    """Return the adapter for an unwrapped env.

    The order: what users registered, an env's own `get_state()` and `set_state(state)`, the
    families, and last a true copy of all attributes.

    Raises:
        NotCloneableError: If no adapter serves the env.
    """
    built_in: tuple[StateAdapter, ...] = (
        UserProtocolAdapter(),
        RoboticsAdapter(),
        DmControlAdapter(),
        MujocoAdapter(),
        ClassicControlAdapter(),
        ToyTextAdapter(),
        AtariAdapter(),
        Box2DAdapter(),
        DeepcopyAdapter(),
    )
    return next(adapter for adapter in (*_registered, *built_in) if adapter.matches(env))
