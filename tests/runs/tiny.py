"""Settings of runs that take a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mppi_agent.runs import RunConfig

MODEL = {
    "num_simulations": 8,
    "simulation_steps": 4,
    "n_steps": 8,
    "batch_size": 32,
    "n_epochs": 1,
    "expert_episodes": 0,
    "eval_episodes": 1,
    "label_states": 1,
    "policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}},
    "device": "cpu",
}
PLANNER = {"num_samples": 8, "horizon": 3, "iterations": 1, "elites": 2}


def config(**changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "env": "Pendulum-v1",
        "eval_freq": 8,
        "eval_episodes": 1,
        "checkpoint_freq": 5,
        "learn.total_timesteps": 24,
        "learn.log_interval": 1,
        **{f"model.{name}": value for name, value in MODEL.items()},
        **{f"planner.{name}": value for name, value in PLANNER.items()},
    }
    return RunConfig.read(None, values | changes)


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(config(**changes).dump())
    return path
