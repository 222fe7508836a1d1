"""A MuJoCo batch that knows the forces of contacts, as Gymnasium computes them.

`mujoco.batch.Batch` stops after `mj_step`; Gymnasium goes on with `mj_rnePostConstraint`, which
fills `cfrc_ext` from the contacts of the last Runge-Kutta stage. These live in each MjData's
arena, which a `Batch` does not show, so here Python threads run both calls themselves; MuJoCo
works outside the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch

__all__ = ["CONTACT_FIELDS", "ContactBatch"]

CONTACT_FIELDS = frozenset({"cacc", "cfrc_int", "cfrc_ext"})
"""MjData fields that `mj_rnePostConstraint` computes."""

_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class ContactBatch(Batch):
    """Step N simulations exactly as N Gymnasium envs do.

    Of a `Batch` it keeps the rows of state and what reads them. The threads end with the last
    reference to it.

    Args:
        model: Shared by all simulations; never modified.
        num: Simulations, N.
        num_threads: Including the caller's. Results do not depend on it.
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
            ids: In any order, shape (n,).
            nstep: Physics substeps.
            stage: Must be 0: nothing is computed at the new state.
        """
        assert stage == 0
        chosen = range(self.nsim) if ids is None else ids.tolist()
        # Whoever is free takes the next simulation: `next` on a shared iterator is atomic.
        queue = iter(chosen)
        helpers = self._workspaces[1 : len(chosen)]
        running = [self._pool.submit(self._work, queue, data, nstep) for data in helpers]
        self._work(queue, self._workspaces[0], nstep)
        for future in running:
            future.result()

    def _work(self, queue: Iterator[int], data: mujoco.MjData, nstep: int) -> None:
        """Step simulations from the queue, one after the other, on one MjData."""
        model, rows, warnings = self.model, self.state, self.warning[:, :, 1]
        warned = data.warning.number
        outputs: list[tuple[np.ndarray, Any]] = [
            (output, getattr(data, name)) for name, output in self._outputs.items()
        ]
        for sim in queue:
            row = rows[sim]
            mujoco.mj_setState(model, data, row, _STATE)
            warned[:] = 0
            mujoco.mj_step(model, data, nstep)
            mujoco.mj_rnePostConstraint(model, data)
            mujoco.mj_getState(model, data, row, _STATE)
            warnings[sim] = warned
            for output, field in outputs:
                output[sim] = field
