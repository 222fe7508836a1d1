"""`mppi-agent check`, `compare` and `bench`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mppi_agent.cli.commands import add_command, add_device, print_result
from mppi_agent.env_ids import make_env

__all__ = ["add_bench", "add_check", "add_compare"]


def add_check(commands: Any) -> None:
    """Add `check`."""
    command = add_command(
        commands,
        "check",
        _check,
        "say whether the state of an env can be cloned exactly",
        ["check HalfCheetah-v5", "check my_package:MyEnv-v0"],
    )
    command.add_argument("env", metavar="ENV", help="env id")


def _check(options: argparse.Namespace) -> int:
    from mppi_agent.cloning.check import check_clones
    from mppi_agent.dynamics.check import check_cloneable
    from mppi_agent.expert import action_scaling

    env = make_env(options.env)
    try:
        action_scaling(env.action_space)
    except ValueError as error:
        report = replace(check_clones(env, seed=options.seed), reason=f"no plans: {error}")
    else:
        report = check_cloneable(env, seed=options.seed)
    finally:
        env.close()
    result = {
        "env": options.env,
        "verdict": report.verdict,
        "exact": report.exact,
        "adapter": report.adapter,
        "backend": report.backend,
        "steps_per_second": report.steps_per_second,
        "reason": report.reason,
        "mismatches": [str(mismatch) for mismatch in report.mismatches],
    }
    print_result(options, result, str(report))
    return 0 if report.exact and report.reason is None else 1


def add_compare(commands: Any) -> None:
    """Add `compare`."""
    command = add_command(
        commands,
        "compare",
        _compare,
        "train MPPIGPS, PPO and SAC for the same wall-clock and show them beside the expert",
        ["compare Pendulum-v1 --minutes 1", "compare HalfCheetah-v5 --minutes 10 --json"],
    )
    command.add_argument("env", metavar="ENV", help="env id")
    command.add_argument("--minutes", type=float, default=5.0, help="for each (default: 5)")
    command.add_argument(
        "--algos",
        nargs="+",
        metavar="ALGO",
        default=["mppigps", "ppo", "sac"],
        help="some of mppigps, ppo, sac (default: all)",
    )
    command.add_argument("--episodes", type=int, default=100, help="held out (default: 100)")
    command.add_argument(
        "--expert-episodes", type=int, default=3, help="for the rows that plan (default: 3)"
    )
    command.add_argument(
        "--curve-points", type=int, default=12, help="of the learning curve (default: 12; 0: none)"
    )
    command.add_argument(
        "--out", type=Path, help="folder of results (default: runs/ENV/compare_SEED)"
    )
    add_device(command)


def _compare(options: argparse.Namespace) -> int:
    from mppi_agent.compare import compare

    comparison = compare(
        options.env,
        options.minutes,
        algos=options.algos,
        seed=options.seed,
        episodes=options.episodes,
        expert_episodes=options.expert_episodes,
        curve_points=options.curve_points,
        out_dir=options.out or _compare_folder(options.env, options.seed),
        device=options.device,
        report=lambda line: print(line, file=sys.stderr, flush=True),
        show_progress=True,
    )
    files = [f"{kind}: {path}" for kind, path in comparison.files.items()]
    lines = [f"\n{options.env}, seed {options.seed}", comparison.table(), "", *comparison.notes]
    print_result(options, comparison.as_dict(), "\n".join([*lines, "", *files]))
    return 0


def add_bench(commands: Any) -> None:
    """Add `bench`."""
    command = add_command(
        commands,
        "bench",
        _bench,
        "measure where the time of planning goes, or how well coarse models rank plans",
        [
            "bench planner HalfCheetah-v5",
            "bench planner Ant-v5 --num-samples 128 --json",
            "bench fidelity Walker2d-v5 --substeps 1 2 4",
        ],
        seed_help="of the reset and the samples (default: 0)",
    )
    command.add_argument("what", choices=["planner", "fidelity"], help="what is measured")
    command.add_argument("env", metavar="ENV", help="env id")
    command.add_argument("--num-samples", type=int, default=64, help="per plan (default: 64)")
    command.add_argument("--horizon", type=int, default=20, help="steps per plan (default: 20)")
    command.add_argument("--threads", type=int, help="default: one per core")
    command.add_argument("--repeats", type=int, default=7, help="rounds (default: 7)")
    command.add_argument(
        "--substeps", type=int, nargs="+", default=[1, 2], help="of coarse models (default: 1 2)"
    )


def _bench(options: argparse.Namespace) -> int:
    from mppi_agent.bench import bench_fidelity, bench_planner

    if options.what == "fidelity":
        reports = bench_fidelity(
            options.env,
            options.substeps,
            num_samples=options.num_samples,
            horizon=options.horizon,
            num_threads=options.threads,
            repeats=options.repeats,
            seed=options.seed,
        )
        text = "\n".join(map(str, reports))
        print_result(options, {"models": [report.as_dict() for report in reports]}, text)
        return 0

    result = bench_planner(
        options.env,
        num_samples=options.num_samples,
        horizon=options.horizon,
        num_threads=options.threads,
        repeats=options.repeats,
        seed=options.seed,
    )
    print_result(options, result.as_dict(), str(result))
    return 0


def _compare_folder(env_id: str, seed: int) -> Path:
    """Return a folder for each seed, beside the runs of that env."""
    from mppi_agent.runs.folder import env_folder_name

    return Path("runs") / env_folder_name(env_id) / f"compare_{seed}"
