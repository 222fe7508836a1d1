"""Adapter for the dm_control suite as Shimmy shows it to Gymnasium."""

from __future__ import annotations

from typing import Any

import numpy as np

from mppi_agent.cloning.errors import NotCloneableError
from mppi_agent.cloning.mujoco import DERIVED_FIELDS, MujocoAdapter

__all__ = ["DmControlAdapter"]

# What the tasks of the suite write into their models: targets, terrain, colours, friction.
_MODEL_FIELDS = (
    "body_pos",
    "body_quat",
    "dof_damping",
    "geom_pos",
    "geom_size",
    "geom_rgba",
    "site_pos",
    "site_size",
    "site_rgba",
    "mat_rgba",
    "light_pos",
    "wrap_prm",
    "hfield_data",
)


class DmControlAdapter(MujocoAdapter):
    """Clone an env of the dm_control suite through `shimmy.DmControlCompatibilityV0`.

    Its step begins in the middle of a MuJoCo step, with positions and contacts computed already,
    so these are computed anew after a restore, from the same numbers. Composer envs, which may
    compile a new model in each reset, are refused.
    """

    name = "dm_control"
    inner_generator = "_random"

    def __init__(
        self,
        fields: tuple[str, ...] = DERIVED_FIELDS,
        model_fields: tuple[str, ...] = _MODEL_FIELDS,
    ) -> None:
        """Choose what is kept beside the integration state; see `MujocoAdapter`."""
        super().__init__(fields, model_fields)

    def matches(self, env: Any) -> bool:
        """Say whether the env is Shimmy's.

        Raises:
            NotCloneableError: If a composer env is inside.
        """
        if not _is_class(env, "shimmy.dm_control_compatibility", "DmControlCompatibilityV0"):
            return False
        inner = type(env._env)
        if (inner.__module__, inner.__name__) != ("dm_control.rl.control", "Environment"):
            reason = (
                f"it holds a {inner.__module__}.{inner.__name__}; of dm_control only the suite can "
                "be copied, not composer envs, which may compile a new model in each reset"
            )
            raise NotCloneableError.for_env(env, reason)
        return True

    def simulator(self, env: Any) -> tuple[Any, Any]:
        """Return the MjModel and the MjData inside dm_control's own."""
        physics = env._env.physics
        return physics.model.ptr, physics.data.ptr

    def inner_parts(self, env: Any) -> dict[str, Any]:
        """Name the dm_control env and its task."""
        return {"environment": env._env, "task": env._env.task}

    def shared(self, env: Any) -> dict[str, Any]:
        """Add dm_control's physics, which each copy has of its own."""
        return {**super().shared(env), "physics": env._env.physics}

    def copy_env(self, env: Any) -> Any:
        """Return a private copy that never renders and reports divergence without raising."""
        copy = super().copy_env(env)
        copy.__dict__["_ezpickle_args"] = (copy._env, None, None)
        copy.__dict__.pop("viewer", None)
        return copy

    def recipe(self, env: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return function and arguments that make such a copy in another process."""
        return _rebuild, (type(env), dict(env.__dict__), env._env.physics.legacy_step)

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Put a captured state back, and the simulator in the middle of its step."""
        super().apply(env, physics, extras)
        self.begin_step(env)

    def _copy_shared(self, env: Any) -> dict[str, Any]:
        source = env._env.physics
        physics = _set_up(source.copy(), source.legacy_step)
        return {"physics": physics, "model": physics.model.ptr, "data": physics.data.ptr}


def _set_up(physics: Any, legacy_step: bool) -> Any:
    """Set what copying and pickling of dm_control's physics leave out."""
    physics.legacy_step = legacy_step
    physics._warnings_cause_exception = False  # planning finds diverged samples by itself
    return physics


def _rebuild(kind: type, attributes: dict[str, Any], legacy_step: bool) -> Any:
    env: Any = object.__new__(kind)
    env.__dict__.update(attributes)
    _set_up(env._env.physics, legacy_step)
    return env


def _is_class(env: Any, module: str, name: str) -> bool:
    return any(k.__module__ == module and k.__name__ == name for k in type(env).__mro__)
