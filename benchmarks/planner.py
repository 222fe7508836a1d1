"""Measure planning and sampling against the bare simulator and write benchmarks/planner.csv.

    python benchmarks/planner.py                     # all of it, about ten minutes
    python benchmarks/planner.py plan --threads 1    # some of it

Each figure is the median of rounds in which the things compared take turns in one process. The
comparison with pytorch_mppi runs where that package is installed: pip install pytorch_mppi.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from pytorch_mppi_planner import plan_seconds
from records import append, provenance
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import SubprocVecEnv

from mppi_agent.bench import BarePhysics, alternate, bench_planner, ratio, timed
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import make_dynamics
from mppi_agent.dynamics.cores import num_cores
from mppi_agent.expert import action_scaling
from mppi_agent.gps.sampler import ClosedLoopSampler, SampleBatch
from mppi_agent.gps.view import PolicyView
from mppi_agent.interfaces import Dynamics, EnvState
from mppi_agent.planning import MPPI, MPPIConfig

PLANNED = ("InvertedPendulum-v5", "HalfCheetah-v5", "Ant-v5", "Humanoid-v5", "HumanoidStandup-v5")
FIELDS = ("what", "env", "value", "unit", "target", "threads", "rounds")
Row = tuple[str, str, float, str, str]
"""What, env, value, unit, target."""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("planner.csv"))
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {', '.join(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)  # as `learn` does: threads of torch that wait slow all others down
    common = provenance()
    if not args.parts:
        args.out.unlink(missing_ok=True)
    for part in args.parts or PARTS:
        for what, env, value, unit, target in PARTS[part](args.threads, args.rounds):
            print(f"{what:58} {env:20} {value:12,.2f} {unit:6} {target}", flush=True)
            figures = (what, env, f"{value:.4g}", unit, target, args.threads, args.rounds)
            append(args.out, dict(zip(FIELDS, figures, strict=True)) | common)


def plans(threads: int, rounds: int) -> Iterator[Row]:
    """Measure a planning call against bare physics, and the backend against `env.step`."""
    limits = {"InvertedPendulum-v5": "<= 1.5", "HumanoidStandup-v5": ""}
    speedups = {"HalfCheetah-v5": ">= 4 on 2 cores", "Humanoid-v5": ">= 2 on 2 cores"}
    for env_id in PLANNED:
        bench = bench_planner(env_id, num_threads=threads, repeats=rounds)
        assert bench.plan_over_physics is not None
        yield "plan K=64 H=20", env_id, bench.plan_ms, "ms", ""
        limit = limits.get(env_id, "<= 1.05")
        yield "plan / bare batch physics", env_id, bench.plan_over_physics, "x", limit
        target = speedups.get(env_id, "")
        yield "env.step loop / backend", env_id, bench.env_step_over_rollout, "x", target


def closed_loop(threads: int, rounds: int) -> Iterator[Row]:
    """Measure sampling with a policy inside, and SB3's `SubprocVecEnv` with the same policy."""
    env_id, num, num_steps = "HalfCheetah-v5", 256, 16
    env, dynamics = backend(env_id, threads)
    policy = ActorCriticPolicy(
        env.observation_space, env.action_space, lambda _: 0.0, net_arch=[128, 128]
    )
    policy.set_training_mode(False)
    sampling = Sampling(env, dynamics, policy, num, num_steps, threads)
    others = make_vec_env(env_id, n_envs=2, vec_env_cls=SubprocVecEnv)
    stepping = Stepping(others, policy, num_steps=200)
    calls = {"sample": sampling.sample, "physics": sampling.physics, "subproc": stepping.step}
    seconds = alternate(calls, rounds)
    others.close()
    dynamics.close()
    what = "closed-loop sampling, 256 simulations, 2x128 policy"
    outside = 1 - ratio(seconds["physics"], seconds["sample"])
    yield f"{what}: share outside physics", env_id, outside, "", "<= 0.25"
    rate = num * num_steps / seconds["sample"]
    rival = 2 * stepping.num_steps / seconds["subproc"]
    yield f"{what}: speed", env_id, float(np.median(rate)), "/s", ""
    yield "SubprocVecEnv, 2 workers, same policy: speed", env_id, float(np.median(rival)), "/s", ""
    yield "closed-loop sampling / SubprocVecEnv", env_id, ratio(rate, rival), "x", ">= 10"


def relabelling(threads: int, rounds: int) -> Iterator[Row]:
    """Measure one call for 32 states against 32 calls."""
    env, dynamics = backend("HalfCheetah-v5", threads)
    planner, nominals = planner_for(env, dynamics, num_samples=48, horizon=20)
    states = dynamics.initial_states(32, np.random.default_rng(0))

    def together() -> None:
        planner.plan(states, np.repeat(nominals, 32, axis=0), np.random.default_rng(0))

    def apart() -> None:
        for state in states:
            planner.plan([state], nominals, np.random.default_rng(0))

    seconds = alternate({"together": timed(together), "apart": timed(apart)}, rounds)
    what = "32 single calls / one call for S=32, K=48, H=20"
    yield what, "HalfCheetah-v5", ratio(seconds["apart"], seconds["together"]), "x", "> 1"
    dynamics.close()


