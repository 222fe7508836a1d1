"""Let planners act in the same episodes at equal simulated steps per control step.

    python benchmarks/duel.py budgets                         # steps per budget, on this machine
    python benchmarks/duel.py tune Hopper-v5 --budget B1      # on seeds from 10000
    python benchmarks/duel.py run Hopper-v5 --budget B1       # on seeds from 0
    python benchmarks/duel.py summary
    python benchmarks/duel.py timing HalfCheetah-v5           # one plan beside pytorch_mppi

All planners get the true model on one backend, the horizon of our preset (or what lets the budget
pay for 16 plans) and the same number of simulated steps. A planner NAME runs with its published
settings, NAME:tuned with the best of those that `tune` tried for that env and budget, shorter
horizons among them. B1 is what two cores simulate in 50 ms, B2 ten times as much; B1/4 is a quarter
of B1, and a number is a number of env steps.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from duel_planners import (
    PLANNERS,
    TUNABLE,
    Settings,
    Task,
    grid,
    make_planner,
    open_task,
    published_settings,
    shorter,
)
from duel_summary import print_summary
from pytorch_mppi_planner import plan_seconds
from records import append, provenance

from mppi_agent.bench import ratio
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import make_dynamics
from mppi_agent.expert import action_scaling

ENVS = (
    "HalfCheetah-v5",
    "Hopper-v5",
    "Walker2d-v5",
    "Ant-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "Swimmer-v5",
    "Reacher-v5",
    "Pusher-v5",
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
    "Pendulum-v1",
    "MountainCarContinuous-v0",
)
FIRST_TUNING_SEED = 10_000
BUDGETS, TUNING = (Path(__file__).with_name(f"duel_{n}.csv") for n in ("budgets", "tuning"))
_B1_CORE_SECONDS = 2 * 0.05


def main() -> None:
    """Run what the command line asks for."""
    args = _parser().parse_args()
    args.command(args)


def run(args: argparse.Namespace) -> None:
    """Act with every planner in the same episodes, one line of CSV each."""
    for env_id in args.envs:
        task = open_task(env_id, budget_steps(args.budget, env_id), args.horizon)
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            for name in args.planners:
                settings = settings_of(name, env_id, args.budget)
                row = episode(task, name, settings, seed, args.steps)
                write(args.out, env_id, name, args.budget, row)
        task.dynamics.close()


def tune(args: argparse.Namespace) -> None:
    """Try the settings of the rivals' grids on seeds that no duel uses, one line of CSV each."""
    for env_id in args.envs:
        task = open_task(env_id, budget_steps(args.budget, env_id), args.horizon)
        for name in args.planners:
            for _, settings in grid(task, [name]):
                _try(task, env_id, name, settings, args)
            best = settings_of(f"{name}:tuned", env_id, args.budget, args.out)
            for settings in shorter(task, best):
                _try(task, env_id, name, settings, args)
        task.dynamics.close()


def _try(task: Task, env_id: str, name: str, settings: Settings, args: argparse.Namespace) -> None:
    for seed in range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + args.seeds):
        row = episode(task, name, settings, seed, args.steps)
        write(args.out, env_id, name, args.budget, row)


def budgets(args: argparse.Namespace) -> None:
    """Measure how many env steps one core simulates, and write the budgets that follow."""
    for env_id in args.envs:
        speed = steps_per_second(env_id, args.rounds)
        row: Settings = {
            "env": env_id,
            "steps_per_cpu_second": round(speed),
            "B1": round(speed * _B1_CORE_SECONDS),
            "B2": round(10 * speed * _B1_CORE_SECONDS),
            "rounds": args.rounds,
        }
        print(row, flush=True)
        append(args.out, {**row, **provenance()})


def timing(args: argparse.Namespace) -> None:
    """Time one plan of ours and of pytorch_mppi side by side, one line of CSV per env."""
    for env_id in args.envs:
        seconds = plan_seconds(env_id, threads=args.threads, rounds=args.rounds)
        row: Settings = {"env": env_id, "num_samples": 64, "horizon": 20, "threads": args.threads}
        for name, values in seconds.items():
            row[f"{name}_ms"] = round(1e3 * float(np.median(values)), 2)
        row["batch_over_ours"] = round(ratio(seconds["batch"], seconds["ours"]), 3)
        row["naive_over_ours"] = round(ratio(seconds["naive"], seconds["ours"]), 3)
        print(row, flush=True)
        append(args.out, {**row, "rounds": args.rounds, **provenance()})


def budget_steps(budget: str, env_id: str, table: Path = BUDGETS) -> int:
    """Return the env steps per control step that a budget stands for.

    Args:
        budget: A number, or B1 or B2, which may be divided as in B1/4.
        env_id: Of the env; B1 and B2 differ between envs.
        table: What `budgets` wrote; its last line for the env counts.

    Raises:
        ValueError: If the budget has another form, or the table does not know the env.
    """
    name, _, divisor = budget.partition("/")
    if name.isdecimal() and not divisor:
        return int(name)
    if name not in ("B1", "B2") or (divisor and not divisor.isdecimal()):
        raise ValueError(f"budget={budget!r} must be B1, B2, B1/4 or the like, or a number")
    measured = [row for row in _rows(table) if row["env"] == env_id]
    if not measured:
        raise ValueError(
            f"{table.name} has no line for {env_id}: python benchmarks/duel.py budgets"
        )
    return int(measured[-1][name]) // int(divisor or 1)


