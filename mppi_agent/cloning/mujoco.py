"""Adapter for MuJoCo envs: integration state, lagging derived fields, Python attributes.

`mj_step` computes kinematics before it integrates, so after a step `xpos` and its kin lag behind
`qpos`, and some envs read them before their next step. `mj_setState` alone leaves them stale and
`mj_forward` un-lags them; either corrupts the first reward of Ant and Humanoid.
"""

from __future__ import annotations

import copy
import ctypes
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np

from mppi_agent.cloning.base import AttributeAdapter

__all__ = ["DERIVED_FIELDS", "MujocoAdapter"]

# In the order of MuJoCo's memory: neighbours are then copied in one go. Some are here only because
# they are small and lie between two others: one run costs less than two.
DERIVED_FIELDS = (
    "qacc",
    "tree_asleep",
    "sensordata",
    "xpos",
    "xquat",
    "xmat",
    "xipos",
    "xiquat",
    "ximat",
    "xanchor",
    "xaxis",
    "geom_xpos",
    "geom_xquat",
    "geom_xmat",
    "site_xpos",
    "site_xmat",
    "cam_xpos",
    "cam_xmat",
    "light_xpos",
    "light_xdir",
    "subtree_com",
    "cdof",
    "cinert",
    "ten_wrapadr",
    "ten_wrapnum",
    "ten_J",
    "ten_length",
    "wrap_obj",
    "wrap_xpos",
    "actuator_length",
    "ten_velocity",
    "actuator_velocity",
    "cvel",
    "cdof_dot",
    "qfrc_bias",
    "qfrc_spring",
    "qfrc_damper",
    "qfrc_gravcomp",
    "qfrc_fluid",
    "qfrc_adhesion",
    "qfrc_passive",
    "subtree_linvel",
    "subtree_angmom",
    "actuator_force",
    "qfrc_actuator",
    "qfrc_smooth",
    "qacc_smooth",
    "qfrc_constraint",
    "qfrc_inverse",
    "cacc",
    "cfrc_int",
    "cfrc_ext",
)
_ALIGNMENT = 64  # bytes; MuJoCo starts each array at a multiple of it


