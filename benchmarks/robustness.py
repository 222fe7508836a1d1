"""Plan on one model or on many, act on a model that is wrong, and see who copes.

    python benchmarks/robustness.py InvertedDoublePendulum-v5 Hopper-v5

Each planner acts closed loop in each world: the nominal one, those of the ensemble, and some that
no planner knows. All planners draw as many samples, so an ensemble of four models simulates four
times as much. A line of the CSV is one planner in one world.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
from records import append, provenance

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.perturbation import Perturbation, make_ensemble, perturbed_dynamics
from mppi_agent.expert import action_scaling
from mppi_agent.interfaces import Dynamics
from mppi_agent.planning import MPPI, MPPIConfig, shift_nominal

KNOWN = {
    "nominal": Perturbation(),
    "heavy": Perturbation(mass=1.3),
    "weak": Perturbation(gain=0.7),
    "late": Perturbation(delay=1),
}
UNKNOWN = {
    "heavy, weak": Perturbation(mass=1.2, gain=0.8),
    "later": Perturbation(delay=2),
    "slippery": Perturbation(friction=0.6),
}
TAILS = {"mean": 1.0, "worse half": 0.5, "worst": 1e-9}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", metavar="ENV")
    parser.add_argument("--episodes", type=int, default=10, help="side by side")
    parser.add_argument("--steps", type=int, default=200, help="of each episode, at most")
    parser.add_argument("--num-samples", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    for env_id in args.envs:
        env = Cloneable(gym.make(env_id))
        env.reset(seed=0)
        config = replace(MPPIConfig.for_env(env), num_samples=args.num_samples)
        planners: dict[str, Dynamics] = {"nominal": perturbed_dynamics(env, Perturbation())}
        for name, tail in TAILS.items():
            planners[f"ensemble, {name}"] = make_ensemble(
                env, list(KNOWN.values()), tail=tail, discount=config.discount
            )
        for world_name, perturbation in (KNOWN | UNKNOWN).items():
            world = perturbed_dynamics(env, perturbation)
            for name, dynamics in planners.items():
                start = time.perf_counter()
                returns = act(world, dynamics, config, args)
                row: dict[str, object] = {
                    "env": env_id,
                    "planner": name,
                    "world": world_name,
                    "is_known": world_name in KNOWN,
                    "mean": round(float(returns.mean()), 2),
                    "min": round(float(returns.min()), 2),
                    "episodes": args.episodes,
                    "steps": args.steps,
                    "num_samples": args.num_samples,
                    "seed": args.seed,
                    "seconds": round(time.perf_counter() - start, 1),
                }
                print(row, flush=True)
                append(args.out, {**row, **provenance()})
            world.close()
        for dynamics in planners.values():
            dynamics.close()


def act(
    world: Dynamics, dynamics: Dynamics, config: MPPIConfig, args: argparse.Namespace
) -> np.ndarray:
    """Plan on `dynamics` and act in `world`; return undiscounted returns, shape (episodes,)."""
    rng = np.random.default_rng(args.seed)
    scaling = action_scaling(world.action_space)
    planner = MPPI(config, dynamics, scaling)
    simulations = world.simulations(args.episodes)
    simulations.restore(world.initial_states(args.episodes, rng))
    returns = np.zeros(args.episodes)
    running = np.arange(args.episodes)
    nominals = np.zeros((args.episodes, config.horizon, scaling.action_dims))
    for _ in range(args.steps):
        plan = planner.plan(simulations.snapshot(running), nominals[:, None], rng)
        step = simulations.step(scaling.to_env(plan.controls[:, 0]), running)
        returns[running] += np.where(step.diverged, 0.0, step.rewards)
        alive = ~(step.terminated | step.diverged)
        running, nominals = running[alive], shift_nominal(plan.controls)[alive]
        if not running.size:
            break
    simulations.close()
    return returns


if __name__ == "__main__":
    main()