def snapshots(threads: int, rounds: int) -> Iterator[Row]:
    """Measure a snapshot and its restore."""
    for env_id in ("HalfCheetah-v5", "Humanoid-v5"):
        env = Cloneable(gym.make(env_id))
        env.reset(seed=0)

        def clone(env: Cloneable = env) -> None:
            for _ in range(1000):
                env.restore(env.snapshot())

        seconds = alternate({"clone": timed(clone)}, rounds)["clone"]
        yield "snapshot + restore", env_id, 1e3 * float(np.median(seconds)), "us", "<= 20"


def memory(threads: int, rounds: int) -> Iterator[Row]:
    """Measure how much more memory the process of a large plan takes at its peak."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        grown = process.submit(_memory_of_plan, threads).result()
    yield "peak memory of a K=512, H=100 plan", "Humanoid-v5", grown, "MB", "<= 200"


def rival(threads: int, rounds: int) -> Iterator[Row]:
    """Measure pytorch_mppi on our backend and on plain envs, with our samples."""
    if importlib.util.find_spec("pytorch_mppi") is None:
        print("pytorch_mppi is missing, so it is left out: pip install pytorch_mppi")
        return
    env_id = "HalfCheetah-v5"
    seconds = plan_seconds(env_id, threads=threads, rounds=rounds)
    what = "pytorch_mppi on our backend / our plan"
    yield what, env_id, ratio(seconds["batch"], seconds["ours"]), "x", ">= 1"
    what = "pytorch_mppi on a loop over env.step / our plan"
    yield what, env_id, ratio(seconds["naive"], seconds["ours"]), "x", ">= 1"


class Sampling:
    """Sample closed loop, and repeat the physics of it alone."""

    def __init__(
        self,
        env: Cloneable,
        dynamics: Dynamics,
        policy: ActorCriticPolicy,
        num: int,
        num_steps: int,
        threads: int,
    ) -> None:
        resets = dynamics.initial_states(64, np.random.default_rng(0))

        def starts(num: int, rng: np.random.Generator) -> tuple[list[EnvState], np.ndarray]:
            return [resets[i] for i in rng.integers(64, size=num)], np.ones(num, dtype=bool)

        self._simulations = dynamics.simulations(num)
        self._sampler = ClosedLoopSampler(self._simulations, starts, 1000, np.random.default_rng(0))
        self._policy, self._num_steps = policy, num_steps
        self._view = PolicyView(None, env.action_space)
        self._bare = BarePhysics(env, num, threads)
        self._states = np.zeros((num, 0))
        self._samples: SampleBatch | None = None

    def sample(self) -> float:
        """Return the seconds of a round of sampling."""
        self._states = np.stack([state.physics for state in self._simulations.snapshot()])

        def draw() -> None:
            self._samples = self._sampler.sample(self._policy, self._view, self._num_steps)

        return timed(draw)()

    def physics(self) -> float:
        """Return the seconds of the same steps in the bare batch; restarts are left out."""
        assert self._samples is not None
        actions = self._view.to_env(np.swapaxes(self._samples.actions, 0, 1))
        return self._bare.seconds(self._states, actions, np.full(len(actions), self._num_steps))


class Stepping:
    """Step a `VecEnv` with a policy."""

    def __init__(self, env: Any, policy: ActorCriticPolicy, num_steps: int) -> None:
        self.num_steps = num_steps
        self._env, self._policy = env, policy
        self._observations = env.reset()

    def step(self) -> float:
        """Return the seconds of a round of steps."""
        return timed(self._step)()

    def _step(self) -> None:
        for _ in range(self.num_steps):
            actions, _ = self._policy.predict(self._observations)
            self._observations, _, _, _ = self._env.step(actions)


def backend(env_id: str, threads: int) -> tuple[Cloneable, Dynamics]:
    """Return an env after its reset, and its backend."""
    env = Cloneable(gym.make(env_id))
    env.reset(seed=0)
    return env, make_dynamics(env, num_workers=threads)


def planner_for(
    env: Cloneable, dynamics: Any, *, num_samples: int, horizon: int
) -> tuple[MPPI, np.ndarray]:
    """Return a planner with one iteration, and a nominal of zeros for one state."""
    scaling = action_scaling(env.action_space)
    config = MPPIConfig(num_samples=num_samples, horizon=horizon, iterations=1)
    return MPPI(config, dynamics, scaling), np.zeros((1, 1, horizon, scaling.action_dims))


def _memory_of_plan(threads: int) -> float:
    """Return by how many MB one large plan raises the peak memory of this process."""
    env, dynamics = backend("Humanoid-v5", threads)
    planner, nominals = planner_for(env, dynamics, num_samples=512, horizon=100)
    before = _peak_mb()
    planner.plan([env.snapshot()], nominals, np.random.default_rng(0))
    return _peak_mb() - before


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would begin at what the parent process had
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


PARTS: dict[str, Callable[[int, int], Iterator[Row]]] = {
    "plan": plans,
    "sampling": closed_loop,
    "relabelling": relabelling,
    "snapshot": snapshots,
    "memory": memory,
    "rival": rival,
}

if __name__ == "__main__":
    main()
