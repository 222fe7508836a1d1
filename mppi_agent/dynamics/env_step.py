"""Simulate by stepping private copies of the env in this process: slow, general, plainly right.

Every other backend is tested against this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.cloning.wrappers import layers_of
from mppi_agent.dynamics.observations import finite_rows, reshape_leading, stack_observations
from mppi_agent.dynamics.rollout import reshape_batch, validate_actions, validate_rollout
from mppi_agent.interfaces import EnvState, Observation, RolloutBatch, StepBatch

__all__ = [
    "DEFAULT_EPISODE_STEPS",
    "EnvStepDynamics",
    "EnvStepSimulations",
    "env_actions",
    "rollout_samples",
    "time_limit_of",
]

DEFAULT_EPISODE_STEPS = 1000  # where nothing else ends an episode


class EnvStepDynamics:
    """Simulate an env by its own `step`, on private copies, one after the other."""

    def __init__(self, cloneable: Cloneable) -> None:
        """Take a private copy; `cloneable` itself is only read."""
        self.observation_space = cloneable.observation_space
        self.action_space = cloneable.action_space
        self._prototype = cloneable.private_copy()
        self.max_episode_steps = _limit_in_steps_of(self._prototype)

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution."""
        states = []
        for seed in rng.integers(2**31, size=num):
            self._prototype.reset(seed=int(seed))
            states.append(self._prototype.snapshot())
        return states

    def simulations(self, num: int) -> EnvStepSimulations:
        """Return `num` private copies for closed-loop use."""
        return EnvStepSimulations(self._prototype, num)

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out open loop, sample by sample; see `Dynamics.rollout`."""
        actions = validate_rollout(states, actions, self.action_space)
        shape = actions.shape[:2]
        owners = np.repeat(np.arange(shape[0]), shape[1])
        flat = actions.reshape(-1, *actions.shape[2:])  # (S * K, H, *action)
        samples = rollout_samples(
            self._prototype, states, owners, flat, keep_observations=keep_observations
        )
        return reshape_batch(samples, shape)

    def close(self) -> None:
        """Close the private copy."""
        self._prototype.close()


class EnvStepSimulations:
    """Step N private copies of an env in a plain loop."""

    def __init__(self, prototype: Cloneable, num: int) -> None:
        """Make `num` copies of `prototype`."""
        self.num = num
        self._action_space = prototype.action_space
        self._copies = [prototype.private_copy() for _ in range(num)]

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        copies = self._select(indices)
        if len(states) != len(copies):
            raise ValueError(f"{len(copies)} simulations need as many states, got {len(states)}")
        for copy, state in zip(copies, states, strict=True):
            copy.restore(state)

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        copies = self._select(indices)
        rows = env_actions(validate_actions(actions, self._action_space, 1, num=len(copies)))
        outcomes = [copy.step(row) for copy, row in zip(copies, rows, strict=True)]
        # Not what the steps returned: copies may write into one and the same array.
        observations = stack_observations([copy.last_observation for copy in copies])
        rewards = np.array([outcome[1] for outcome in outcomes], dtype=np.float64)
        broken = np.array([copy.has_diverged() for copy in copies])
        diverged = broken | ~np.isfinite(rewards) | ~finite_rows(observations)
        terminated = np.array([bool(outcome[2]) for outcome in outcomes]) & ~diverged
        truncated = [
            outcome[3] and _is_own_cut(copy) for copy, outcome in zip(copies, outcomes, strict=True)
        ]
        return StepBatch(
            observations, rewards, terminated, np.array(truncated, dtype=bool), diverged
        )

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        return [copy.snapshot() for copy in self._select(indices)]

    def close(self) -> None:
        """Close the copies."""
        for copy in self._copies:
            copy.close()
        self._copies = []

    def _select(self, indices: np.ndarray | None) -> list[Cloneable]:
        if len(self._copies) != self.num:
            raise RuntimeError("these simulations are closed; ask for new ones with simulations()")
        return self._copies if indices is None else [self._copies[i] for i in indices]


def rollout_samples(
    env: Cloneable,
    states: Sequence[EnvState],
    owners: np.ndarray,
    actions: np.ndarray,
    *,
    keep_observations: bool,
) -> RolloutBatch:
    """Roll out n samples on one env, one after the other.

    Args:
        env: A private copy; it is left in the state of the last step.
        states: Start states.
        owners: Which of `states` each sample starts from, shape (n,).
        actions: Validated, shape (n, H, *action).
        keep_observations: Whether to fill `RolloutBatch.observations`.

    Returns:
        The outcome, with S = 1 and K = n.
    """
    num, horizon = actions.shape[:2]
    rewards = np.zeros((num, horizon))
    terminated, diverged = np.zeros(num, dtype=bool), np.zeros(num, dtype=bool)
    lengths = np.full(num, horizon)
    kept: list[list[Observation]] = []
    for sample in range(num):
        state = states[owners[sample]]
        env.restore(state)
        observation, seen = state.observation, []
        for step, action in enumerate(env_actions(actions[sample])):
            _, reward, ended, truncated, _ = env.step(action)
            if env.has_diverged() or not _is_finite(reward, env.last_observation):
                diverged[sample] = True
            else:
                observation = env.last_observation
                rewards[sample, step] = reward
                terminated[sample] = ended
            seen.append(observation)
            if diverged[sample] or terminated[sample] or (truncated and _is_own_cut(env)):
                lengths[sample] = step + 1
                break
        # After the end the last observation is repeated.
        seen += [observation] * (horizon - len(seen))
        kept.append(seen if keep_observations else seen[-1:])
    final = stack_observations([seen[-1] for seen in kept])
    stacked = [stack_observations(seen) for seen in kept] if keep_observations else None
    return RolloutBatch(
        rewards=rewards[None],
        terminated=terminated[None],
        diverged=diverged[None],
        lengths=lengths[None],
        final_observations=reshape_leading(final, 0, (1,)),
        sim_steps=int(lengths.sum()),
        observations=(
            None if stacked is None else reshape_leading(stack_observations(stacked), 0, (1,))
        ),
    )


def env_actions(actions: np.ndarray) -> list[Any]:
    """Return a row per step as `env.step` wants it; an env may keep or change it."""
    if actions.ndim > 1:
        return list(actions.copy())
    return [int(a) if actions.dtype.kind in "iu" else np.array(a) for a in actions]


def time_limit_of(env: gym.Env) -> int | None:
    """Return after how many steps a TimeLimit truncates, by its own count; None without one."""
    return min((limit._max_episode_steps for limit in _time_limits(env)), default=None)


def _limit_in_steps_of(copy: Cloneable) -> int | None:
    """Return the same by the count of the outermost wrapper, which may repeat each step.

    Args:
        copy: A private one, which stays as it was.
    """
    limits = _time_limits(copy)
    if not limits or (len(limits) == 1 and copy.env is limits[0]):
        return time_limit_of(copy)
    with copy.left_as_found():
        copy.reset(seed=0)
        space = deepcopy(copy.action_space)
        space.seed(0)
        at_start = _elapsed(limits)  # some resets take steps
        copy.step(space.sample())
        each = np.maximum(_elapsed(limits) - at_start, 1)
    left = np.array([limit._max_episode_steps for limit in limits]) - at_start
    return max(1, int(np.ceil(left / each).min()))


def _elapsed(limits: Sequence[gym.wrappers.TimeLimit]) -> np.ndarray:
    return np.array([limit._elapsed_steps or 0 for limit in limits])


def _time_limits(env: gym.Env) -> list[gym.wrappers.TimeLimit]:
    return [layer for layer in layers_of(env) if isinstance(layer, gym.wrappers.TimeLimit)]


def _is_own_cut(env: gym.Env) -> bool:
    """Return whether a step that was truncated was so by the env itself, not by a TimeLimit."""
    return all(
        limit._elapsed_steps is None or limit._elapsed_steps < limit._max_episode_steps
        for limit in _time_limits(env)
    )


def _is_finite(reward: Any, observation: Observation) -> bool:
    if isinstance(observation, dict):
        return all(_is_finite(reward, value) for value in observation.values())
    return math.isfinite(reward) and (
        observation.dtype.kind not in "fc" or bool(np.isfinite(observation).all())
    )
