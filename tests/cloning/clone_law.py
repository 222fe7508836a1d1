"""The clone law as an assertion, for the tests of envs and of wrappers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import Cloneable, pack, unpack


def act(env: gym.Env, actions: list[Any]) -> list[Any]:
    """Step through `actions`, resetting after an end; return all that the env said."""
    said = []
    for action in actions:
        outcome = env.step(action)
        said.append(copy.deepcopy(outcome))
        if outcome[2] or outcome[3]:
            said.append(copy.deepcopy(env.reset()))
    return said


def sample_actions(env: gym.Env, num: int, seed: int = 0) -> list[Any]:
    space = copy.deepcopy(env.action_space)
    space.seed(seed)
    return [space.sample() for _ in range(num)]


def assert_law(env: gym.Env, num: int = 12, warm_up: int = 7) -> Cloneable:
    """Replay on the env, on a copy made before, and on one that did other things meanwhile."""
    cloneable = env if isinstance(env, Cloneable) else Cloneable(env)
    cloneable.reset(seed=3)
    early = cloneable.private_copy()
    act(cloneable, sample_actions(cloneable, warm_up, seed=1))
    state = cloneable.snapshot()
    actions = sample_actions(cloneable, num)
    expected = act(cloneable, actions)
    early.reset(seed=9)
    act(early, sample_actions(cloneable, 5, seed=2))
    for target in (cloneable, early, unpack(pack(cloneable))):
        for _ in range(2):
            target.restore(pickle.loads(pickle.dumps(state)))
            np.testing.assert_equal(target.last_observation, state.observation)
            np.testing.assert_equal(act(target, actions), expected)
    return cloneable