def settings_of(name: str, env_id: str, budget: str, table: Path = TUNING) -> Settings:
    """Return the settings that a planner runs with: published, or the best that were tried.

    Args:
        name: Of the planner, with :tuned for the latter.
        env_id: Of the env.
        budget: As on the command line; only what was tried with the same one counts.
        table: What `tune` wrote.

    Raises:
        ValueError: If nothing was tried.
    """
    base, _, tuned = name.partition(":")
    if not tuned:
        return published_settings(base, env_id)
    tried: dict[str, list[float]] = {}
    for row in _rows(table):
        if (row["env"], row["planner"], row["budget"]) == (env_id, base, budget):
            tried.setdefault(row["settings"], []).append(float(row["return"]))
    if not tried:
        raise ValueError(
            f"{table.name} has nothing for {base} on {env_id} at {budget}: "
            f"python benchmarks/duel.py tune {env_id} --budget {budget}"
        )
    return json.loads(max(tried, key=lambda settings: float(np.mean(tried[settings]))))


def episode(
    task: Task, name: str, settings: Settings, seed: int, max_steps: int | None
) -> dict[str, Any]:
    """Act from a reset seed to the end of the episode, or of `max_steps`; return the figures."""
    env = task.env
    env.reset(seed=seed)
    planner = make_planner(name, task, seed, settings)
    total, length, is_over = 0.0, 0, False
    start = time.process_time()
    while not is_over:
        action = task.scaling.to_env(planner.act(env.snapshot()))
        # Rounded as in the simulations: the env would keep more digits than its space has.
        _, reward, terminated, truncated, _ = env.step(action.astype(env.action_space.dtype))
        total += float(reward)
        length += 1
        is_over = terminated or truncated or length == max_steps
    return {
        "seed": seed,
        "return": f"{total:.6g}",
        "length": length,
        "max_steps": max_steps or "",
        "settings": json.dumps(settings),
        "horizon": settings.get("horizon", task.horizon),
        "budget_steps": task.budget,
        "sim_steps_per_step": round(planner.sim_steps / length),
        "cpu_ms_per_step": round(1e3 * (time.process_time() - start) / length, 2),
    }


def steps_per_second(env_id: str, rounds: int) -> float:
    """Return the env steps per CPU second of one thread, median of `rounds`.

    A round rolls out 64 noisy plans of 40 steps from 8 resets: what falls has fallen by then.
    """
    env = Cloneable(gym.make(env_id))
    env.reset(seed=0)
    dynamics, scaling = make_dynamics(env, num_workers=1), action_scaling(env.action_space)
    rng = np.random.default_rng(0)
    states = dynamics.initial_states(8, rng)
    speeds = []
    for _ in range(rounds + 1):
        noise = rng.standard_normal((8, 8, 40, scaling.action_dims))
        actions = scaling.to_env(np.clip(0.5 * noise, -1.0, 1.0))
        start = time.process_time()
        rollout = dynamics.rollout(states, actions)
        speeds.append(rollout.sim_steps / (time.process_time() - start))
    dynamics.close()
    return float(np.median(speeds[1:]))


def write(path: Path, env_id: str, name: str, budget: str, row: dict[str, Any]) -> None:
    """Print the figures of an episode and add them to a CSV."""
    row = {"env": env_id, "planner": name, "budget": budget, **row}
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    append(path, {**row, **provenance()})


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)

    def command(call: Callable[[argparse.Namespace], None], out: str) -> argparse.ArgumentParser:
        part = commands.add_parser(call.__name__, help=(call.__doc__ or "").splitlines()[0])
        part.set_defaults(command=call)
        part.add_argument("envs", nargs="*", metavar="ENV", default=list(ENVS))
        part.add_argument("--out", type=Path, default=Path(__file__).with_name(out))
        return part

    for call, out, seeds in ((run, "duel.csv", 5), (tune, TUNING.name, 2)):
        acting = command(call, out)
        names = PLANNERS if call is run else TUNABLE
        acting.add_argument("--planners", nargs="+", default=list(names), choices=names)
        acting.add_argument("--budget", default="B1", help="B1, B2, B1/4, or env steps")
        acting.add_argument("--seeds", type=int, default=seeds, help="episodes")
        acting.add_argument("--steps", type=int, help="cut episodes here; default: whole ones")
        acting.add_argument("--horizon", type=int, help="of all; default: our preset's, or less")
        if call is run:
            acting.add_argument("--first-seed", type=int, default=0)
    command(budgets, BUDGETS.name).add_argument("--rounds", type=int, default=9)
    side_by_side = command(timing, "duel_timing.csv")
    side_by_side.add_argument("--rounds", type=int, default=9)
    side_by_side.add_argument("--threads", type=int, default=1)
    summary = commands.add_parser("summary", help="Print ranks, wins and ratios to the winner.")
    summary.set_defaults(command=lambda args: print_summary(_rows(args.csv), args.ours))
    summary.add_argument("csv", nargs="?", type=Path, default=Path(__file__).with_name("duel.csv"))
    summary.add_argument("--ours", default="ours", help="the planner that is to win")
    return parser


if __name__ == "__main__":
    main()