class MujocoAdapter(AttributeAdapter):
    """Clone any env whose unwrapped self has `model: MjModel` and `data: MjData`.

    Copies share the MjModel, so later edits of it reach them too; the batch backend keeps the model
    that it was made with. An env that writes to its model in reset or step needs
    `MujocoAdapter(model_fields=...)`: those fields are then part of the state, and each copy has a
    model of its own.

    Attributes:
        model_fields: Names of these fields.
    """

    name = "mujoco"
    exclude = frozenset({"observation_structure", "fullpath", "mujoco_renderer"})

    def __init__(
        self, fields: tuple[str, ...] = DERIVED_FIELDS, model_fields: tuple[str, ...] = ()
    ) -> None:
        """Choose what is kept beside the integration state.

        Args:
            fields: Names of MjData fields that a step may read before it simulates.
            model_fields: Names of MjModel arrays that the env changes, such as "body_pos" or
                "opt.gravity".
        """
        super().__init__()
        self._fields = fields
        self.model_fields = model_fields
        self._buffers: _Buffers | None = None

    def fresh(self) -> MujocoAdapter:
        """Return an equal adapter that has served no env yet."""
        return type(self)(self._fields, self.model_fields)

    def matches(self, env: Any) -> bool:
        """Say whether the env has an MjModel and an MjData."""
        names = [type(getattr(env, field, None)).__name__ for field in ("model", "data")]
        return names == ["MjModel", "MjData"]

    def simulator(self, env: Any) -> tuple[Any, Any]:
        """Return the MjModel and the MjData of the env."""
        return env.model, env.data

    def shared(self, env: Any) -> dict[str, Any]:
        """Add the model, which copies share, and the data, which each copy has of its own."""
        model, data = self.simulator(env)
        return {**super().shared(env), "model": model, "data": data}

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return the integration state; the derived fields and the attributes."""
        physics, derived, version = self._buffers_of(env).read()
        return physics, (derived, version, self._capture_attributes(env))

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Put a captured state back and clear the divergence flags.

        Raises:
            ValueError: If the state is of another model or another version of MuJoCo.
        """
        derived, version, attributes = extras
        self._buffers_of(env).write(physics, derived, version)
        self._apply_attributes(env, attributes)

    def require_version(self, extras: Any) -> None:
        """Check that captured extras are of this version of MuJoCo.

        Raises:
            ValueError: If they are of another.
        """
        import mujoco

        _require_version(extras[1], mujoco.__version__)

    def begin_step(self, env: Any) -> None:
        """Compute all that follows from positions and velocities, as a step does first."""
        import mujoco

        mujoco.mj_step1(*self.simulator(env))

    def has_diverged(self, env: Any) -> bool:
        """Say whether MuJoCo met bad numbers since the last restore and reset itself."""
        return bool(self._buffers_of(env).bad_numbers.any())

    def derived_slices(self, env: Any) -> dict[str, slice]:
        """Return where each derived field lies in the vector of them that `capture` returns."""
        return self._buffers_of(env).slices

    def changed_shared_fields(self, env: Any, before: dict[str, bytes] | None) -> dict[str, bytes]:
        """Return the model fields that differ from `before`, or all for None, as bytes.

        Copies share the model, so none may change while the env runs. Its options count, too.
        """
        fields: dict[str, bytes] = {}
        for owner, path, name in self._shared_fields(env):
            content = np.asarray(getattr(owner, name)).tobytes()
            if before is None or before.get(path) != content:
                fields[path] = content
        return fields

    def restore_shared_fields(self, env: Any, before: dict[str, bytes]) -> None:
        """Write back what `changed_shared_fields` returned for None, where it has changed."""
        changed = self.changed_shared_fields(env, before)
        for owner, path, name in self._shared_fields(env):
            if path in changed:
                value = np.asarray(getattr(owner, name))
                kept = np.frombuffer(before[path], value.dtype).reshape(value.shape)
                if isinstance(getattr(owner, name), np.ndarray):
                    value[...] = kept
                else:
                    setattr(owner, name, kept.item())

    def _shared_fields(self, env: Any) -> list[tuple[Any, str, str]]:
        """Return owner, path and name of each array of the model and each of its options."""
        model, _ = self.simulator(env)
        arrays = [(model, n, n) for n in dir(model) if isinstance(getattr(model, n), np.ndarray)]
        options = [(model.opt, f"opt.{n}", n) for n in dir(model.opt) if not n.startswith("_")]
        return [
            (owner, path, name)
            for owner, path, name in (*arrays, *options)
            if path not in self.model_fields and not callable(getattr(owner, name))
        ]

    def _copy_shared(self, env: Any) -> dict[str, Any]:
        import mujoco

        source_model, source = self.simulator(env)
        model = copy.copy(source_model) if self.model_fields else source_model
        data = mujoco.MjData(model)
        mujoco.mj_copyData(data, source_model, source)
        return {"model": model, "data": data}

    def _buffers_of(self, env: Any) -> _Buffers:
        model, data = self.simulator(env)
        if self._buffers is None or self._buffers.data is not data:
            self._buffers = _Buffers(model, data, self._fields, self.model_fields)
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
        self._views = _runs(list(arrays.values()))
        self._views += [_model_array(model, name).reshape(-1) for name in model_fields]
        ends = np.cumsum([0, *(view.size for view in self._views)]).tolist()
        self._parts = [
            (view, slice(*span)) for view, span in zip(self._views, pairwise(ends), strict=True)
        ]
        self._derived_size = ends[-1]
        self.slices = {
            name: self._place(array)
            for name, array in arrays.items()
            if array.size and array.dtype == np.float64
        }
        self._version = mujoco.__version__
        warning = mujoco.mjtWarning
        first, last = int(warning.mjWARN_BADQPOS), int(warning.mjWARN_BADQACC)
        self.bad_numbers = data.warning.number[first : last + 1]

    def read(self) -> tuple[np.ndarray, np.ndarray, str]:
        physics = np.empty(self._size)
        self._get(self.model, self.data, physics, self._signature)
        derived = np.concatenate(self._views) if self._views else np.empty(0)
        return physics, derived, self._version

    def write(self, physics: np.ndarray, derived: np.ndarray, version: str) -> None:
        _require_version(version, self._version)
        if physics.size != self._size or derived.size != self._derived_size:
            raise ValueError(
                f"the state holds {physics.size} + {derived.size} numbers, this model needs "
                f"{self._size} + {self._derived_size}: it was captured from another MuJoCo model"
            )
        self._set(self.model, self.data, physics, self._signature)
        for view, part in self._parts:
            view[:] = derived[part]
        self.bad_numbers.fill(0)

    def _place(self, field: np.ndarray) -> slice:
        """Return where a field of the MjData lies in the derived numbers."""
        view, part = next(
            (view, part) for view, part in self._parts if np.may_share_memory(view, field)
        )
        start = part.start + (field.ctypes.data - view.ctypes.data) // view.itemsize
        return slice(start, start + field.size)


def _model_array(model: Any, path: str) -> np.ndarray:
    try:
        value = attrgetter(path)(model)
    except AttributeError:
        value = None
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"model_fields names {path!r}, which is no array of an MjModel; name arrays, such as "
            "'body_mass' or 'opt.gravity', and clone other numbers by get_state() and set_state()"
        )
    return value


def _require_version(found: str, wanted: str) -> None:
    if found != wanted:
        raise ValueError(
            f"the state was captured with MuJoCo {found}, this is {wanted}: "
            "states do not carry over from one version to another, capture it anew"
        )


def _runs(fields: list[np.ndarray]) -> list[np.ndarray]:
    """Return flat views, as float64, that cover fields of one MjData, neighbours in one view.

    Only the padding between two neighbours is covered besides: a view per field would be as exact,
    but costs several times more than the copying itself.
    """
    spans: list[list[int]] = []
    for start, num_bytes in sorted((f.ctypes.data, f.nbytes) for f in fields if f.size):
        if spans and start == -(-spans[-1][1] // _ALIGNMENT) * _ALIGNMENT:
            spans[-1][1] = start + num_bytes
        else:
            spans.append([start, start + num_bytes])
    return [
        np.ctypeslib.as_array((ctypes.c_double * -(-(stop - start) // 8)).from_address(start))
        for start, stop in spans
    ]


def reduce_data(data: Any) -> tuple[Any, ...]:
    """Pickle an MjData beside its model, not with a second copy of it inside."""
    return _rebuild_data, (data.model, *_Buffers(data.model, data, DERIVED_FIELDS).read())


def _rebuild_data(model: Any, physics: np.ndarray, derived: np.ndarray, version: str) -> Any:
    import mujoco

    data = mujoco.MjData(model)
    _Buffers(model, data, DERIVED_FIELDS).write(physics, derived, version)
    return data
