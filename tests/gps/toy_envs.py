"""A tiny env with a vector task, and ways to look at what a policy makes of it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import VectorDynamics
from mppi_agent.gps.policies import MlpPolicy, default_policy_kwargs
from mppi_agent.gps.view import PolicyView


class TargetTask:
    """x' = 0.9 x + 0.1 a, paid for an action near the target.

    The episode ends where x' > end_at; an action beyond `break_at` breaks the physics.
    """

    def __init__(self, target: float, offset: float, end_at: float, break_at: float) -> None:
        self.target, self.offset, self.end_at, self.break_at = target, offset, end_at, break_at

    def step(self, physics, actions):
        a = actions.astype(np.float64)
        x = 0.9 * physics + 0.1 * a
        broken = a[:, 0] > self.break_at
        x[broken] = np.nan
        rewards = self.offset - np.square(a[:, 0] - self.target)
        with np.errstate(invalid="ignore"):
            return x, see(x), rewards, x[:, 0] > self.end_at


def see(x: np.ndarray) -> np.ndarray:
    """Return the observations of states, shape (N, 2)."""
    return np.concatenate([x, np.ones_like(x)], axis=1).astype(np.float32)


class Target(gym.Env):
    """The env of `TargetTask`; the bounds are not symmetric, so that scaling matters."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32)
    action_space = spaces.Box(-1.0, 3.0, (1,), dtype=np.float32)

    def __init__(
        self,
        target: float = 1.5,
        offset: float = 0.0,
        end_at: float = np.inf,
        break_at: float = np.inf,
    ) -> None:
        self.task = TargetTask(target, offset, end_at, break_at)
        self.x = np.zeros(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-0.1, 0.1, 1)
        return see(self.x[None])[0], {}

    def step(self, action):
        x, seen, rewards, terminated = self.task.step(self.x[None], np.asarray(action)[None])
        self.x = x[0]
        return seen[0], float(rewards[0]), bool(terminated[0]), False, {}

    def get_state(self):
        return self.x.copy()

    def set_state(self, state):
        self.x = state

    def vector_task(self):
        return self.task


class TargetOf(gym.Wrapper):
    """`Target` with other spaces; observations and actions are converted."""

    def __init__(self, observation_space=None, action_space=None, see=None) -> None:
        super().__init__(gym.wrappers.TimeLimit(Target(), 6))
        self.observation_space = observation_space or self.env.observation_space
        self.action_space = action_space or self.env.action_space
        self.see = see or (lambda seen: seen.astype(self.observation_space.dtype))

    def reset(self, **kwargs):
        seen, info = self.env.reset(**kwargs)
        return self.see(seen), info

    def step(self, action):
        assert self.action_space.contains(action)
        scalar = np.asarray(action, dtype=np.float32).mean(keepdims=True).ravel()
        seen, *rest = self.env.step(scalar)
        return self.see(seen), *rest


class CutsItself(gym.Wrapper):
    """Cuts its own episodes, without a TimeLimit, and must be reset then."""

    def __init__(self, env: gym.Env, limit: int = 5) -> None:
        super().__init__(env)
        self.limit, self.num_steps = limit, 0

    def reset(self, **kwargs):
        self.num_steps = 0
        return self.env.reset(**kwargs)

    def step(self, action):
        if self.num_steps >= self.limit:
            raise RuntimeError("the episode is over")
        self.num_steps += 1
        seen, reward, terminated, _, info = self.env.step(action)
        return seen, reward, terminated, self.num_steps >= self.limit, info


def make_target(limit: int = 10, **kwargs: Any) -> Cloneable:
    env = Cloneable(gym.wrappers.TimeLimit(Target(**kwargs), limit))
    env.reset(seed=0)
    return env


def target_dynamics(limit: int = 10, **kwargs: Any) -> VectorDynamics:
    return VectorDynamics(make_target(limit, **kwargs))


def make_policy(
    observation_space: gym.Space | None = None,
    action_space: gym.Space | None = None,
    *,
    learning_rate: float = 1e-2,
    net_arch: dict[str, list[int]] | None = None,
) -> ActorCriticPolicy:
    """Return a small policy of the default kind, for `Target` unless told otherwise."""
    policy = MlpPolicy(
        observation_space or Target.observation_space,
        action_space or Target.action_space,
        lambda _: learning_rate,
        **default_policy_kwargs(MlpPolicy) | {"net_arch": net_arch or {"pi": [16], "vf": [16]}},
    )
    policy.set_training_mode(False)
    return policy


def plain_view(action_space: gym.Space | None = None) -> PolicyView:
    return PolicyView(None, action_space or Target.action_space)
