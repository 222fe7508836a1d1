"""Measure where the time of planning goes, against the bare simulator.

Every figure is the median of rounds in which the things compared take turns in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mujoco.batch import Batch

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics, make_dynamics
from mppi_agent.dynamics.mujoco_batch import quiet_physics
from mppi_agent.dynamics.tasks import batch_task_of
from mppi_agent.env_ids import make_env
from mppi_agent.expert import box_scaling
from mppi_agent.interfaces import BatchTask, Dynamics, EnvState, RolloutBatch
from mppi_agent.planning import MPPI, MPPIConfig

__all__ = ["BarePhysics", "PlannerBench", "Recording", "alternate", "bench_planner", "timed"]


@dataclass(frozen=True)
class PlannerBench:
    """Hold the cost of one planning call with one iteration.

    Attributes:
        env_id: What was planned on.
        backend: Class that simulated.
        num_threads: Threads or processes of the backend.
        num_samples: Per plan, K.
        horizon: Control steps, H.
        sim_steps: Env steps that the call simulates.
        plan_ms: Of the whole call.
        parts_ms: Where they go; they sum up to `plan_ms` but for the noise of medians.
        plan_over_physics: Call against the bare batch physics of the same steps; None where
            the backend is no MuJoCo batch.
        env_step_over_rollout: A loop over `env.step` against the backend, same samples.
    """

    env_id: str
    backend: str
    num_threads: int
    num_samples: int
    horizon: int
    sim_steps: int
    plan_ms: float
    parts_ms: dict[str, float]
    plan_over_physics: float | None
    env_step_over_rollout: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a table of the parts and a line per ratio."""
        rate = self.sim_steps / self.plan_ms * 1e3
        lines = [
            f"{self.env_id}: {self.num_samples} samples of {self.horizon} steps, {self.backend}, "
            f"{self.num_threads} threads",
            f"{self.plan_ms:9.2f} ms per plan, {rate:,.0f} env steps per second, of these",
        ]
        for name, milliseconds in self.parts_ms.items():
            lines.append(f"{milliseconds:9.2f} ms {milliseconds / self.plan_ms:6.1%}  {name}")
        if self.plan_over_physics is not None:
            lines.append(f"{self.plan_over_physics:9.2f} x the time of the bare batch physics")
        lines.append(f"{self.env_step_over_rollout:9.2f} x as fast as a loop over env.step")
        return "\n".join(lines)


def bench_planner(
    env_id: str,
    *,
    num_samples: int = 64,
    horizon: int = 20,
    num_threads: int | None = None,
    repeats: int = 7,
    seed: int = 0,
) -> PlannerBench:
    """Measure one planning call from a fresh reset.

    Args:
        env_id: What `gym.make` takes.
        num_samples: Per plan, K.
        horizon: Control steps, H.
        num_threads: Of the backend; None: one per core.
        repeats: Rounds; their medians are returned.
        seed: Of the reset and the samples.

    Returns:
        Medians of all rounds.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    env = Cloneable(make_env(env_id))
    env.reset(seed=seed)
    dynamics, oracle = make_dynamics(env, num_workers=num_threads), EnvStepDynamics(env)
    recording = Recording(dynamics)
    config = MPPIConfig(num_samples=num_samples, horizon=horizon, iterations=1)
    scaling = box_scaling(env.action_space)
    nominals = np.zeros((1, 1, horizon, scaling.action_dims))

    def plan(simulator: Any) -> None:
        planner = MPPI(config, simulator, scaling.to_env)
        planner.plan([env.snapshot()], nominals, np.random.default_rng(seed))

    plan(recording)
    calls: dict[str, Callable[[], float]] = {
        "plan": timed(lambda: plan(dynamics)),
        "rollout": timed(lambda: recording.repeat(dynamics)),
        "env_step": timed(lambda: recording.repeat(oracle)),
    }
    if isinstance(dynamics, MujocoBatchDynamics):
        calls |= _simulator_calls(env, dynamics, recording)
    seconds = alternate(calls, repeats)
    physics = seconds.get("physics")
    sim_steps = sum(batch.sim_steps for _, _, batch in recording.calls)
    result = PlannerBench(
        env_id=env_id,
        backend=type(dynamics).__name__,
        num_threads=getattr(dynamics, "num_threads", 1),
        num_samples=num_samples,
        horizon=horizon,
        sim_steps=sim_steps,
        plan_ms=1e3 * float(np.median(seconds["plan"])),
        parts_ms=_parts_ms(seconds),
        plan_over_physics=None if physics is None else ratio(seconds["plan"], physics),
        env_step_over_rollout=ratio(seconds["env_step"], seconds["rollout"]),
    )
    oracle.close()
    dynamics.close()
    env.close()
    return result


class Recording:
    """Remember the rollouts that someone asks a backend for.

    Args:
        dynamics: Answers.

    Attributes:
        calls: States, actions and outcome of each rollout.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        self.calls: list[tuple[Sequence[EnvState], np.ndarray, RolloutBatch]] = []
        self._dynamics = dynamics

    def rollout(self, states: Sequence[EnvState], actions: np.ndarray) -> RolloutBatch:
        """Roll out on the backend."""
        batch = self._dynamics.rollout(states, actions)
        self.calls.append((states, actions, batch))
        return batch

    def repeat(self, dynamics: Dynamics) -> None:
        """Ask a backend for the same rollouts."""
        for states, actions, _ in self.calls:
            dynamics.rollout(states, actions)


