"""Take parts of the planner away, or put some in, at equal simulated steps per control step.

    python benchmarks/ablation.py --budget B1/4 --steps 100 --seeds 3
    python benchmarks/duel.py summary benchmarks/ablation.csv

The lines are those of a duel, with the variant as the planner's name, so that the same summary
ranks them. All variants of an env share horizon, budget and reset seeds; these are the tuning ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from duel import FIRST_TUNING_SEED, budget_steps, episode, write
from duel_planners import Settings, open_task

ENVS = (
    "HalfCheetah-v5",
    "Hopper-v5",
    "Ant-v5",
    "Swimmer-v5",
    "Reacher-v5",
    "InvertedDoublePendulum-v5",
    "Pendulum-v1",
    "MountainCarContinuous-v0",
)
VARIANTS: Mapping[str, Settings] = {
    "ours": {},
    "ours:one iteration": {"iterations": 1},
    "ours:no elites": {"elites": 0},
    "ours:noise stays": {"noise_decay": 1.0},
    "ours:no pairs": {"antithetic": False},
    "ours:samples like means": {"mean_preference": 0.0},
    "ours:ESS 5 %": {"ess_fraction": 0.05},
    "ours:ESS 50 %": {"ess_fraction": 0.5},
    "ours:heavy tails": {"tail_scale": 0.7},
    "ours:correlated": {"noise_correlation": 0.6},
    "ours:white": {"knot_spacing": 1},
    "ours:knots of 4": {"knot_spacing": 4},
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="*", metavar="ENV", default=list(ENVS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--budget", default="B1/4", help="as for duel.py")
    parser.add_argument("--seeds", type=int, default=3, help="episodes")
    parser.add_argument("--steps", type=int, help="cut episodes here; default: whole ones")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    for env_id in args.envs:
        task = open_task(env_id, budget_steps(args.budget, env_id))
        for seed in range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + args.seeds):
            for name in args.variants:
                row = episode(task, name, VARIANTS[name], seed, args.steps)
                write(args.out, env_id, name, args.budget, row)
        task.dynamics.close()


if __name__ == "__main__":
    main()
