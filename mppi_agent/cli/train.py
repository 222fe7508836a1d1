"""`mppi-agent train` and `eval`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mppi_agent.cli.commands import INTERRUPTED, add_command, add_device, print_result

__all__ = ["add_eval", "add_train"]


def add_train(commands: Any) -> None:
    """Add `train`."""
    command = add_command(
        commands,
        "train",
        _train,
        "train a policy for a wall-clock; Ctrl-C saves what it has",
        ["train Pendulum-v1 --minutes 1", "train HalfCheetah-v5 --minutes 10 --out cheetah.zip"],
    )
    command.add_argument("env", metavar="ENV", help="env id, for example HalfCheetah-v5")
    command.add_argument("--minutes", type=float, default=5.0, help="wall-clock (default: 5)")
    command.add_argument(
        "--out", type=Path, default=Path("model.zip"), help="where to save (default: model.zip)"
    )
    command.add_argument(
        "--verbose", action="store_const", const=1, default=0, help="print the log"
    )
    add_device(command)


def _train(options: argparse.Namespace) -> int:
    from mppi_agent.training import train_for

    options.out.parent.mkdir(parents=True, exist_ok=True)
    run = train_for(
        "mppigps",
        options.env,
        60 * options.minutes,
        seed=options.seed,
        device=options.device,
        verbose=0 if options.json else options.verbose,
        show_progress=True,
    )
    run.model.save(options.out)
    result = {
        "env": options.env,
        "seed": options.seed,
        "model": str(options.out),
        "training_seconds": run.seconds,
        "env_steps": run.env_steps,
        "sim_steps": run.sim_steps,
        "interrupted": run.was_interrupted,
    }
    state = "interrupted" if run.was_interrupted else "trained"
    print_result(
        options,
        result,
        f"{state} after {run.seconds:.1f} s: {run.env_steps:,} env steps, "
        f"{run.sim_steps:,} simulated steps\nsaved {options.out}",
    )
    return INTERRUPTED if run.was_interrupted else 0


def add_eval(commands: Any) -> None:
    """Add `eval`."""
    command = add_command(
        commands,
        "eval",
        _evaluate,
        "run a saved policy on reset seeds that training never used",
        [
            "eval model.zip --env Pendulum-v1",
            "eval model.zip --env Pendulum-v1 --episodes 10 --json",
        ],
        seed_help="reset seed of the first episode (default: 10000)",
        default_seed=10_000,
    )
    command.add_argument("model", metavar="MODEL", type=Path, help="file that train saved")
    command.add_argument("--env", metavar="ENV", required=True, help="env id")
    command.add_argument("--episodes", type=int, default=100, help="default: 100")
    add_device(command)


def _evaluate(options: argparse.Namespace) -> int:
    from mppi_agent.evaluation import evaluate_policy, held_out_seeds
    from mppi_agent.training import load_policy

    policy = load_policy(options.model, options.env, device=options.device)
    seeds = held_out_seeds(options.episodes, first=options.seed)
    evaluation = evaluate_policy(policy, options.env, seeds)
    result = {"env": options.env, "model": str(options.model), **evaluation.as_dict()}
    print_result(options, result, f"{options.env}: {evaluation}")
    return 0
