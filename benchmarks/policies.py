"""Train policies for a fixed wall-clock and append one CSV line per run.

    python benchmarks/policies.py Pendulum-v1 Hopper-v5 --seeds 0 1 2 --algos mppigps ppo sac

Each line holds env, algorithm, seed, the cores that the process may use, wall-clock, returns on 100
held-out episodes, real and simulated steps, versions and commit. Training times per env are those
of the README's table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from records import append, provenance

from mppi_agent.evaluation import evaluate_expert, evaluate_policy, held_out_seeds
from mppi_agent.expert import MPPIAgent
from mppi_agent.gps import MPPIGPS
from mppi_agent.training import ALGOS, train_for

MINUTES = {
    "Pendulum-v1": 1,
    "InvertedPendulum-v5": 1,
    "MountainCarContinuous-v0": 1,
    "InvertedDoublePendulum-v5": 5,
    "Reacher-v5": 5,
    "Swimmer-v5": 10,
    "HalfCheetah-v5": 10,
    "Walker2d-v5": 10,
    "Hopper-v5": 10,
}
FIELDS = (
    "env algo seed cores minutes seconds mean std min episodes env_steps sim_steps "
    "planner_mean planner_episodes policy_on_planner_seeds commit versions machine"
).split()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", choices=list(MINUTES), metavar="ENV")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--algos", nargs="+", choices=ALGOS, default=["mppigps"])
    parser.add_argument("--minutes", type=float, help="instead of the env's own training time")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--planner-episodes", type=int, default=0, help="planner + policy; slow")
    parser.add_argument("--models", type=Path, help="folder that keeps the trained models")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("policies.csv"))
    args = parser.parse_args()
    for env_id in args.envs:
        for seed in args.seeds:
            for algo in args.algos:
                row = measure(env_id, algo, seed, args)
                append(args.out, row, FIELDS)
                print({name: row[name] for name in FIELDS[:12]}, flush=True)


def measure(env_id: str, algo: str, seed: int, args: argparse.Namespace) -> dict[str, object]:
    """Train once and evaluate on held-out seeds."""
    minutes = args.minutes or MINUTES[env_id]
    run = train_for(algo, env_id, 60 * minutes, seed=seed)
    if args.models is not None:
        run.model.save(args.models / f"{algo}_{env_id}_{seed}.zip")
    result = evaluate_policy(run.policy, env_id, held_out_seeds(args.episodes))
    row: dict[str, object] = {
        "env": env_id,
        "algo": algo,
        "seed": seed,
        "minutes": minutes,
        "seconds": round(run.seconds, 1),
        "mean": round(result.mean, 2),
        "std": round(result.std, 2),
        "min": round(result.min, 2),
        "episodes": args.episodes,
        "env_steps": run.env_steps,
        "sim_steps": run.sim_steps,
        **provenance(),
    }
    if args.planner_episodes and isinstance(run.model, MPPIGPS):
        seeds = held_out_seeds(args.planner_episodes)
        expert = MPPIAgent(env_id, seed=seed, policy=run.model)
        row["planner_mean"] = round(evaluate_expert(expert, seeds).mean, 2)
        row["planner_episodes"] = args.planner_episodes
        row["policy_on_planner_seeds"] = round(float(result.returns[: len(seeds)].mean()), 2)
    return row


if __name__ == "__main__":
    main()
