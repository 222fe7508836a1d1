"""Measure how rollouts on worker processes gain from a second worker.

    python benchmarks/process_pool.py Ant-v5 Humanoid-v5 CartPole-v1

Rounds with one and with two workers alternate in one process; medians go to a CSV. The gain needs
as many idle cores as there are workers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from records import append, provenance

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import ProcessPoolDynamics


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", metavar="ENV")
    parser.add_argument("--workers", type=int, default=2, help="to compare with one")
    parser.add_argument("--num-samples", type=int, default=64)
    parser.add_argument("--horizon", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    for env_id in args.envs:
        row = {"env": env_id, **measure(env_id, args)}
        print(row, flush=True)
        append(args.out, {**row, **provenance()})


def measure(env_id: str, args: argparse.Namespace) -> dict[str, object]:
    """Time the same rollouts with one worker and with more, by turns."""
    env = Cloneable(gym.make(env_id))
    env.reset(seed=0)
    states = [env.snapshot()]
    shape = (1, args.num_samples, args.horizon)
    env.action_space.seed(0)
    actions = np.array([env.action_space.sample() for _ in range(args.num_samples * args.horizon)])
    actions = actions.reshape(*shape, *env.action_space.shape)
    seconds: dict[int, list[float]] = {1: [], args.workers: []}
    pools = {num: ProcessPoolDynamics(env, num) for num in seconds}
    for pool in pools.values():
        sim_steps = pool.rollout(states, actions).sim_steps  # warm-up
    for _ in range(args.rounds):
        for num, pool in pools.items():
            start = time.perf_counter()
            pool.rollout(states, actions)
            seconds[num].append(time.perf_counter() - start)
    for pool in pools.values():
        pool.close()
    alone, together = seconds[1], seconds[args.workers]
    return {
        "workers": args.workers,
        "num_samples": args.num_samples,
        "horizon": args.horizon,
        "sim_steps": sim_steps,
        "ms_with_one": round(1e3 * statistics.median(alone), 2),
        "ms_with_all": round(1e3 * statistics.median(together), 2),
        "gain": round(statistics.median(a / b for a, b in zip(alone, together, strict=True)), 3),
        "rounds": args.rounds,
    }


if __name__ == "__main__":
    main()
