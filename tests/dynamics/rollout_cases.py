"""Start states and actions that a fast backend and `env.step` are compared on."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.interfaces import EnvState, RolloutBatch


def make(env_id: str, **kwargs: Any) -> Cloneable:
    env = Cloneable(gym.make(env_id, **kwargs))
    env.reset(seed=0)
    return env


def mid_episode(env: Cloneable, num_steps: int, seed: int) -> EnvState:
    """Return a state some steps into an episode, before its end."""
    space = env.action_space
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    state = env.snapshot()
    for _ in range(num_steps):
        action = 0.3 * rng.uniform(space.low, space.high)
        _, _, terminated, _, _ = env.step(action.astype(space.dtype))
        if terminated:
            break
        state = env.snapshot()
    return state


def wild(env: Cloneable, seed: int) -> EnvState:
    """Return a state with speeds beyond what observations show."""
    base = env.unwrapped
    env.reset(seed=seed)
    speeds = 12 * np.random.default_rng(seed).standard_normal(base.model.nv)
    base.set_state(base.init_qpos, speeds)
    return env.snapshot()


def many_actions(
    space: gym.spaces.Box, num_states: int, seed: int = 0, num_steps: int = 60
) -> np.ndarray:
    """Return random, bang-bang, constant, out-of-bounds and zero actions, (S, 6, H, nu)."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(space.low, space.high, (num_states, 6, num_steps, *space.shape))
    drawn[:, 1] = np.where(drawn[:, 1] > 0, space.high, space.low)
    drawn[:, 2] = space.high
    drawn[:, 3] = space.low
    drawn[:, 4] *= 2
    drawn[:, 5] = 0
    return drawn


def assert_agree(one: RolloutBatch, oracle: RolloutBatch, rtol: float, atol: float) -> None:
    for name in ("terminated", "diverged", "lengths"):
        np.testing.assert_array_equal(getattr(one, name), getattr(oracle, name), err_msg=name)
    for name in ("rewards", "observations", "final_observations"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(oracle, name), rtol=rtol, atol=atol, err_msg=name
        )
