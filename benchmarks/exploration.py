"""Measure success on the tasks where exploration is the problem, one CSV line per run.

    python benchmarks/exploration.py all --algos expert mppigps ppo sac --minutes 10
    python benchmarks/exploration.py table      # the lines so far, as the README shows them

Success is `info["is_success"]` at the last step of an episode, over the same held-out reset seeds
for everyone. The expert plans at every step and is not trained; its lines say what a step costs.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
from records import PROVENANCE, append, provenance

from mppi_agent import MPPIAgent
from mppi_agent.demonstrations import Demonstration, record, rewards_of
from mppi_agent.evaluation import held_out_seeds
from mppi_agent.interfaces import Policy
from mppi_agent.training import ALGOS, train_for

NAMES = (
    "CartPoleSwingUp",
    "DoublePendulumSwingUp",
    "BallInCup",
    "PointMaze",
    "ReachAround",
    "Pusher",
    "GetUp",
    "AntMaze",
    "MultiTaskArm",
)
FIELDS = (
    "env algo seed minutes seconds success episodes mean_return mean_length cpu_ms_per_step "
    "env_steps sim_steps"
).split()
FIELDS += PROVENANCE


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", choices=["all", "table", *NAMES], metavar="ENV")
    parser.add_argument("--algos", nargs="+", choices=["expert", *ALGOS], default=["expert"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=10, help="training time, not the expert's")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("exploration.csv"))
    args = parser.parse_args()
    if "table" in args.envs:
        print_table(args.out)
        return
    for name in NAMES if "all" in args.envs else args.envs:
        for algo in args.algos:
            for seed in args.seeds:
                row = measure(name, algo, seed, args.minutes, args.episodes)
                append(args.out, row, list(FIELDS))
                print({field: row.get(field) for field in FIELDS[:11]}, flush=True)


def measure(name: str, algo: str, seed: int, minutes: float, episodes: int) -> dict[str, object]:
    """Train once, unless it is the expert, and evaluate on held-out seeds."""
    env_id = f"mppi_envs:mppi_envs/{name}-v0"
    row: dict[str, object] = {
        "env": env_id.partition(":")[2],
        "algo": algo,
        "seed": seed,
        **provenance(),
    }
    seeds = held_out_seeds(episodes)
    if algo == "expert":
        expert = MPPIAgent(env_id, seed=seed)
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


def success_of(controller: Policy, env: gym.Env, seeds: Sequence[int]) -> dict[str, object]:
    """Return how often one episode from each seed ends in success, and at what cost."""
    started = time.process_time()  # of all threads: what a step costs on a shared machine, too
    demonstrations: list[Demonstration] = record(controller, env, seeds)
    seconds = time.process_time() - started
    lengths = [len(episode) for episode in demonstrations]
    return {
        "success": float(np.mean([episode.is_success for episode in demonstrations])),
        "episodes": len(seeds),
        "mean_return": round(float(np.mean([rewards_of(e).sum() for e in demonstrations])), 2),
        "mean_length": round(float(np.mean(lengths)), 1),
        "cpu_ms_per_step": round(1e3 * seconds / sum(lengths), 2),
    }


def print_table(path: Path) -> None:
    """Print who ends in success how often, one row per task and one figure per seed.

    Args:
        path: The CSV; of two lines of the same run, the later one counts.
    """
    with path.open(newline="") as file:
        runs = {(row["env"], row["algo"], row["seed"]): row for row in csv.DictReader(file)}
    print(f"| task | expert, CPU ms per step | {' | '.join(ALGOS)} |")
    print("|---" * (len(ALGOS) + 2) + "|")
    for env in dict.fromkeys(env for env, _, _ in runs):
        cells = [
            _cell([row for key, row in runs.items() if key[:2] == (env, algo)])
            for algo in ("expert", *ALGOS)
        ]
        print(f"| {env.removeprefix('mppi_envs/').removesuffix('-v0')} | {' | '.join(cells)} |")


def _cell(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return ""
    successes = ", ".join(f"{float(row['success']):.2f}" for row in rows)
    if rows[0]["algo"] == "expert":
        return f"{successes}, {float(rows[0]['cpu_ms_per_step']):.0f} ms"
    minutes = sorted({f"{float(row['minutes']):g}" for row in rows}, key=float)
    span = " to ".join(dict.fromkeys([minutes[0], minutes[-1]]))
    return f"{successes} in {span} min"


if __name__ == "__main__":
    main()
