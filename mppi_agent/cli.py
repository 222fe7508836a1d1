"""The command `mppi-agent`: parse arguments, call the library, print what it returns."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mppi_agent import __version__
from mppi_agent.env_ids import make_env

__all__ = ["main"]

_INTERRUPTED = 130  # what shells report for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit code: 0 for success, 1 if `check` finds an env that cannot be cloned exactly, 2 for bad
        input, 130 after Ctrl-C.
    """
    options = _parser().parse_args(argv)
    try:
        make_env(options.env).close()
        return int(options.run(options))
    except KeyboardInterrupt:
        print("mppi-agent: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (ValueError, TypeError, OSError) as error:
        if options.debug:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"mppi-agent: error: {message}", file=sys.stderr)
        return 2


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
    _print_result(
        options,
        result,
        f"{state} after {run.seconds:.1f} s: {run.env_steps:,} env steps, "
        f"{run.sim_steps:,} simulated steps\nsaved {options.out}",
    )
    return _INTERRUPTED if run.was_interrupted else 0


def _evaluate(options: argparse.Namespace) -> int:
    from mppi_agent.evaluation import evaluate_policy, held_out_seeds
    from mppi_agent.training import load_policy

    policy = load_policy(options.model, options.env, device=options.device)
    seeds = held_out_seeds(options.episodes, first=options.seed)
    evaluation = evaluate_policy(policy, options.env, seeds)
    result = {"env": options.env, "model": str(options.model), **evaluation.as_dict()}
    _print_result(options, result, f"{options.env}: {evaluation}")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from mppi_agent.evaluation import evaluate_expert, held_out_seeds
    from mppi_agent.expert import MPPIAgent
    from mppi_agent.planning import MPPIConfig
    from mppi_agent.progress import Progress

    config = MPPIConfig.for_env(options.env)
    wanted = {"num_samples": options.num_samples, "horizon": options.horizon}
    config = replace(config, **{name: value for name, value in wanted.items() if value is not None})
    policy = None
    if options.policy is not None:
        from mppi_agent.training import load_policy

        policy = load_policy(options.policy, options.env)
    expert = MPPIAgent(options.env, config, seed=options.seed, policy=policy)
    limits = (options.steps, expert.env.spec.max_episode_steps)
    steps = min((limit for limit in limits if limit is not None), default=sys.maxsize)
    with Progress("plan", steps, "steps", is_shown=steps < sys.maxsize) as bar:
        seeds = held_out_seeds(1, first=options.seed)
        evaluation = evaluate_expert(expert, seeds, max_steps=options.steps, on_step=bar.advance)
    result = {"env": options.env, **evaluation.as_dict(), "ms_per_plan": evaluation.ms_per_step}
    lines = (
        f"{options.env}: return {evaluation.mean:.1f} in {evaluation.lengths[0]} steps\n"
        f"{evaluation.ms_per_step:.1f} ms per plan, effective sample size {evaluation.ess:.1f} "
        f"of {config.num_samples}, {evaluation.sim_steps:,} simulated steps"
    )
    _print_result(options, result, lines)
    return 0


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
        out_dir=options.out or Path("runs") / options.env.replace("/", "-").replace(":", "-"),
        device=options.device,
        report=lambda line: print(line, file=sys.stderr, flush=True),
        show_progress=True,
    )
    files = [f"{kind}: {path}" for kind, path in comparison.files.items()]
    lines = [f"\n{options.env}, seed {options.seed}", comparison.table(), "", *comparison.notes]
    _print_result(options, comparison.as_dict(), "\n".join([*lines, "", *files]))
    return 0


def _check(options: argparse.Namespace) -> int:
    from mppi_agent.dynamics.check import check_cloneable

    env = make_env(options.env)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the env may print
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
    _print_result(options, result, str(report))
    return 0 if report.exact else 1


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
        _print_result(options, [report.as_dict() for report in reports], text)
        return 0

    result = bench_planner(
        options.env,
        num_samples=options.num_samples,
        horizon=options.horizon,
        num_threads=options.threads,
        repeats=options.repeats,
        seed=options.seed,
    )
    _print_result(options, result.as_dict(), str(result))
    return 0


def _print_result(options: argparse.Namespace, result: Any, text: str) -> None:
    print(json.dumps(result) if options.json else text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mppi-agent",
        description="MPPI-guided policy learning on Gymnasium envs whose state can be cloned.",
        epilog="examples:\n"
        "  mppi-agent check Pendulum-v1\n"
        "  mppi-agent plan Pendulum-v1\n"
        "  mppi-agent train HalfCheetah-v5 --minutes 5 --out cheetah.zip\n"
        "  mppi-agent eval cheetah.zip --env HalfCheetah-v5\n"
        "  mppi-agent compare Pendulum-v1 --minutes 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mppi-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_eval(commands)
    _add_plan(commands)
    _add_compare(commands)
    _add_check(commands)
    _add_bench(commands)
    return parser


def _add_train(commands: Any) -> None:
    command = _add_command(
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
    _add_device(command)


def _add_eval(commands: Any) -> None:
    command = _add_command(
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
    _add_device(command)


def _add_plan(commands: Any) -> None:
    command = _add_command(
        commands,
        "plan",
        _plan,
        "run the expert for one episode",
        ["plan Pendulum-v1", "plan HalfCheetah-v5 --steps 100 --policy cheetah.zip"],
        seed_help="seed of the planner and of the reset (default: 0)",
    )
    command.add_argument("env", metavar="ENV", help="env id")
    command.add_argument("--steps", type=int, help="stop the episode after this many steps")
    command.add_argument("--num-samples", type=int, help="plans per iteration (default: preset)")
    command.add_argument("--horizon", type=int, help="steps per plan (default: preset)")
    command.add_argument(
        "--policy", type=Path, metavar="MODEL", help="saved policy whose actions seed the plans"
    )


def _add_compare(commands: Any) -> None:
    command = _add_command(
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
    command.add_argument("--out", type=Path, help="folder of results (default: runs/ENV)")
    _add_device(command)


def _add_check(commands: Any) -> None:
    command = _add_command(
        commands,
        "check",
        _check,
        "say whether the state of an env can be cloned exactly",
        ["check HalfCheetah-v5", "check my_package:MyEnv-v0"],
    )
    command.add_argument("env", metavar="ENV", help="env id")


def _add_bench(commands: Any) -> None:
    command = _add_command(
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


def _add_command(
    commands: Any,
    name: str,
    run: Any,
    help_line: str,
    examples: Sequence[str],
    *,
    seed_help: str = "default: 0",
    default_seed: int = 0,
) -> argparse.ArgumentParser:
    """Add a command with what all of them share."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_line,
        description=help_line,
        epilog="examples:\n" + "\n".join(f"  mppi-agent {line}" for line in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("--seed", type=int, default=default_seed, help=seed_help)
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return command


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="of torch: auto, cpu, cuda")
