"""MuJoCo simulations on threads: bare, or with the forces of contacts as Gymnasium computes them.

`mujoco.batch.Batch` stops after `mj_step`; Gymnasium goes on with `mj_rnePostConstraint`, which
fills `cfrc_ext` from the contacts of the last Runge-Kutta stage. These live in each MjData's
arena, which a `Batch` does not show, so `ContactPhysics` runs both calls in Python threads;
MuJoCo works outside the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
from mujoco.batch import Batch

__all__ = ["ContactPhysics", "Physics", "physics_for"]

_CONTACT_FIELDS = frozenset({"cacc", "cfrc_int", "cfrc_ext"})  # of mj_rnePostConstraint
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_TIME = int(mujoco.mjtState.mjSTATE_TIME)


def physics_for(
    fields: Iterable[str], model: mujoco.MjModel, num: int, num_threads: int
) -> Physics:
    """Return N simulations that compute the MjData fields asked for.

    Args:
        fields: Names of MjData fields.
        model: Shared by all simulations; never modified.
        num: Simulations, N.
        num_threads: Including the caller's, at most. Results do not depend on it.
    """
    kind = Physics if _CONTACT_FIELDS.isdisjoint(fields) else ContactPhysics
    return kind(model, num, min(num_threads, num))


class Physics(Batch):
    """Step N simulations, one control step or many at a time."""

    def __init__(self, model: mujoco.MjModel, num: int, num_threads: int) -> None:
        super().__init__(model, num, num_threads)
        self._sizes: dict[str, int] = {}

    def size(self, name: str) -> int:
        """Return how many numbers an MjData field of one simulation holds."""
        if name not in self._sizes:
            self._sizes[name] = self.bind(name).size // self.nsim
        return self._sizes[name]

    def run(
        self,
        controls: np.ndarray,
        nstep: int,
        fields: Iterable[str],
        ids: np.ndarray,
        before: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Step simulations through sequences of controls.

        A simulation that MuJoCo warns about may stop early: look at `warning` afterwards.

        Args:
            controls: Shape (n, H, nu).
            nstep: Substeps that each control is held for.
            fields: Names of MjData fields to return.
            ids: The simulations, in ascending order, shape (n,).
            before: What to return of some fields as they were before the first control step,
                shape (n, ...).

        Returns:
            Each field before the first control step and after each, shape (1 + H, n, ...); of
            those not in `before`, what is before the first step means nothing.
        """
        substeps = controls.shape[1] * nstep
        held = np.repeat(controls.astype(np.float64), nstep, axis=1)
        # A batch records the time only as a part of the state.
        items = {name: _TIME if name == "time" else name for name in fields}
        all_or_some = None if len(ids) == self.nsim else ids
        every = self.rollout(substeps, held, record=tuple(items.values()), ids=all_or_some)
        record = {}
        for name, item in items.items():
            last = every[item][:, nstep - 1 :: nstep]
            last = (last[..., 0] if name == "time" else last).swapaxes(0, 1)
            record[name] = np.empty((1 + len(last), *last.shape[1:]), last.dtype)
            record[name][1:] = last
        return _with_first(record, before)


class ContactPhysics(Physics):
    """Step N simulations exactly as N Gymnasium envs do.

    Of a `Batch` it keeps the rows of state and what reads them. The threads end with the last
    reference to it.
    """

    def __init__(self, model: mujoco.MjModel, num: int, num_threads: int) -> None:
        super().__init__(model, num, 1)
        self._outputs: dict[str, np.ndarray] = {}
        self._workspaces = [mujoco.MjData(model) for _ in range(num_threads)]
        self._pool = ThreadPoolExecutor(num_threads)  # starts threads only when it needs them

    def bind(self, name: str) -> np.ndarray:
        """Return a live array over an MjData field, shape (N, ...)."""
        field = super().bind(name)
        if np.may_share_memory(field, self.state):
            return field
        return self._outputs.setdefault(name, np.zeros_like(field))

    def step(self, ids: np.ndarray | None = None, nstep: int = 1, stage: int = 0) -> None:
        """Advance the simulations `ids` (default: all) by `nstep` substeps.

        Args:
            ids: The simulations, shape (n,).
            nstep: Physics substeps.
            stage: Must be 0: nothing is computed at the new state.
        """
        assert stage == 0
        if ids is None:
            ids = np.arange(self.nsim)
        controls = self.bind("ctrl")[ids]
        record = self.run(controls[:, None], nstep, self._outputs, ids)
        for name, values in record.items():
            self._outputs[name][ids] = values[1]

    def run(
        self,
        controls: np.ndarray,
        nstep: int,
        fields: Iterable[str],
        ids: np.ndarray,
        before: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Step simulations through sequences of controls; see `Physics.run`."""
        leading = (1 + controls.shape[1], controls.shape[0])
        templates = {name: np.asarray(getattr(self._workspaces[0], name)) for name in fields}
        record = {
            name: np.empty((*leading, *template.shape), template.dtype)
            for name, template in templates.items()
        }
        # Whoever is free takes the next simulation: `next` on a shared iterator is atomic.
        queue = iter(enumerate(ids.tolist()))
        helpers = [
            self._pool.submit(self._work, queue, data, controls, nstep, record)
            for data in self._workspaces[1 : len(ids)]
        ]
        self._work(queue, self._workspaces[0], controls, nstep, record)
        for helper in helpers:
            helper.result()
        return _with_first(record, before)

    def _work(
        self,
        queue: Iterator[tuple[int, int]],
        data: mujoco.MjData,
        controls: np.ndarray,
        nstep: int,
        record: dict[str, np.ndarray],
    ) -> None:
        """Run simulations from the queue, one after the other, on one MjData."""
        model, warnings = self.model, self.warning[:, :, 1]
        warned, ctrl = data.warning.number, data.ctrl
        # Numbers such as `time` are read anew each time; arrays are live.
        numbers = [(values, name) for name, values in record.items() if values.ndim == 2]
        arrays = [(v, getattr(data, name)) for name, v in record.items() if v.ndim > 2]
        for place, sim in queue:
            row = self.state[sim]
            mujoco.mj_setState(model, data, row, _STATE)
            warned[:] = 0
            for step, control in enumerate(controls[place], start=1):
                ctrl[:] = control
                mujoco.mj_step(model, data, nstep)
                mujoco.mj_rnePostConstraint(model, data)
                for values, field in arrays:
                    values[step, place] = field
                for values, name in numbers:
                    values[step, place] = getattr(data, name)
            mujoco.mj_getState(model, data, row, _STATE)
            warnings[sim] += warned


def _with_first(
    record: dict[str, np.ndarray], before: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    for name, values in (before or {}).items():
        record[name][0] = values
    return record
