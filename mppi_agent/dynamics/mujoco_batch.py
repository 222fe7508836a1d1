"""MuJoCo batch backend: thousands of simulations stepped together in C++ threads.

The fastest `Dynamics`. It serves envs whose task is known in vectorised form (`BatchTask`) and
whose wrappers change nothing that a simulation sees.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.cloning.derived import DerivedFields
from mppi_agent.dynamics.batch import BatchDynamics, BatchSimulations
from mppi_agent.dynamics.cores import num_cores
from mppi_agent.dynamics.observations import finite_rows, select_rows, stack_observations
from mppi_agent.dynamics.physics import physics_for
from mppi_agent.dynamics.rollout import reshape_batch, validate_actions
from mppi_agent.dynamics.stretches import Pace, rollout_in_stretches
from mppi_agent.dynamics.tasks import batch_task_of
from mppi_agent.interfaces import BatchTask, EnvState, RolloutBatch, StepBatch

__all__ = ["MujocoBatchDynamics", "MujocoSimulations", "coarse_model", "quiet_physics"]

_BAD_NUMBERS = slice(  # the kinds of warning after which MuJoCo resets a simulation
    int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADQACC) + 1
)


class MujocoBatchDynamics(BatchDynamics):
    """Simulate a known MuJoCo task on a thread pool.

    Args:
        env: The env to simulate; only read.
        num_threads: Threads of the pool; None: one per core. Results do not depend on it.
        substeps: None simulates the true model; a number a coarse one, see `coarse`.

    Attributes:
        num_threads: Threads of the pool.

    Raises:
        ValueError: If the env is no MuJoCo env with a known `BatchTask`, or `substeps` < 1.
    """

    def __init__(
        self, env: Cloneable, *, num_threads: int | None = None, substeps: int | None = None
    ) -> None:
        base: Any = env.unwrapped
        task = batch_task_of(base) if hasattr(base, "model") else None
        if task is None:
            raise ValueError(
                f"env {type(base).__name__} has no vectorised task: give the class of its step() "
                "a method batch_task(), or use EnvStepDynamics or ProcessPoolDynamics"
            )
        if substeps is not None and substeps < 1:
            raise ValueError(f"substeps must be >= 1 or None, got {substeps}")
        super().__init__(env)
        self._env = env
        self._task = task
        self._derived = DerivedFields(env)
        self.num_threads = num_threads or num_cores()
        self._nstep: int = substeps or base.frame_skip
        self._model: mujoco.MjModel = base.model
        if substeps is not None:
            self._model = coarse_model(self._model, base.dt, substeps)

    def coarse(self, substeps: int) -> MujocoBatchDynamics:
        """Return a copy with a coarse model: search on it, verify on the true one.

        It is several times faster where the true model uses RK4.

        Args:
            substeps: Physics substeps per control step, integrated with `implicitfast`.
        """
        return MujocoBatchDynamics(self._env, num_threads=self.num_threads, substeps=substeps)

    def simulations(self, num: int) -> MujocoSimulations:
        """Return `num` simulations for closed-loop use."""
        return MujocoSimulations(
            self._model,
            self._task,
            self._derived,
            self._env,
            num,
            nstep=self._nstep,
            num_threads=self.num_threads,
        )


class MujocoSimulations(BatchSimulations):
    """Run N simulations of one model, closed loop.

    Args:
        model: Shared by all simulations; never modified.
        task: Computes observation, reward and termination.
        derived: Finds the fields that the task reads before a step in restored states.
        env: Says which states and actions fit; only read.
        num: Simulations, N.
        nstep: Physics substeps per control step.
        num_threads: Threads of the pool.

    Raises:
        ValueError: If the task reads a field before the step that states do not hold.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        task: BatchTask,
        derived: DerivedFields,
        env: Cloneable,
        num: int,
        *,
        nstep: int,
        num_threads: int,
    ) -> None:
        super().__init__(num, env.require_own)
        self._task = task
        self._derived = derived
        self._nstep = nstep
        self._pace = Pace()
        self._action_space = env.action_space
        self._batch = physics_for(
            {*task.before_fields, *task.after_fields}, model, num, num_threads
        )
        self._ctrl = self._batch.bind("ctrl")
        self._bad_numbers = self._batch.warning[:, _BAD_NUMBERS, 1]  # how often, live
        self._before = {name: self._batch.bind(name) for name in task.before_fields}
        self._after = {name: self._batch.bind(name) for name in task.after_fields}
        # Derived fields lag behind the state: after restore they are not what a step computed.
        self._lagging = {
            name: np.array(field)
            for name, field in self._before.items()
            if not np.may_share_memory(field, self._batch.state)
        }
        missing = [name for name in self._lagging if name not in derived]
        if missing:
            raise ValueError(
                f"before_fields of the batch task names {', '.join(missing)}, which captured "
                "states do not hold; read it after the step, or wrap the env in "
                "Cloneable(env, MujocoAdapter(fields=...)) with that field"
            )

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        if indices is None:
            select: Any = slice(None)
            ids = None
        else:
            select = np.asarray(indices)
            ids = np.sort(select)  # the batch wants them in order
        num = self.num if ids is None else len(ids)
        # The physics gets actions in the dtype of their space, as it does from the env.
        actions = validate_actions(actions, self._action_space, 1, num=num)
        before = self._fields_before(select)
        self._ctrl[select] = actions
        with quiet_physics():
            self._batch.step(ids, nstep=self._nstep)
        for name, field in self._lagging.items():
            field[select] = self._before[name][select]
        after = {name: field[select] for name, field in self._after.items()}
        observations = self._task.observations(after)
        self._observe(select, observations)
        rewards = self._task.rewards(before, after, actions)
        diverged = self._diverged(select) | ~(finite_rows(observations) & np.isfinite(rewards))
        never = np.zeros_like(diverged)
        terminated = np.asarray(self._task.terminated(after), dtype=bool)
        return StepBatch(observations, rewards, terminated, never, diverged)

    def open_loop(
        self, states: Sequence[EnvState], actions: np.ndarray, *, keep_observations: bool
    ) -> RolloutBatch:
        """Roll out S x K action sequences; see `open_loop_rollout`."""
        num_samples = actions.shape[1]
        flat = actions.reshape(-1, *actions.shape[2:])  # (S * K, H, nu)
        select = slice(len(flat))
        for state in states:
            self._require_own(state)
        self._write(select, states, num_samples)
        shown = stack_observations([state.observation for state in states])
        with quiet_physics():
            batch = rollout_in_stretches(
                self._batch,
                self._task,
                self._fields_before(select),
                flat,
                self._nstep,
                select_rows(shown, np.repeat(np.arange(len(states)), num_samples)),
                self._pace,
                keep_observations=keep_observations,
            )
        if batch is None:
            return super().open_loop(states, actions, keep_observations=keep_observations)
        return reshape_batch(batch, actions.shape[:2])

    def _fields_before(self, select: Any) -> dict[str, np.ndarray]:
        """Return the fields that the task reads before a step, copied."""
        return {
            name: np.array(self._lagging.get(name, field)[select])
            for name, field in self._before.items()
        }

    def _write(self, select: Any, states: Sequence[EnvState], num_samples: int = 1) -> None:
        physics = np.stack([state.physics for state in states])
        if physics.shape[1] != self._batch.nstate:
            raise ValueError(
                f"state has {physics.shape[1]} numbers, this model's has {self._batch.nstate}: "
                "it was captured from another env or MuJoCo version"
            )
        self._batch.state[select] = np.repeat(physics, num_samples, axis=0)
        self._batch.warning[select] = 0
        for name, field in self._lagging.items():
            rows = np.stack([self._derived.read(state.extras, name) for state in states])
            shaped = rows.reshape(-1, *field.shape[1:])
            field[select] = np.repeat(shaped, num_samples, axis=0)

    def _read(self, index: int) -> np.ndarray:
        return self._batch.state[index].copy()

    def _extras_of(self, index: int) -> Any:
        if not self._lagging:
            return super()._extras_of(index)
        lagging = {name: field[index] for name, field in self._lagging.items()}
        return self._derived.replace(super()._extras_of(index), lagging)

    def _diverged(self, select: Any) -> np.ndarray:
        # MuJoCo resets a broken simulation on its own, so a plain look at the state would miss it.
        return self._bad_numbers[select].any(axis=1)


def coarse_model(model: mujoco.MjModel, dt_s: float, substeps: int) -> mujoco.MjModel:
    """Return a cheaper copy of a model for search.

    Args:
        model: The true model; not modified.
        dt_s: Seconds per control step, kept.
        substeps: Physics substeps per control step of the copy.

    Returns:
        A copy that integrates with `implicitfast` and a time step of `dt_s / substeps`.
    """
    coarse = copy.copy(model)
    coarse.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    coarse.opt.timestep = dt_s / substeps
    return coarse


_ignore_message = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda message: None)


class _Silence:
    """Count who wants MuJoCo silent: its handler is one for the process, its callers may be many.

    Without the count, two threads could leave the handler of one another behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._previous: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._previous = mujoco.get_mju_user_warning()
                mujoco.set_mju_user_warning(_ignore_message)
            self._count += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                mujoco.set_mju_user_warning(self._previous)
                self._previous = None


_SILENCE = _Silence()


def quiet_physics() -> contextlib.AbstractContextManager[None]:
    """Keep MuJoCo from printing a line and writing a log file for each diverged simulation."""
    return _SILENCE
