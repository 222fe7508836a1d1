"""Let PPO go on from MPPIGPS's weights, beside PPO from scratch, one CSV line per point.

    python benchmarks/to_ppo.py Walker2d-v5 --model walker.zip --seeds 0 1 2 --steps 30000

Three curves from the same seeds, in real env steps, each point over the same held-out episodes:

- `to_ppo`: `mppi_agent.bridges.to_ppo(model, env)`
- `defaults`: the same weights, all settings those of Stable-Baselines3
- `scratch`: PPO with the settings that rl-baselines3-zoo publishes, from new weights
"""

from __future__ import annotations

import argparse
from pathlib import Path

from records import append, provenance
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from mppi_agent.baselines import make_baseline
from mppi_agent.bridges import to_ppo
from mppi_agent.evaluation import evaluate_policy, held_out_seeds
from mppi_agent.gps import MPPIGPS
from mppi_agent.interfaces import Policy
from mppi_agent.training import NormalizedPolicy

ARMS = ("to_ppo", "defaults", "scratch")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env")
    parser.add_argument("--model", type=Path, required=True, help="saved by MPPIGPS")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("to_ppo.csv"))
    args = parser.parse_args()
    for seed in args.seeds:
        for arm in args.arms:
            for steps, mean in curve(arm, seed, args):
                row = {"env": args.env, "model": args.model.name, "arm": arm, "seed": seed}
                row |= {"steps": steps, "mean": round(mean, 2), "episodes": args.episodes}
                append(args.out, row | provenance())
                print(row, flush=True)


def curve(arm: str, seed: int, args: argparse.Namespace) -> list[tuple[int, float]]:
    """Return env steps and mean return of the deterministic policy, from the start on."""
    ppo = make(arm, seed, args)
    points = []
    for point in range(args.points + 1):
        if point:
            ppo.learn(args.steps // args.points, reset_num_timesteps=point == 1)
        result = evaluate_policy(as_seen(ppo), args.env, held_out_seeds(args.episodes))
        points.append((ppo.num_timesteps, result.mean))
    return points


def make(arm: str, seed: int, args: argparse.Namespace) -> PPO:
    """Return the PPO of a curve, before its first step."""
    if arm == "scratch":
        ppo = make_baseline("ppo", args.env, seed=seed, device="cpu")
        assert isinstance(ppo, PPO)
        return ppo
    model = MPPIGPS.load(args.model, device="cpu")
    if arm == "to_ppo":
        return to_ppo(model, args.env, seed=seed)
    kwargs = model.policy_kwargs
    ppo = PPO("MlpPolicy", args.env, policy_kwargs=kwargs, seed=seed, device="cpu")
    ppo.policy.load_state_dict(model.policy.state_dict())
    return ppo


def as_seen(model: BaseAlgorithm) -> Policy:
    """Return the policy for raw observations."""
    normalizer = model.get_vec_normalize_env()
    return model if normalizer is None else NormalizedPolicy(model, normalizer)


if __name__ == "__main__":
    main()
