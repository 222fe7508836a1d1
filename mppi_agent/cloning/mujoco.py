"""Adapter for MuJoCo envs: integration state, lagging derived fields, Python attributes.

`mj_step` computes kinematics before it integrates, so after a step `xpos` and its kin lag behind
`qpos`, and some envs read them before their next step. `mj_setState` alone leaves them stale and
`mj_forward` un-lags them; either corrupts the first reward of Ant and Humanoid.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from mppi_agent.cloning.base import AttributeAdapter

__all__ = ["DERIVED_FIELDS", "MujocoAdapter"]

DERIVED_FIELDS = (
    "xpos",
    "xquat",
    "xmat",
    "xipos",
    "geom_xpos",
    "geom_xmat",
    "site_xpos",
    "site_xmat",
    "subtree_com",
    "cinert",
    "cvel",
    "cacc",
    "cfrc_ext",
    "qacc",
    "qfrc_actuator",
    "qfrc_constraint",
    "qfrc_passive",
    "qfrc_bias",
    "actuator_length",
    "actuator_velocity",
    "actuator_force",
    "ten_length",
    "ten_velocity",
    "sensordata",
)


class MujocoAdapter(AttributeAdapter):
    """Clone any env whose unwrapped self has `model: MjModel` and `data: MjData`.

    Copies share the MjModel, so later edits of it reach them too. An env that writes to its model
    in reset or step needs `MujocoAdapter(model_fields=...)`: those fields are then part of the
    state, and each copy has a model of its own.
    """

    name = "mujoco"
    exclude = frozenset({"observation_structure", "fullpath", "mujoco_renderer"})

    def __init__(
        self, fields: tuple[str, ...] = DERIVED_FIELDS, model_fields: tuple[str, ...] = ()
    ) -> None:
        """Choose what is kept beside the integration state.

        Args:
            fields: Names of float64 MjData fields that a step may read before it simulates.
            model_fields: Names of MjModel fields that the env changes, such as "body_pos".
        """
        super().__init__()
        self._fields = fields
        self._model_fields = model_fields
        self._buffers: _Buffers | None = None

    def fresh(self) -> MujocoAdapter:
        """Return an equal adapter that has served no env yet."""
        return type(self)(self._fields, self._model_fields)

    def matches(self, env: Any) -> bool:
        """Say whether the env has an MjModel and an MjData."""
        names = [type(getattr(env, field, None)).__name__ for field in ("model", "data")]
        return names == ["MjModel", "MjData"]

    def shared(self, env: Any) -> dict[str, Any]:
        """Add the model, which copies share, and the data, which each copy has of its own."""
        return {**super().shared(env), "model": env.model, "data": env.data}

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return the integration state; the derived fields and the attributes."""
        physics, derived = self._buffers_of(env).read()
        return physics, (derived, self._capture_attributes(env))

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Put a captured state back and clear the divergence flags.

        Raises:
            ValueError: If the state is of another model.
        """
        derived, attributes = extras
        self._buffers_of(env).write(physics, derived)
        self._apply_attributes(env, attributes)

    def has_diverged(self, env: Any) -> bool:
        """Say whether MuJoCo met bad numbers since the last restore and reset itself."""
        return bool(self._buffers_of(env).bad_numbers.any())

    def derived_slices(self, env: Any) -> dict[str, slice]:
        """Return where each derived field lies in the vector of them that `capture` returns."""
        return self._buffers_of(env).slices

    def changed_shared_fields(self, env: Any, before: dict[str, bytes] | None) -> dict[str, bytes]:
        """Return the model fields that differ from `before`, or all for None, as bytes.

        Copies share the model, so none may change while the env runs.
        """
        fields: dict[str, bytes] = {}
        for name in dir(env.model):
            value = None if name.startswith("_") else getattr(env.model, name)
            if isinstance(value, np.ndarray) and name not in self._model_fields:
                content = value.tobytes()
                if before is None or before.get(name) != content:
                    fields[name] = content
        return fields

    def _copy_shared(self, env: Any) -> dict[str, Any]:
        import mujoco

        model = copy.copy(env.model) if self._model_fields else env.model
        data = mujoco.MjData(model)
        mujoco.mj_copyData(data, env.model, env.data)
        return {"model": model, "data": data}

    def _buffers_of(self, env: Any) -> _Buffers:
        if self._buffers is None or self._buffers.data is not env.data:
            self._buffers = _Buffers(env.model, env.data, self._fields, self._model_fields)
        return self._buffers


class _Buffers:
    """Move the state of one MjData in and out of vectors."""

    def __init__(
        self,
        model: Any,
        data: Any,
        fields: tuple[str, ...],
        model_fields: tuple[str, ...] = (),
    ) -> None:
        import mujoco

        self.model, self.data = model, data
        self._get, self._set = mujoco.mj_getState, mujoco.mj_setState
        self._signature = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        self._size = mujoco.mj_stateSize(model, self._signature)
        arrays = {name: getattr(data, name) for name in fields if hasattr(data, name)}
        arrays |= {name: getattr(model, name) for name in model_fields}
        views = {name: array.reshape(-1) for name, array in arrays.items() if array.size}
        self._views = list(views.values())
        self._derived_size = sum(view.size for view in self._views)
        stops = np.cumsum([view.size for view in self._views]).tolist()
        self.slices = {
            name: slice(stop - view.size, stop)
            for (name, view), stop in zip(views.items(), stops, strict=True)
        }
        warning = mujoco.mjtWarning
        first, last = int(warning.mjWARN_BADQPOS), int(warning.mjWARN_BADQACC)
        self.bad_numbers = data.warning.number[first : last + 1]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        physics = np.empty(self._size)
        self._get(self.model, self.data, physics, self._signature)
        derived = np.concatenate(self._views) if self._views else np.empty(0)
        return physics, derived

    def write(self, physics: np.ndarray, derived: np.ndarray) -> None:
        if physics.size != self._size or derived.size != self._derived_size:
            raise ValueError(
                f"the state holds {physics.size} + {derived.size} numbers, this model needs "
                f"{self._size} + {self._derived_size}: it was captured from another MuJoCo model"
            )
        self._set(self.model, self.data, physics, self._signature)
        for view, place in zip(self._views, self.slices.values(), strict=True):
            view[:] = derived[place]
        self.bad_numbers[:] = 0


def reduce_data(data: Any) -> tuple[Any, ...]:
    """Pickle an MjData beside its model, not with a second copy of it inside."""
    physics, derived = _Buffers(data.model, data, DERIVED_FIELDS).read()
    return _rebuild_data, (data.model, physics, derived)


def _rebuild_data(model: Any, physics: np.ndarray, derived: np.ndarray) -> Any:
    import mujoco

    data = mujoco.MjData(model)
    _Buffers(model, data, DERIVED_FIELDS).write(physics, derived)
    return data
