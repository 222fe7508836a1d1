"""MuJoCo batch backend: thousands of simulations stepped together in C++ threads.

The fastest `Dynamics`. It serves envs whose task is known in vectorised form (`BatchTask`) and
whose wrappers change nothing that a simulation sees.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from mujoco.batch import Batch

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.env_step import time_limit_of
from mppi_agent.dynamics.rollout import open_loop_rollout, validate_rollout
from mppi_agent.dynamics.tasks import batch_task_of
from mppi_agent.interfaces import BatchTask, EnvState, RolloutBatch, StepBatch

__all__ = ["MujocoBatchDynamics", "MujocoSimulations", "coarse_model"]

_DIVERGENCE_WARNINGS = [
    int(kind)
    for kind in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
    )
]


class MujocoBatchDynamics:
    """Simulate a known MuJoCo task on a thread pool.

    Args:
        env: The env to simulate; only read.
        num_threads: Threads of the pool; None: one per core. Results do not depend on it.
        substeps: None simulates the true model. A number simulates a coarse copy: integrator
            `implicitfast` with that many substeps per control step, several times faster where
            the true model uses RK4. Search on it, verify on the true one.

    Raises:
        ValueError: If the env is no MuJoCo env with a known `BatchTask`, or `substeps` < 1.
    """

    def __init__(
        self, env: Cloneable, *, num_threads: int | None = None, substeps: int | None = None
    ) -> None:
        self._env = env.private_copy()
        base: Any = self._env.unwrapped
        task = batch_task_of(base) if hasattr(base, "model") else None
        if task is None:
            raise ValueError(
                f"env {type(base).__name__} has no vectorised task: give it a method batch_task() "
                "or use EnvStepDynamics or ProcessPoolDynamics"
            )
        if substeps is not None and substeps < 1:
            raise ValueError(f"substeps must be >= 1 or None, got {substeps}")
        self._task = task
        self._num_threads = num_threads or os.cpu_count() or 1
        true_model: mujoco.MjModel = base.model
        self._nstep: int = substeps or base.frame_skip
        self._model = (
            true_model if substeps is None else coarse_model(true_model, base.dt, substeps)
        )
        self._rollouts: MujocoSimulations | None = None
        self.observation_space: gym.Space = env.observation_space
        self.action_space: gym.Space = env.action_space
        self.max_episode_steps = time_limit_of(env)

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution."""
        states = []
        for seed in rng.integers(2**31, size=num):
            self._env.reset(seed=int(seed))
            states.append(self._env.snapshot())
        return states

    def simulations(self, num: int) -> MujocoSimulations:
        """Return `num` simulations for closed-loop use."""
        return MujocoSimulations(
            self._model, self._task, num, nstep=self._nstep, num_threads=self._num_threads
        )

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out S x K action sequences open loop; see `Dynamics.rollout`."""
        actions = validate_rollout(states, actions, self.action_space)
        num = actions.shape[0] * actions.shape[1]
        if self._rollouts is None or self._rollouts.num != num:
            self._rollouts = self.simulations(num)
        return open_loop_rollout(
            self._rollouts, states, actions, keep_observations=keep_observations
        )

    def close(self) -> None:
        """Free the simulations."""
        self._rollouts = None
        self._env.close()


class MujocoSimulations:
    """Run N simulations of one model, closed loop.

    Args:
        model: Shared by all simulations; never modified.
        task: Computes observation, reward and termination.
        num: Simulations, N.
        nstep: Physics substeps per control step.
        num_threads: Threads of the pool.
    """

    def __init__(
        self, model: mujoco.MjModel, task: BatchTask, num: int, *, nstep: int, num_threads: int
    ) -> None:
        self.num = num
        self._task = task
        self._nstep = nstep
        self._batch = Batch(model, num, min(num_threads, num))
        self._ctrl = self._batch.bind("ctrl")
        self._before = {name: self._batch.bind(name) for name in task.before_fields}
        self._after = {name: self._batch.bind(name) for name in task.after_fields}
        self._observations: np.ndarray | None = None
        self._extras: list[Any] = [None] * num

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        if indices is None:
            indices = np.arange(self.num)
        if len(states) != len(indices):
            raise ValueError(f"need one state per simulation: {len(indices)}, got {len(states)}")
        if len(states) == 0:
            return
        rows = np.stack([state.physics for state in states])
        if rows.shape[1] != self._batch.nstate:
            raise ValueError(
                f"state has {rows.shape[1]} numbers, this model's has {self._batch.nstate}: "
                "it was captured from another env or MuJoCo version"
            )
        self._batch.state[indices] = rows
        self._batch.warning[indices] = 0
        observations = np.stack([np.asarray(state.observation) for state in states])
        if self._observations is None:
            self._observations = np.zeros((self.num, *observations.shape[1:]))
        self._observations[indices] = observations
        for index, state in zip(indices, states, strict=True):
            self._extras[index] = state.extras

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        if indices is None:
            select: Any = slice(None)
            ids = None
        else:
            select = np.asarray(indices)
            ids = np.sort(select).astype(np.int32)  # the batch wants them in order
        # Gymnasium hands float32 actions to the physics: the same rounding keeps results equal.
        actions = np.asarray(actions, dtype=np.float32)
        before = {name: field[select].copy() for name, field in self._before.items()}
        self._ctrl[select] = actions
        with _quiet_physics():
            self._batch.step(ids, nstep=self._nstep)
        after = {name: field[select] for name, field in self._after.items()}
        observations = self._task.observations(after)
        assert self._observations is not None, "restore before the first step"
        self._observations[select] = observations
        return StepBatch(
            observations=observations,
            rewards=self._task.rewards(before, after, actions),
            terminated=self._task.terminated(after),
            diverged=self._diverged(select, observations),
        )

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        if indices is None:
            indices = np.arange(self.num)
        assert self._observations is not None, "restore before the first snapshot"
        return [
            EnvState(
                observation=self._observations[i].copy(),
                physics=self._batch.state[i].copy(),
                extras=self._extras[i],
            )
            for i in indices
        ]

    def close(self) -> None:
        """Free nothing: the batch goes with its last reference."""

    def _diverged(self, select: Any, observations: np.ndarray) -> np.ndarray:
        # MuJoCo resets a broken simulation on its own, so a plain look at the state would miss it.
        counts = self._batch.warning[select][:, _DIVERGENCE_WARNINGS, 1]
        return counts.any(axis=1) | ~np.isfinite(observations).all(axis=1)


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


@contextlib.contextmanager
def _quiet_physics() -> Iterator[None]:
    """Keep MuJoCo from printing a line and writing a log file for each diverged simulation."""
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_ignore_message)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
