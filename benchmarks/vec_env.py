"""Measure BatchVecEnv: env steps per second, and PPO on it beside PPO on the ordinary env.

    python benchmarks/vec_env.py speed HalfCheetah-v5 Hopper-v5 Pendulum-v1
    python benchmarks/vec_env.py train HalfCheetah-v5 --minutes 10 --seeds 0 1 2

`speed` alternates rounds of BatchVecEnv and of SubprocVecEnv in one process and reports medians.
`train` evaluates the policies of both PPOs on the same held-out episodes of the ordinary env.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from records import append, provenance
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from mppi_agent import BatchVecEnv
from mppi_agent.evaluation import evaluate_policy, held_out_seeds
from mppi_agent.gps.callbacks import WallClockBudget
from mppi_agent.interfaces import Policy
from mppi_agent.training import NormalizedPolicy, train_for

HERE = Path(__file__).parent
UNLIMITED_STEPS = 10**12


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    speed = commands.add_parser("speed", help="env steps per second beside SubprocVecEnv")
    speed.add_argument("--workers", type=int, default=2, help="processes of SubprocVecEnv")
    speed.add_argument("--rounds", type=int, default=9)
    speed.add_argument("--seconds", type=float, default=1.0, help="of each round and side")
    speed.set_defaults(run=measure_speed, out=HERE / "vec_env_speed.csv")
    train = commands.add_parser("train", help="PPO on it beside PPO on the ordinary env")
    train.add_argument("--minutes", type=float, required=True)
    train.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    train.add_argument("--episodes", type=int, default=100)
    train.set_defaults(run=measure_training, out=HERE / "vec_env_ppo.csv")
    for command in (speed, train):
        command.add_argument("envs", nargs="+", metavar="ENV")
        command.add_argument("--n-envs", type=int, default=256, help="simulations of BatchVecEnv")
        command.add_argument("--out", type=Path)
    args = parser.parse_args()
    for env_id in args.envs:
        args.run(env_id, args)


def measure_speed(env_id: str, args: argparse.Namespace) -> None:
    """Step both kinds of VecEnv with random actions, by turns."""
    batch = BatchVecEnv(env_id, args.n_envs, seed=0)
    subproc = make_vec_env(env_id, args.workers, seed=0, vec_env_cls=SubprocVecEnv)
    sides: list[tuple[VecEnv, list[float]]] = [(batch, []), (subproc, [])]
    rng = np.random.default_rng(0)
    for env, _ in sides:
        env.reset()
        steps_per_second(env, rng, args.seconds)  # warm-up
    for _ in range(args.rounds):
        for env, speeds in sides:
            speeds.append(steps_per_second(env, rng, args.seconds))
    for env, _ in sides:
        env.close()
    ours, theirs = ([round(speed) for speed in speeds] for _, speeds in sides)
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    row: dict[str, object] = {
        "env": env_id,
        "n_envs": args.n_envs,
        "subproc_workers": args.workers,
        "rounds": args.rounds,
        "batch_steps_per_s": statistics.median(ours),
        "subproc_steps_per_s": statistics.median(theirs),
        "ratio": round(statistics.median(ratios), 2),
        "lowest_ratio": round(min(ratios), 2),
        "highest_ratio": round(max(ratios), 2),
    }
    report(args.out, row)


def steps_per_second(env: VecEnv, rng: np.random.Generator, seconds: float) -> float:
    """Return env steps per second, over all the envs of a VecEnv."""
    low, high = env.action_space.low, env.action_space.high
    actions = rng.uniform(low, high, (50, env.num_envs, *low.shape)).astype(np.float32)
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for action in actions:
            env.step(action)
        steps += len(actions)
    return steps * env.num_envs / (time.perf_counter() - start)


def measure_training(env_id: str, args: argparse.Namespace) -> None:
    """Train both PPOs for the same wall-clock and evaluate them on the same episodes."""
    sides: dict[str, Callable[[int], tuple[Policy, int, float]]] = {
        "ppo_batch": lambda seed: train_on_batch(env_id, args.n_envs, 60 * args.minutes, seed),
        "ppo": lambda seed: train_on_env(env_id, 60 * args.minutes, seed),
    }
    for seed in args.seeds:
        for name, train in sides.items():
            policy, steps, seconds = train(seed)
            result = evaluate_policy(policy, env_id, held_out_seeds(args.episodes))
            row: dict[str, object] = {
                "env": env_id,
                "algo": name,
                "seed": seed,
                "minutes": args.minutes,
                "seconds": round(seconds, 1),
                "env_steps": steps,
                "mean": round(result.mean, 2),
                "std": round(result.std, 2),
                "min": round(result.min, 2),
                "episodes": args.episodes,
            }
            report(args.out, row)


def train_on_batch(
    env_id: str, n_envs: int, seconds: float, seed: int
) -> tuple[Policy, int, float]:
    """Train PPO on BatchVecEnv; return its policy, env steps and wall-clock."""
    start = time.perf_counter()
    env = VecNormalize(BatchVecEnv(env_id, n_envs, seed=seed), gamma=0.99)
    # SB3's own settings, but for short rollouts and large minibatches: N is large here.
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=32,
        batch_size=1024,
        n_epochs=5,
        policy_kwargs={"net_arch": [128, 128]},
        seed=seed,
        device="cpu",
    )
    budget = WallClockBudget(seconds - (time.perf_counter() - start))
    model.learn(UNLIMITED_STEPS, callback=budget)
    spent = time.perf_counter() - start
    env.close()
    return NormalizedPolicy(model, env), model.num_timesteps, spent


def train_on_env(env_id: str, seconds: float, seed: int) -> tuple[Policy, int, float]:
    """Train PPO with the published settings; return its policy, env steps and wall-clock."""
    run = train_for("ppo", env_id, seconds, seed=seed, device="cpu")
    return run.policy, run.env_steps, run.seconds


def report(path: Path, row: dict[str, object]) -> None:
    """Print a line and add it to the CSV."""
    print(row, flush=True)
    append(path, {**row, **provenance()})


if __name__ == "__main__":
    main()
