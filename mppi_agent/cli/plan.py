"""`mppi-agent plan` and `mppi-agent tune`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mppi_agent.cli.commands import add_command, print_result

__all__ = ["add_plan", "add_tune"]


def add_plan(commands: Any) -> None:
    """Add `plan`."""
    command = add_command(
        commands,
        "plan",
        _plan,
        "run the expert for one episode",
        [
            "plan Pendulum-v1",
            "plan HalfCheetah-v5 --steps 100 --policy cheetah.zip",
            "plan Hopper-v5 --budget-ms 50 --video hopper.mp4 --plot hopper.png",
        ],
        seed_help="seed of the planner and of the reset (default: 0)",
    )
    command.add_argument("env", metavar="ENV", help="env id")
    command.add_argument("--steps", type=int, help="stop the episode after this many steps")
    command.add_argument("--num-samples", type=int, help="plans per iteration (default: preset)")
    command.add_argument("--horizon", type=int, help="steps per plan (default: preset)")
    command.add_argument(
        "--preset", type=Path, metavar="FILE", help="settings that `tune` wrote (default: built in)"
    )
    command.add_argument(
        "--budget-ms", type=float, metavar="MS", help="fit the settings to this time per plan"
    )
    command.add_argument(
        "--policy",
        type=Path,
        metavar="MODEL",
        help="saved policy; plans are deviations from what it does",
    )
    command.add_argument(
        "--video", type=Path, metavar="MP4", help="film it, MuJoCo envs with the sampled plans"
    )
    command.add_argument("--track", metavar="NAME", help="site or body whose paths the video shows")
    command.add_argument("--plot", type=Path, metavar="PNG", help="draw figures of every step")


def _plan(options: argparse.Namespace) -> int:
    from mppi_agent.media import MediaError
    from mppi_agent.plan_run import run_plan
    from mppi_agent.planning import load_preset

    config = load_preset(options.preset) if options.preset else None
    policy = None
    if options.policy is not None:
        from mppi_agent.training import load_policy

        policy = load_policy(options.policy, options.env)
    try:
        run = run_plan(
            options.env,
            config,
            seed=options.seed,
            policy=policy,
            max_steps=options.steps,
            num_samples=options.num_samples,
            horizon=options.horizon,
            budget_ms=options.budget_ms,
            video=options.video,
            plot=options.plot,
            track=options.track,
            show_progress=True,
        )
    except MediaError as error:
        raise ValueError(str(error)) from error
    print_result(options, run.as_dict(), str(run))
    return 0


def add_tune(commands: Any) -> None:
    """Add `tune`."""
    command = add_command(
        commands,
        "tune",
        _tune,
        "search the planner's settings with Optuna at equal simulated steps",
        [
            "tune Pendulum-v1 --trials 20 --steps 100",
            "tune Hopper-v5 --trials 50 --out hopper.json",
        ],
        seed_help="of the search and of the planner (default: 0)",
    )
    command.add_argument("env", metavar="ENV", help="env id")
    command.add_argument("--trials", type=int, default=30, help="settings tried (default: 30)")
    command.add_argument(
        "--episodes", type=int, default=3, help="per trial, from reset seeds of their own"
    )
    command.add_argument("--steps", type=int, default=200, help="per episode (default: 200)")
    command.add_argument(
        "--sim-steps", type=int, help="env steps that a plan simulates (default: as the preset)"
    )
    command.add_argument(
        "--out", type=Path, help="preset file to write (default: ENV.json), for plan --preset"
    )


def _tune(options: argparse.Namespace) -> int:
    from mppi_agent.planning import preset_line, save_preset
    from mppi_agent.tuning import tune

    tuned = tune(
        options.env,
        trials=options.trials,
        episodes=options.episodes,
        max_steps=options.steps,
        sim_steps=options.sim_steps,
        seed=options.seed,
        show_progress=True,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    out = options.out or Path(options.env.replace("/", "-").replace(":", "-") + ".json")
    save_preset(tuned.config, out, env_id=options.env, measured=tuned.measured())
    line = preset_line(options.env, tuned.config, str(tuned))
    result = {"env": options.env, "preset": str(out), "line": line, **tuned.measured()}
    print_result(options, result, f"{options.env}: {tuned}\n\n{line}\n\nsaved {out}")
    return 0
