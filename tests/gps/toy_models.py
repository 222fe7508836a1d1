"""Tiny MPPIGPS models, the envs they train in, and a callback that watches them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from toy_envs import make_target

from mppi_agent.cloning import Cloneable
from mppi_agent.gps import MPPIGPS
from mppi_agent.planning import MPPIConfig

TINY = {
    "num_simulations": 16,
    "simulation_steps": 8,
    "n_steps": 8,
    "batch_size": 64,
    "n_epochs": 2,
    "expert_episodes": 1,
    "expert_steps": 10,
    "eval_episodes": 2,
    "label_states": 2,
    "planner": MPPIConfig(num_samples=8, horizon=5, iterations=1, elites=2),
    "policy_kwargs": {"net_arch": {"pi": [16], "vf": [16]}},
    "seed": 0,
    "device": "cpu",
}


def pendulum(limit: int = 20) -> gym.Env:
    return gym.make("Pendulum-v1", max_episode_steps=limit)


def pendulums(num: int = 2, **kwargs: Any) -> Any:
    return make_vec_env(
        "Pendulum-v1",
        num,
        env_kwargs={"max_episode_steps": 20},
        wrapper_class=Cloneable,
        **kwargs,
    )


def make(env: Any = None, policy: str = "MlpPolicy", **kwargs: Any) -> MPPIGPS:
    return MPPIGPS(policy, pendulum() if env is None else env, **TINY | kwargs)


def weights(model: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.policy.state_dict().items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


class Watch(BaseCallback):
    """Counts what SB3 callbacks rely on; stops, or raises, at a call."""

    def __init__(self, stop_at: int | None = None, error: BaseException | None = None) -> None:
        super().__init__()
        self.stop_at, self.error = stop_at, error
        self.events: list[str] = []
        self.actions: list[np.ndarray] = []

    def _on_training_start(self) -> None:
        assert {"total_timesteps", "tb_log_name"} <= set(self.locals)
        self.events.append("training_start")

    def _on_rollout_start(self) -> None:
        self.events.append("rollout_start")

    def _on_rollout_end(self) -> None:
        self.events.append("rollout_end")

    def _on_training_end(self) -> None:
        self.events.append("training_end")

    def _on_step(self) -> bool:
        assert {"new_obs", "rewards", "dones", "infos", "actions"} <= set(self.locals)
        assert len(self.locals["rewards"]) == self.training_env.num_envs
        assert self.model.num_timesteps == self.num_timesteps
        self.actions.append(self.locals["actions"].copy())
        if self.n_calls == self.stop_at:
            if self.error is not None:
                raise self.error
            return False
        return True


def small(env: Any = None, policy: str | type = "MlpPolicy", **kwargs: Any) -> MPPIGPS:
    """Return a model with rounds of four steps, for tests that ask only whether things work."""
    rounds = {"num_simulations": 8, "simulation_steps": 4, "n_steps": 4, "expert_steps": 4}
    return make(make_target(limit=6) if env is None else env, policy, **rounds | kwargs)