class BarePhysics:
    """Step a MuJoCo batch through given actions and do nothing else.

    Args:
        env: Says which model and how many substeps.
        num: Simulations, N.
        num_threads: Of the batch.
        task: Its fields are filled after each step, and its maths are timed; None: neither.
    """

    def __init__(
        self, env: Cloneable, num: int, num_threads: int, task: BatchTask | None = None
    ) -> None:
        base: Any = env.unwrapped
        self._batch = Batch(base.model, num, min(num_threads, num))
        self._nstep: int = base.frame_skip
        self._task = task
        self._ctrl = self._batch.bind("ctrl")
        names = () if task is None else {*task.before_fields, *task.after_fields}
        self._fields = {name: self._batch.bind(name) for name in names}

    def seconds(
        self, physics: np.ndarray, actions: np.ndarray, lengths: np.ndarray
    ) -> tuple[float, float]:
        """Return the seconds of physics and of task maths.

        Args:
            physics: Integration states, shape (N, n).
            actions: Shape (N, H, nu).
            lengths: Steps of each simulation, shape (N,).
        """
        self._batch.state[:] = physics
        spent = np.zeros(2)
        with quiet_physics():
            for step in range(int(lengths.max())):
                live = np.flatnonzero(lengths > step)
                taken = actions[live, step].astype(np.float32)
                self._ctrl[live] = taken
                ids = None if live.size == len(lengths) else live
                start = time.perf_counter()
                self._batch.step(ids, nstep=self._nstep)
                middle = time.perf_counter()
                if self._task is not None:
                    self._task_maths(live, taken)
                spent += (middle - start, time.perf_counter() - middle)
        return float(spent[0]), float(spent[1])

    def _task_maths(self, live: np.ndarray, actions: np.ndarray) -> None:
        task = self._task
        assert task is not None
        select: Any = slice(None) if live.size == self._batch.nsim else live
        fields = {name: field[select] for name, field in self._fields.items()}
        task.observations(fields)
        task.rewards(fields, fields, actions)
        task.terminated(fields)


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """Return a function that does the same and returns its seconds."""

    def measured() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return measured


def alternate(calls: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, np.ndarray]:
    """Let functions take turns, once to warm up and then `repeats` times.

    Args:
        calls: Return the seconds that they took.
        repeats: Rounds.

    Returns:
        Seconds of each, shape (repeats,).
    """
    rounds = [[call() for call in calls.values()] for _ in range(repeats + 1)]
    return dict(zip(calls, np.array(rounds[1:]).T, strict=True))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Return the median of the ratios of each round."""
    return float(np.median(numerator / denominator))


def _simulator_calls(
    env: Cloneable, dynamics: MujocoBatchDynamics, recording: Recording
) -> dict[str, Callable[[], float]]:
    """Return what times bare physics, task maths and copying of recorded rollouts."""
    task = batch_task_of(env.unwrapped)
    threads = dynamics.num_threads
    rollouts = []
    for states, actions, batch in recording.calls:
        num = batch.lengths.size
        rows = [state for state in states for _ in range(actions.shape[1])]
        rollouts.append(
            (
                BarePhysics(env, num, threads),
                BarePhysics(env, num, threads, task),
                (
                    np.stack([state.physics for state in rows]),
                    actions.reshape(num, *actions.shape[2:]),
                    batch.lengths.ravel(),
                ),
                (dynamics.simulations(num), rows),
            )
        )

    def copying() -> None:
        for _, _, _, (simulations, rows) in rollouts:
            simulations.restore(rows)

    return {
        "physics": lambda: sum(bare.seconds(*given)[0] for bare, _, given, _ in rollouts),
        "task": lambda: sum(known.seconds(*given)[1] for _, known, given, _ in rollouts),
        "copying": timed(copying),
    }


def _parts_ms(seconds: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return milliseconds of each part of a plan, the last one being what is left."""
    parts = {}
    if "physics" in seconds:
        parts["physics"] = seconds["physics"]
        parts["task maths"] = seconds["task"]
        parts["copying states"] = seconds["copying"]
        rest = seconds["rollout"] - sum(parts.values())
        parts["stepping in Python"] = rest
    else:
        parts["rollouts"] = seconds["rollout"]
    parts["sampling and weights"] = seconds["plan"] - seconds["rollout"]
    return {name: 1e3 * float(np.median(values)) for name, values in parts.items()}
