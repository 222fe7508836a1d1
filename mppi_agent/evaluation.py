"""Measure policies and experts on held-out reset seeds, the same ones for each of them.

policy or expert --evaluate--> Evaluation (one return per seed)
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np

from mppi_agent.dynamics.env_step import DEFAULT_EPISODE_STEPS, time_limit_of
from mppi_agent.dynamics.observations import stack_observations
from mppi_agent.interfaces import Policy

if TYPE_CHECKING:
    from mppi_agent.expert import MPPIAgent

__all__ = [
    "FIRST_HELD_OUT_SEED",
    "CurvePoint",
    "Evaluation",
    "Watcher",
    "evaluate_expert",
    "evaluate_policy",
    "held_out_seeds",
    "limited",
]

FIRST_HELD_OUT_SEED = 100_000  # settings were chosen on others, from 10,000, 20,000 and 50,000 on
_ENVS_AT_ONCE = 25


class Watcher(Protocol):
    """See an expert act."""

    def planned(self, expert: MPPIAgent, seconds: float) -> None:
        """Look at `expert.last_plan`, which took `seconds`, before its action is taken."""
        ...

    def stepped(self, reward: float) -> None:
        """Take note of what the env gave for it."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """Hold what whole episodes from given reset seeds returned.

    Attributes:
        seeds: Reset seed of each episode.
        returns: Undiscounted return of each episode, shape (episodes,).
        lengths: Steps of each episode, shape (episodes,).
        sim_steps: Env steps that planning simulated; 0 for a policy.
        seconds: Wall-clock of the evaluation.
        ess: Mean effective sample size of the plans; None for a policy.
    """

    seeds: tuple[int, ...]
    returns: np.ndarray
    lengths: np.ndarray
    sim_steps: int = 0
    seconds: float = 0.0
    ess: float | None = None

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the returns over episodes."""
        return float(self.returns.std())

    @property
    def min(self) -> float:
        """Return of the worst episode."""
        return float(self.returns.min())

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"mean return {self.mean:.1f} ± {self.std:.1f}, min {self.min:.1f}, "
            f"{len(self.returns)} episodes"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return {
            "mean_return": self.mean,
            "std_return": self.std,
            "min_return": self.min,
            "episodes": len(self.returns),
            "seeds": list(self.seeds),
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
            "sim_steps": self.sim_steps,
            "seconds": self.seconds,
            "ess": self.ess,
        }

    @property
    def ms_per_step(self) -> float:
        """Wall-clock per env step, in milliseconds."""
        return 1e3 * self.seconds / float(self.lengths.sum())


@dataclass(frozen=True)
class CurvePoint:
    """Hold one point of a learning curve.

    Attributes:
        seconds: Since training began.
        mean_return: Of the deterministic policy.
    """

    seconds: float
    mean_return: float


def held_out_seeds(num: int, first: int = FIRST_HELD_OUT_SEED) -> tuple[int, ...]:
    """Return reset seeds that neither training nor the choice of any preset used.

    Args:
        num: Episodes, > 0.
        first: The first of the seeds.
    """
    if num < 1:
        raise ValueError(f"episodes must be > 0, got {num}")
    return tuple(range(first, first + num))


def limited(env: gym.Env) -> gym.Env:
    """Return an env whose episodes end: after 1000 steps, with a warning, where nothing else does.

    In an env without a time limit a policy that goes round in circles never comes to an end.
    """
    return env if time_limit_of(env) is not None else _LastResort(env, DEFAULT_EPISODE_STEPS)


def evaluate_policy(
    policy: Policy,
    env_id: str,
    seeds: Sequence[int],
    *,
    on_episode: Callable[[], None] | None = None,
) -> Evaluation:
    """Run one episode of the deterministic policy from each seed.

    Episodes advance side by side, so that one call of the policy serves many of them.

    Args:
        policy: Anything with the `predict` of Stable-Baselines3.
        env_id: Made anew with `gym.make`, time limit included; without one see `limited`.
        seeds: One reset seed per episode.
        on_episode: Called after every episode, for a progress bar.

    Returns:
        The outcome, in the order of `seeds`.
    """
    started = time.perf_counter()
    envs = [limited(gym.make(env_id)) for _ in range(min(_ENVS_AT_ONCE, len(seeds)))]
    try:
        parts = [
            _run_side_by_side(policy, envs, seeds[first : first + len(envs)], on_episode)
            for first in range(0, len(seeds), len(envs))
        ]
    finally:
        for env in envs:
            env.close()
    return Evaluation(
        seeds=tuple(seeds),
        returns=np.concatenate([returns for returns, _ in parts]),
        lengths=np.concatenate([lengths for _, lengths in parts]),
        seconds=time.perf_counter() - started,
    )


