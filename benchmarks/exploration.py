"""Measure success on the tasks where exploration is the problem, one CSV line per run.

    python benchmarks/exploration.py all --algos expert mppigps ppo sac --minutes 10

Success is `info["is_success"]` at the last step of an episode, over the same held-out reset seeds
for everyone. The expert plans at every step and is not trained; its lines say what a step costs.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
from policies import commit

from mppi_agent import MPPIAgent, MPPIConfig
from mppi_agent.evaluation import held_out_seeds
from mppi_agent.training import ALGOS, train_for
from mppi_envs.demonstrations import Controller, Demonstration, record

# About 100 ms of one core per control step, so 50 ms with two.
PLANNERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "CartPoleSwingUp": {"horizon": 50, "knot_spacing": 10, "noise_std": 1.0},
        "DoublePendulumSwingUp": {
            "horizon": 50,
            "knot_spacing": 6,
            "noise_std": 0.8,
            "tail_scale": 1.0,
        },
        "BallInCup": {"num_samples": 48, "horizon": 40, "knot_spacing": 8, "noise_std": 1.0},
        "PointMaze": {"num_samples": 48, "horizon": 60, "knot_spacing": 10, "noise_std": 1.0},
        "ReachAround": {"num_samples": 48, "horizon": 40, "knot_spacing": 10, "noise_std": 1.0},
        "Pusher": {"horizon": 40, "knot_spacing": 8, "noise_std": 1.0},
        "GetUp": {"num_samples": 32, "horizon": 20, "knot_spacing": 4, "noise_std": 0.7},
        "AntMaze": {"num_samples": 32, "horizon": 20, "knot_spacing": 4, "noise_std": 0.7},
        "MultiTaskArm": {"horizon": 20, "knot_spacing": 4, "noise_std": 0.6, "tail_scale": 1.0},
    }
)
FIELDS = (
    "env algo seed cores minutes seconds success episodes mean_return mean_length ms_per_step "
    "env_steps sim_steps commit versions machine"
).split()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", choices=["all", *PLANNERS], metavar="ENV")
    parser.add_argument("--algos", nargs="+", choices=["expert", *ALGOS], default=["expert"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=10, help="training time, not the expert's")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("exploration.csv"))
    args = parser.parse_args()
    for name in PLANNERS if "all" in args.envs else args.envs:
        for algo in args.algos:
            for seed in args.seeds:
                row = measure(name, algo, seed, args.minutes, args.episodes)
                append(args.out, row)
                print({field: row.get(field) for field in FIELDS[:11]}, flush=True)


def measure(name: str, algo: str, seed: int, minutes: float, episodes: int) -> dict[str, object]:
    """Train once, unless it is the expert, and evaluate on held-out seeds."""
    env_id = f"mppi_envs:mppi_envs/{name}-v0"
    row: dict[str, object] = {
        "env": env_id.partition(":")[2],
        "algo": algo,
        "seed": seed,
        "cores": len(os.sched_getaffinity(0)),
        "commit": commit(),
        "versions": " ".join(
            f"{package}={version(package)}"
            for package in ("gymnasium", "mujoco", "stable_baselines3", "torch", "numpy")
        ),
        "machine": platform.machine(),
    }
    seeds = held_out_seeds(episodes)
    if algo == "expert":
        expert = MPPIAgent(env_id, MPPIConfig(**PLANNERS[name]), seed=seed)
        row |= success_of(expert, expert.env, seeds)
        row["sim_steps"] = expert.sim_steps
        expert.close()
        return row
    run = train_for(algo, env_id, 60 * minutes, seed=seed)
    env = gym.make(env_id)
    row |= success_of(run.policy, env, seeds)
    env.close()
    return row | {
        "minutes": minutes,
        "seconds": round(run.seconds, 1),
        "env_steps": run.env_steps,
        "sim_steps": run.sim_steps,
    }


def success_of(controller: Controller, env: gym.Env, seeds: Sequence[int]) -> dict[str, object]:
    """Return how often one episode from each seed ends in success, and at what cost."""
    started = time.perf_counter()
    demonstrations: list[Demonstration] = record(controller, env, seeds)
    seconds = time.perf_counter() - started
    lengths = [len(episode.rewards) for episode in demonstrations]
    return {
        "success": float(np.mean([episode.is_success for episode in demonstrations])),
        "episodes": len(seeds),
        "mean_return": round(float(np.mean([e.rewards.sum() for e in demonstrations])), 2),
        "mean_length": round(float(np.mean(lengths)), 1),
        "ms_per_step": round(1e3 * seconds / sum(lengths), 2),
    }


def append(path: Path, row: dict[str, object]) -> None:
    """Add a line to a CSV, with a head if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
