"""Start MPPIGPS from nothing, from demonstrations, or with their maker beside the planner.

    python benchmarks/demonstrations.py --seeds 0 1 2 --rounds 40

The env is a cart-pole that is paid only while the pole stands; the demonstrations are ten episodes
of a classic controller. One CSV line per point: real and simulated steps, CPU seconds, and how
often held-out episodes of the deterministic policy end in success. All arms get the same number of
rounds, and so of real steps; what they simulate besides is in the CSV. Evaluations are on top.

- `scratch`: nothing but the planner
- `demonstrations`: `model.learn_from(demonstrations)` first
- `expert_policy`: `MPPIGPS(..., expert_policy=controller)`
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from records import append, provenance
from stable_baselines3.common.callbacks import BaseCallback

from mppi_agent.demonstrations import record, rewards_of
from mppi_agent.evaluation import held_out_seeds
from mppi_agent.gps import MPPIGPS
from mppi_envs.controllers import CartPoleController

ENV = "mppi_envs:mppi_envs/CartPoleSwingUp-v0"
ARMS = ("scratch", "demonstrations", "expert_policy")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--every", type=int, default=10, help="rounds between two points")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demonstrations.csv"))
    args = parser.parse_args()
    for seed in args.seeds:
        for arm in args.arms:
            curve(arm, seed, args)


def curve(arm: str, seed: int, args: argparse.Namespace) -> None:
    """Train once and write a line per point."""
    env = gym.make(ENV)
    controller = CartPoleController(env.unwrapped)  # type: ignore[arg-type]
    started = time.process_time()
    kwargs = {"expert_policy": controller} if arm == "expert_policy" else {}
    model = MPPIGPS("MlpPolicy", ENV, num_simulations=128, seed=seed, device="cpu", **kwargs)
    evaluations = Evaluations(arm, seed, args, started)
    if arm == "demonstrations":
        model.learn_from(record(controller, env, seeds=range(10)), gradient_steps=3000)
        evaluations.write(model, "after learn_from")
    model.learn(args.rounds * model.n_steps, evaluations, log_interval=None)
    evaluations.write(model, "best at the end")


class Evaluations(BaseCallback):
    """Evaluates every so many rounds, and keeps its own time out of the seconds."""

    def __init__(self, arm: str, seed: int, args: argparse.Namespace, started: float) -> None:
        super().__init__()
        self._labels: dict[str, Any] = {"arm": arm, "seed": seed}
        self._args, self._started = args, started
        self._rounds = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self._rounds and self._rounds % self._args.every == 0:
            assert isinstance(self.model, MPPIGPS)
            self.write(self.model, f"round {self._rounds}")
        self._rounds += 1

    def write(self, model: MPPIGPS, point: str) -> None:
        """Evaluate the policy as it is and append a line."""
        seconds = time.process_time() - self._started
        env = gym.make(ENV)
        episodes = record(model, env, held_out_seeds(self._args.episodes))
        row = {
            **self._labels,
            "point": point,
            "env_steps": model.num_timesteps,
            "sim_steps": model.num_sim_steps,
            "cpu_seconds": round(seconds, 1),
            "success": float(np.mean([bool(episode.is_success) for episode in episodes])),
            "mean_return": round(float(np.mean([rewards_of(e).sum() for e in episodes])), 1),
            "episodes": self._args.episodes,
        }
        append(self._args.out, row | provenance())
        print(row, flush=True)
        self._started += time.process_time() - self._started - seconds


if __name__ == "__main__":
    main()
