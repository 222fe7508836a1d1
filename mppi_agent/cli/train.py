"""`mppi-agent train`, `eval` and `plot`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mppi_agent.cli.commands import add_command, add_device, print_result

__all__ = ["add_eval", "add_plot", "add_train"]

# Option: key of the run's settings.
_KEYS = {
    "env": "env",
    "seed": "seed",
    "n_envs": "n_envs",
    "minutes": "minutes",
    "steps": "learn.total_timesteps",
    "eval_freq": "eval_freq",
    "eval_episodes": "eval_episodes",
    "checkpoint_freq": "checkpoint_freq",
    "tensorboard": "tensorboard",
}


def add_train(commands: Any) -> None:
    """Add `train`."""
    command = add_command(
        commands,
        "train",
        _train,
        "train a policy in a run folder; Ctrl-C saves what it has and says how to go on",
        [
            "train Pendulum-v1 --minutes 1",
            "train HalfCheetah-v5 --minutes 10 --out cheetah.zip",
            "train Hopper-v5 --steps 20000 --n-envs 2 --eval-freq 1000 --tensorboard",
            "train --config hopper.yaml --seed 3",
            "train Pendulum-v1 --set model.n_epochs=3 planner.horizon=30",
            "train --resume runs/Hopper-v5/mppigps_1",
            "train --resume runs/Hopper-v5/mppigps_1 --steps 40000",
        ],
        seed_help="of everything random (default: 0)",
        default_seed=None,
    )
    command.add_argument("env", metavar="ENV", nargs="?", help="env id, for example HalfCheetah-v5")
    start = command.add_mutually_exclusive_group()
    start.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML: env, seed, n_envs, minutes, eval_freq, eval_episodes, checkpoint_freq, "
        "tensorboard, and sections model, planner and learn with arguments of MPPIGPS, MPPIConfig "
        "and learn (--steps is learn.total_timesteps); the command line beats it",
    )
    start.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="folder of a run, or a checkpoint in it: go on as if it had not stopped",
    )
    command.add_argument(
        "--minutes", type=float, help="wall-clock (default: 5, where --steps is not given)"
    )
    command.add_argument("--steps", type=int, help="real env steps; the first of the two ends it")
    command.add_argument("--n-envs", type=int, help="training envs side by side (default: 1)")
    command.add_argument(
        "--eval-freq", type=int, help="steps between evaluations (default: 1000; 0: none)"
    )
    command.add_argument("--eval-episodes", type=int, help="of each evaluation (default: 10)")
    command.add_argument(
        "--checkpoint-freq", type=int, help="steps between checkpoints (default: 1000)"
    )
    command.add_argument(
        "--tensorboard", action="store_const", const=True, help="write the log for it, too"
    )
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any key of the config file",
    )
    command.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="save the trained model here, too"
    )
    command.add_argument("--verbose", action="store_true", help="print the log")
    add_device(command, default=None)


def _train(options: argparse.Namespace) -> int:
    from mppi_agent.runs import Console, RunConfig, resume, train
    from mppi_agent.runs.config import parse_setting

    changes = dict(map(parse_setting, options.set))
    given = {key: vars(options)[option] for option, key in _KEYS.items()}
    changes |= {key: value for key, value in given.items() if value is not None}
    console = Console(
        verbose=options.verbose and not options.json,
        show_progress=True,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.resume is not None:
        result = resume(
            options.resume, changes, device=options.device, console=console, out=options.out
        )
    else:
        if options.device is not None:
            changes["model.device"] = options.device
        config = RunConfig.read(options.config, changes)
        result = train(config, options.runs, console=console, out=options.out)
    print_result(options, result.as_dict(), str(result))
    return 0 if result.signal is None else 128 + result.signal


def add_eval(commands: Any) -> None:
    """Add `eval`."""
    command = add_command(
        commands,
        "eval",
        _evaluate,
        "run a saved policy on reset seeds that training never used",
        [
            "eval runs/Pendulum-v1/mppigps_1",
            "eval model.zip --env Pendulum-v1 --episodes 10 --json",
            "eval model.zip --env Pendulum-v1 --video pendulum.mp4",
            "eval new.zip --env Hopper-v5 --paired-with old.zip",
            "eval model.zip --env Hopper-v5 --episodes 5 --paired-with planner",
        ],
        seed_help="reset seed of the first episode (default: 100000)",
        default_seed=100_000,
    )
    command.add_argument("model", metavar="MODEL", type=Path, help="file or run that train saved")
    command.add_argument("--env", metavar="ENV", help="env id (default: that of the run)")
    command.add_argument("--episodes", type=int, default=100, help="default: 100")
    command.add_argument("--video", type=Path, metavar="FILE", help="record the policy as mp4")
    command.add_argument(
        "--paired-with",
        metavar="OTHER",
        help="another MODEL, or expert (the planner alone), or planner (it plans on top of MODEL): "
        "run it on the same seeds and show the mean difference with its confidence interval",
    )
    add_device(command)


def _evaluate(options: argparse.Namespace) -> int:
    from mppi_agent.runs.evaluate import evaluate_model

    report = evaluate_model(
        options.model,
        options.env,
        episodes=options.episodes,
        first_seed=options.seed,
        paired_with=options.paired_with,
        video=options.video,
        device=options.device,
        show_progress=True,
    )
    print_result(options, report.as_dict(), str(report))
    return 0


def add_plot(commands: Any) -> None:
    """Add `plot`."""
    command = add_command(
        commands,
        "plot",
        _plot,
        "draw learning curves, planner-student gap and seconds per phase of runs; runs that differ "
        "in the seed alone become one curve with a confidence band",
        [
            "plot runs/Pendulum-v1/mppigps_1",
            "plot runs/Hopper-v5/mppigps_* --out hopper.png",
            "plot runs/Hopper-v5/mppigps_1 runs/Hopper-v5/mppigps_2 --x minutes --json",
        ],
        seed_help="unused: nothing here is random",
    )
    command.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run")
    command.add_argument(
        "--out", type=Path, default=Path("runs.png"), help="picture (default: runs.png)"
    )
    command.add_argument(
        "--x", choices=["steps", "minutes"], default="steps", help="default: steps of the real env"
    )


def _plot(options: argparse.Namespace) -> int:
    from mppi_agent.runs.curves import read_curves
    from mppi_agent.runs.plot import draw_curves

    curves = read_curves(options.runs)
    draw_curves(curves, options.out, x=options.x)
    result = {"picture": str(options.out), "curves": [curve.as_dict() for curve in curves]}
    print_result(options, result, "\n".join([*map(str, curves), f"picture: {options.out}"]))
    return 0
