"""Measure where the time of planning goes, against the bare simulator.

Every figure is the median of rounds in which the things compared take turns in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from mujoco.batch import Batch

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics, make_dynamics
from mppi_agent.dynamics.fidelity import FidelityReport, measure_fidelity
from mppi_agent.dynamics.mujoco_batch import MujocoSimulations, quiet_physics
from mppi_agent.env_ids import make_env
from mppi_agent.expert import action_scaling
from mppi_agent.interfaces import Dynamics, EnvState, RolloutBatch
from mppi_agent.planning import MPPI, MPPIConfig

__all__ = [
    "BarePhysics",
    "PlannerBench",
    "Recording",
    "alternate",
    "bench_fidelity",
    "bench_planner",
    "ratio",
    "timed",
]


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
        parts_ms: Where they go, measured in calls with clocks inside.
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
        total = sum(self.parts_ms.values())
        for name, milliseconds in self.parts_ms.items():
            lines.append(f"{milliseconds:9.2f} ms {milliseconds / total:6.1%}  {name}")
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

    Raises:
        ValueError: If `repeats` < 1, or the env or the settings cannot be planned with.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {repeats}")
    env = Cloneable(make_env(env_id))
    env.reset(seed=seed)
    dynamics, oracle = make_dynamics(env, num_workers=num_threads), EnvStepDynamics(env)
    planning_on = _planning(env, num_samples, horizon, seed)
    recording = Recording(dynamics)
    planning_on(recording)()
    clock = _Clock()
    watched = planning_on(clock.watch(env, dynamics))
    calls: dict[str, Callable[[], float]] = {
        "parts": lambda: clock.time_parts(watched),
        "plan": timed(planning_on(dynamics)),
        "rollout": timed(lambda: recording.repeat(dynamics)),
        "env_step": timed(lambda: recording.repeat(oracle)),
    }
    if isinstance(dynamics, MujocoBatchDynamics):
        calls["physics"] = recording.bare_physics(env, dynamics.num_threads)
    seconds = alternate(calls, repeats)
    physics = seconds.get("physics")
    for closing in (oracle, dynamics, env):
        closing.close()
    return PlannerBench(
        env_id=env_id,
        backend=type(dynamics).__name__,
        num_threads=getattr(dynamics, "num_threads", getattr(dynamics, "num_workers", 1)),
        num_samples=num_samples,
        horizon=horizon,
        sim_steps=recording.sim_steps,
        plan_ms=1e3 * float(np.median(seconds["plan"])),
        parts_ms=clock.parts_ms(repeats),
        plan_over_physics=None if physics is None else ratio(seconds["plan"], physics),
        env_step_over_rollout=ratio(seconds["env_step"], seconds["rollout"]),
    )


def bench_fidelity(env_id: str, substeps: Sequence[int], **settings: Any) -> list[FidelityReport]:
    """Compare coarse models of an env with the true one.

    Args:
        env_id: What `gym.make` takes.
        substeps: Of each coarse model.
        settings: See `measure_fidelity`.
    """
    env = Cloneable(make_env(env_id))
    env.reset(seed=settings.get("seed", 0))
    reports = [measure_fidelity(env, number, **settings) for number in substeps]
    env.close()
    return reports


def _planning(
    env: Cloneable, num_samples: int, horizon: int, seed: int
) -> Callable[[Any], Callable[[], object]]:
    """Return what makes, of a backend, a planning call from the state of `env`.

    As an expert does, it keeps its planner; each call plans the same.
    """
    config = MPPIConfig(num_samples=num_samples, horizon=horizon, iterations=1)
    scaling = action_scaling(env.action_space)
    nominals = np.zeros((1, 1, horizon, scaling.action_dims))
    states = [env.snapshot()]

    def on(dynamics: Any) -> Callable[[], object]:
        planner = MPPI(config, dynamics, scaling)
        return lambda: planner.plan(states, nominals, np.random.default_rng(seed))

    return on


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

    @property
    def sim_steps(self) -> int:
        """Return the env steps of all rollouts."""
        return sum(batch.sim_steps for _, _, batch in self.calls)

    def repeat(self, dynamics: Dynamics) -> None:
        """Ask a backend for the same rollouts."""
        for states, actions, _ in self.calls:
            dynamics.rollout(states, actions)

    def bare_physics(self, env: Cloneable, num_threads: int) -> Callable[[], float]:
        """Return what times the bare batch physics of the same steps."""
        runs = []
        for states, actions, batch in self.calls:
            physics = np.repeat([state.physics for state in states], actions.shape[1], axis=0)
            flat = actions.reshape(-1, *actions.shape[2:])  # (S * K, H, nu)
            bare = BarePhysics(env, len(flat), num_threads)
            runs.append((bare, physics, flat, batch.lengths.ravel()))
        return lambda: sum(bare.seconds(*given) for bare, *given in runs)


class BarePhysics:
    """Step a MuJoCo batch through given actions and do nothing else.

    Args:
        env: Says which model and how many substeps.
        num: Simulations, N.
        num_threads: Of the batch.

    Attributes:
        state: Integration states as they are now, shape (N, n).
    """

    def __init__(self, env: Cloneable, num: int, num_threads: int) -> None:
        base: Any = env.unwrapped
        self._batch = Batch(base.model, num, min(num_threads, num))
        self.state = self._batch.state
        self._nstep: int = base.frame_skip

    def seconds(self, physics: np.ndarray, actions: np.ndarray, lengths: np.ndarray) -> float:
        """Return the seconds within the simulator.

        Args:
            physics: Integration states, shape (N, n).
            actions: Shape (N, H, nu).
            lengths: Steps of each simulation, shape (N,).
        """
        batch, spent = self._batch, 0.0
        ctrl = batch.bind("ctrl")
        self.state[:] = physics
        with quiet_physics():
            for step in range(int(lengths.max())):
                live = np.flatnonzero(lengths > step)
                ctrl[live] = actions[live, step].astype(np.float32)
                start = time.perf_counter()
                batch.step(None if live.size == len(lengths) else live, nstep=self._nstep)
                spent += time.perf_counter() - start
        return spent


class _Clock:
    """Add up the time that a plan spends in its parts, round by round."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._rounds: list[dict[str, float]] = []

    def watch(self, env: Cloneable, dynamics: Dynamics) -> Any:
        """Return a stand-in for a backend whose `rollout` is timed, its parts where known."""
        if isinstance(dynamics, MujocoBatchDynamics):
            dynamics = _WatchedBatch(env, dynamics.num_threads, self)
        return SimpleNamespace(rollout=self.timing("rollouts", dynamics.rollout))

    def timing(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, its time counted to a part."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent = time.perf_counter() - start
            self._seconds[part] = self._seconds.get(part, 0.0) + spent
            return result

        return measured

    def time_parts(self, plan: Callable[[], object]) -> float:
        """Plan on a watched backend; return the seconds and remember those of the parts."""
        self._seconds.clear()
        total = timed(plan)()
        parts = dict(self._seconds)
        rollouts = parts.pop("rollouts")
        rest = "other Python of rollouts" if parts else "rollouts"
        parts[rest] = rollouts - sum(parts.values())
        parts["sampling and weights"] = total - rollouts
        self._rounds.append(parts)
        return total

    def parts_ms(self, repeats: int) -> dict[str, float]:
        """Return the median milliseconds of each part over the last `repeats` rounds."""
        last = self._rounds[-repeats:]
        return {name: 1e3 * float(np.median([part[name] for part in last])) for name in last[0]}


class _WatchedBatch(MujocoBatchDynamics):
    """A MuJoCo batch with a clock in it."""

    def __init__(self, env: Cloneable, num_threads: int, clock: _Clock) -> None:
        super().__init__(env, num_threads=num_threads)
        self._clock = clock
        task = self._task
        verbs = ("observations", "rewards", "terminated")
        self._task = SimpleNamespace(
            before_fields=task.before_fields,
            after_fields=task.after_fields,
            **{verb: clock.timing("task maths", getattr(task, verb)) for verb in verbs},
        )

    def simulations(self, num: int) -> MujocoSimulations:
        """Return simulations whose physics and copying are timed."""
        made: Any = super().simulations(num)
        made._write = self._clock.timing("copying states", made._write)
        made._batch.run = self._clock.timing("physics", made._batch.run)
        return made


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
