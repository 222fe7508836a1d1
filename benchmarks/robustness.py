"""Plan on one model or on many, act on a model that is wrong, and see who copes.

    python benchmarks/robustness.py InvertedDoublePendulum-v5 Hopper-v5 --seeds 0 1 2

Each planner acts closed loop in each world: the nominal one, those of the ensemble, and some that
no planner knows. In the noisy world planners are told positions and velocities with an error. All
planners draw as many samples, so an ensemble of four models simulates four times as much. A line
of the CSV is one planner in one world with one seed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
from records import append, provenance

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.perturbation import Perturbation, make_ensemble, perturbed_dynamics
from mppi_agent.expert import action_scaling
from mppi_agent.interfaces import Dynamics
from mppi_agent.planning import MPPI, MPPIConfig, shift_nominal

SENSOR_NOISE = 0.02  # standard deviation; metres, radians, and these per second
KNOWN = {
    "nominal": Perturbation(),
    "20 % heavier": Perturbation(mass=1.2),
    "20 % lighter": Perturbation(mass=0.8),
    "late by a step": Perturbation(delay=1),
}
UNKNOWN = {
    "20 % weaker": Perturbation(gain=0.8),
    "slippery": Perturbation(friction=0.5),
    "heavier and late": Perturbation(mass=1.2, delay=1),
}
NOISY = "noisy sensors"
TAILS = {"mean": 1.0, "worst": 1e-9}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", metavar="ENV")
    parser.add_argument("--episodes", type=int, default=10, help="side by side")
    parser.add_argument("--steps", type=int, default=200, help="of each episode, at most")
    parser.add_argument("--num-samples", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ensembles", nargs="+", choices=TAILS, default=list(TAILS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    for env_id in args.envs:
        env = Cloneable(gym.make(env_id))
        env.reset(seed=0)
        config = replace(MPPIConfig.for_env(env, role="label"), num_samples=args.num_samples)
        planners: dict[str, Dynamics] = {"nominal": perturbed_dynamics(env, Perturbation())}
        for name in args.ensembles:
            planners[f"ensemble, {name}"] = make_ensemble(
                env, list(KNOWN.values()), tail=TAILS[name], discount=config.discount
            )
        for world_name, perturbation in {**KNOWN, **UNKNOWN, NOISY: Perturbation()}.items():
            world = perturbed_dynamics(env, perturbation)
            noise = sensor_noise(env) if world_name == NOISY else 0.0
            for (name, dynamics), seed in product(planners.items(), args.seeds):
                start = time.perf_counter()
                rng = np.random.default_rng(seed)
                returns = act(world, dynamics, config, rng, args.episodes, args.steps, noise)
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
                    "seed": seed,
                    "seconds": round(time.perf_counter() - start, 1),
                }
                print(row, flush=True)
                append(args.out, {**row, **provenance()})
            world.close()
        for dynamics in planners.values():
            dynamics.close()


def act(
    world: Dynamics,
    dynamics: Dynamics,
    config: MPPIConfig,
    rng: np.random.Generator,
    episodes: int,
    steps: int,
    noise_std: np.ndarray | float,
) -> np.ndarray:
    """Plan on `dynamics` and act in `world`.

    Args:
        world: Where the actions are taken.
        dynamics: What plans are made on.
        config: Of the planner.
        rng: Draws starts, samples and sensor noise.
        episodes: Side by side.
        steps: Of each, at most.
        noise_std: Error of what the planner takes for the simulator state, shape (n,).

    Returns:
        Undiscounted returns, shape (episodes,).
    """
    scaling = action_scaling(world.action_space)
    planner = MPPI(config, dynamics, scaling)
    simulations = world.simulations(episodes)
    simulations.restore(world.initial_states(episodes, rng))
    returns = np.zeros(episodes)
    running = np.arange(episodes)
    nominals = np.zeros((episodes, config.horizon, scaling.action_dims))
    for _ in range(steps):
        seen = [
            replace(
                state, physics=state.physics + noise_std * rng.standard_normal(len(state.physics))
            )
            for state in simulations.snapshot(running)
        ]
        plan = planner.plan(seen, nominals[:, None], rng)
        step = simulations.step(scaling.to_env(plan.controls[:, 0]), running)
        returns[running] += np.where(step.diverged, 0.0, step.rewards)
        alive = ~(step.terminated | step.diverged)
        running, nominals = running[alive], shift_nominal(plan.controls)[alive]
        if not running.size:
            break
    simulations.close()
    return returns


def sensor_noise(env: Cloneable) -> np.ndarray:
    """Return the error of each number of the simulator state: positions and velocities only."""
    model = env.unwrapped.model
    std = np.zeros(len(env.snapshot().physics))
    first = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_TIME)
    std[first : first + model.nq + model.nv] = SENSOR_NOISE
    return std


if __name__ == "__main__":
    main()