def evaluate_expert(
    expert: MPPIAgent,
    seeds: Sequence[int],
    *,
    max_steps: int | None = None,
    on_step: Callable[[], None] | None = None,
    on_episode: Callable[[], None] | None = None,
    watchers: Sequence[Watcher] = (),
) -> Evaluation:
    """Run one episode of an expert from each seed, in the env that it owns.

    Args:
        expert: Plans at every step.
        seeds: One reset seed per episode.
        max_steps: Cut each episode here; None runs it to its end, or for 1000 steps where the env
            has no time limit.
        on_step: Called after every step, for a progress bar.
        on_episode: Called after every episode, likewise.
        watchers: See every plan and every reward.

    Returns:
        The outcome, in the order of `seeds`, planning cost included.
    """
    started = time.perf_counter()
    env = expert.env
    if max_steps is None and time_limit_of(env) is None:
        max_steps = DEFAULT_EPISODE_STEPS
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=int)
    ess: list[float] = []
    simulated_before = expert.sim_steps
    for episode, seed in enumerate(seeds):
        observation, _ = env.reset(seed=seed)
        state, is_over = None, False
        while not is_over:
            is_first = np.array([lengths[episode] == 0])
            before = time.perf_counter()
            action, state = expert.predict(observation, state, is_first, deterministic=True)
            seconds = time.perf_counter() - before
            for watcher in watchers:
                watcher.planned(expert, seconds)
            observation, reward, terminated, truncated, _ = env.step(action)
            returns[episode] += float(reward)
            lengths[episode] += 1
            if expert.last_plan is not None:
                ess.append(float(expert.last_plan.ess.mean()))
            is_over = terminated or truncated or lengths[episode] == max_steps
            for watcher in watchers:
                watcher.stepped(float(reward))
            if on_step is not None:
                on_step()
        if on_episode is not None:
            on_episode()
    return Evaluation(
        seeds=tuple(seeds),
        returns=returns,
        lengths=lengths,
        sim_steps=expert.sim_steps - simulated_before,
        seconds=time.perf_counter() - started,
        ess=float(np.mean(ess)),
    )


def _run_side_by_side(
    policy: Policy,
    envs: Sequence[gym.Env],
    seeds: Sequence[int],
    on_episode: Callable[[], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return returns and lengths of one episode per seed, shape (len(seeds),) each."""
    observations = [env.reset(seed=int(seed))[0] for env, seed in zip(envs, seeds, strict=False)]
    num = len(observations)
    returns, lengths, is_running = np.zeros(num), np.zeros(num, dtype=int), np.ones(num, dtype=bool)
    state, episode_start = None, np.ones(num, dtype=bool)
    while is_running.any():
        # Finished episodes stay in the batch, so that a recurrent state keeps its shape.
        stacked = stack_observations(observations)
        actions, state = policy.predict(stacked, state, episode_start, True)
        episode_start = np.zeros(num, dtype=bool)
        for index in np.flatnonzero(is_running).tolist():
            step = envs[index].step(actions[index])
            observations[index], reward, terminated, truncated, _ = step
            returns[index] += float(reward)
            lengths[index] += 1
            is_running[index] = not (terminated or truncated)
            if on_episode is not None and not is_running[index]:
                on_episode()
    return returns, lengths


class _LastResort(gym.wrappers.TimeLimit):
    """Cut episodes that have not ended by themselves, and say so."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        steps: Any = (self._elapsed_steps or 0) + 1
        self._elapsed_steps = steps
        if steps >= self._max_episode_steps and not (terminated or truncated):
            truncated = True
            warnings.warn(
                f"{self.unwrapped} has no time limit and did not end, so that its evaluation was "
                f"cut after {self._max_episode_steps} steps; register it with max_episode_steps",
                stacklevel=2,
            )
        return observation, reward, terminated, truncated, info
