"""`mppi-agent plan`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mppi_agent.cli.commands import add_command, print_result

__all__ = ["add_plan"]


def add_plan(commands: Any) -> None:
    """Add `plan`."""
    command = add_command(
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
    print_result(options, result, lines)
    return 0
