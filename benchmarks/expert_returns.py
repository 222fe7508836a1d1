"""Measure whole episodes of the expert alone at a planning time per step, one CSV line each.

    python benchmarks/expert_returns.py HalfCheetah-v5 Ant-v5 --budget B1
    python benchmarks/expert_returns.py summary     # the lines so far, as the README shows them

B1 is what two cores compute in 50 ms and B2 in 500 ms; one core gets twice the time; with `preset`
the settings stay as they are, whatever they cost. They were chosen on reset seeds from 10000, these
episodes start from 0.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from records import append, provenance

from mppi_agent.dynamics.cores import num_cores
from mppi_agent.plan_run import run_plan
from mppi_agent.planning import MPPIConfig

CORE_MS = {"B1": 2 * 50.0, "B2": 2 * 500.0}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", metavar="ENV", help="ids, or summary")
    parser.add_argument("--budget", choices=["preset", *CORE_MS], default="B1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    if args.envs == ["summary"]:
        print_summary(args.out)
        return
    for env_id in args.envs:
        config = None
        for seed in args.seeds:
            config, row = measure(env_id, args.budget, seed, config)
            print(row, flush=True)
            append(args.out, {**row, **provenance()})


def measure(
    env_id: str, budget: str, seed: int, config: MPPIConfig | None
) -> tuple[MPPIConfig, dict[str, object]]:
    """Run one episode.

    Args:
        env_id: Of the env.
        budget: A key of `CORE_MS`, or preset.
        seed: Of the reset and of the planner.
        config: What fits the budget; None: the env's preset, fitted here.

    Returns:
        The settings that were used, and the figures.
    """
    fits = config is None and budget in CORE_MS
    if fits:  # which takes time of its own
        budget_ms = CORE_MS[budget] / num_cores()
        config = run_plan(env_id, seed=seed, budget_ms=budget_ms, max_steps=1).config
    start = time.process_time()
    run = run_plan(env_id, config, seed=seed)
    cpu = time.process_time() - start
    length = int(run.evaluation.lengths[0])
    return run.config, {
        "env": env_id,
        "budget": budget,
        "seed": seed,
        "return": f"{run.evaluation.returns[0]:.6g}",
        "length": length,
        "num_samples": run.config.num_samples,
        "horizon": run.config.horizon,
        "iterations": run.config.iterations,
        "sim_steps_per_step": round(run.evaluation.sim_steps / length),
        "median_plan_ms": round(float(np.median(run.trace.milliseconds)), 1),
        "cpu_ms_per_step": round(1e3 * cpu / length, 1),
    }


def print_summary(path: Path) -> None:
    """Print returns and costs, one row per env and budget.

    Args:
        path: The CSV; of two lines of the same episode, the later one counts.
    """
    with path.open(newline="") as file:
        runs = {(row["env"], row["budget"], row["seed"]): row for row in csv.DictReader(file)}
    columns = ("env", "budget", "median", "returns", "samples x steps x iterations", "env steps")
    print(f"| {' | '.join(columns)} | CPU |\n{'|---' * 7}|")
    for env, budget in dict.fromkeys(key[:2] for key in runs):
        rows = [row for key, row in runs.items() if key[:2] == (env, budget)]
        returns = [float(row["return"]) for row in rows]
        seeds = "; ".join(_figure(value) for value in returns)
        first = rows[0]
        size = f"{first['num_samples']} x {first['horizon']} x {first['iterations']}"
        steps, ms = (
            np.median([float(row[name]) for row in rows])
            for name in ("sim_steps_per_step", "cpu_ms_per_step")
        )
        print(
            f"| {env} | {budget} | {_figure(float(np.median(returns)))} | {seeds} | {size} "
            f"| {steps:,.0f} | {ms:.0f} ms |"
        )


def _figure(value: float) -> str:
    """Return a number with about four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    main()
