"""Episodes as data: recorded from anything with `predict`, kept in files, traded with packages.

    policy + env + reset seeds --record--> [Demonstration] <--save_npz, load_npz--> file

`demonstration_formats` trades them with Minari and `imitation`, `MPPIGPS.learn_from` learns from
them, `bridges.fill_replay_buffer` hands them to SAC and others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mppi_agent.dynamics.env_step import time_limit_of
from mppi_agent.dynamics.observations import join_observations, select_rows, stack_observations
from mppi_agent.interfaces import Observation, Policy

__all__ = [
    "Demonstration",
    "check_demonstrations",
    "load_npz",
    "record",
    "rewards_of",
    "save_npz",
    "success_of",
]

_OPTIONAL = ("rewards", "seed", "is_success")
_SUCCESS_KEYS = ("is_success", "success")  # of Stable-Baselines3, of Gymnasium-Robotics
_TOLERANCE = 1e-6  # of an action's bounds, which may be rounded to float32
_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """Hold one episode of T steps.

    Attributes:
        observations: As the env showed them, shape (T + 1, *obs); the last one is where it ended.
        actions: As the env took them, shape (T, *action).
        terminated: Whether the env ended the episode; if not, its time limit or a reset did.
        rewards: Shape (T,); None where they are not known.
        seed: Of the reset, with which the episode can be repeated; None: not known.
        is_success: What the env said in the last step; None: nothing.

    Raises:
        ValueError: If there is no step, or the lengths do not fit.
    """

    observations: Observation
    actions: np.ndarray
    terminated: bool
    rewards: np.ndarray | None = None
    seed: int | None = None
    is_success: bool | None = None

    def __post_init__(self) -> None:
        num = len(self.actions)
        if num == 0:
            raise ValueError("a demonstration needs at least one action, got none")
        for leaf in _leaves(self.observations):
            if len(leaf) != num + 1:
                raise ValueError(
                    f"{num} actions need {num + 1} observations, got {len(leaf)}: add the one "
                    "that the episode ended with"
                )
        if self.rewards is not None and np.shape(self.rewards) != (num,):
            raise ValueError(
                f"{num} actions need rewards of shape ({num},), got {np.shape(self.rewards)}"
            )

    def __len__(self) -> int:
        """Return the number of steps, T."""
        return len(self.actions)


def record(
    policy: Policy, env: gym.Env, seeds: Iterable[int], *, deterministic: bool = True
) -> list[Demonstration]:
    """Record one episode from each reset seed.

    Args:
        policy: Acts; a planner plans from its own env, so pass that one: `expert.env`.
        env: With a time limit; its observations are arrays, numbers or a flat dict of them.
        seeds: One per episode.
        deterministic: As `predict` takes it; False: with the noise of the policy or planner.

    Raises:
        ValueError: If observations are of another kind, or episodes would not end.
    """
    space = env.observation_space
    leaves = list(space.values()) if isinstance(space, spaces.Dict) else [space]
    if not all(isinstance(leaf, _ARRAYS) for leaf in leaves):
        raise ValueError(
            f"demonstrations hold arrays or flat dicts of them, got {space}; "
            "wrap the env in gymnasium.wrappers.FlattenObservation"
        )
    if time_limit_of(env) is None:
        raise ValueError(f"{env} has no time limit; make it with gym.make, or wrap it in TimeLimit")
    return [_record_episode(policy, env, int(seed), deterministic) for seed in seeds]


def check_demonstrations(
    demonstrations: Sequence[Demonstration],
    observation_space: gym.Space,
    action_space: gym.Space,
) -> None:
    """Refuse demonstrations of another env.

    Args:
        demonstrations: At least one.
        observation_space: Of the env that they are to be used for.
        action_space: Of the same env.

    Raises:
        ValueError: If there are none, a shape differs, or an action lies out of bounds.
    """
    if not demonstrations:
        raise ValueError("there are no demonstrations; record or load at least one episode")
    for index, episode in enumerate(demonstrations):
        wanted, found = _shapes(observation_space), _row_shapes(episode.observations)
        if wanted != found:
            raise ValueError(
                f"demonstration {index} has observations of shape {found}, the env {wanted}: "
                "it was recorded in another env or below other wrappers"
            )
        actions, shape = episode.actions, action_space.shape or ()
        if actions.shape[1:] != shape:
            raise ValueError(
                f"demonstration {index} has actions of shape {actions.shape[1:]}, the env {shape}: "
                "it was recorded in another env or below other wrappers"
            )
        if isinstance(action_space, spaces.Box):
            slack = _TOLERANCE * np.maximum(1.0, np.abs(action_space.high))
            is_in = (actions >= action_space.low - slack) & (actions <= action_space.high + slack)
        else:
            is_in = np.array([action_space.contains(action) for action in actions])
        if not is_in.all():
            raise ValueError(
                f"demonstration {index} has actions outside of {action_space}, the first at step "
                f"{int(np.argwhere(~is_in)[0][0])}; if the env clips them, store clipped ones: "
                "dataclasses.replace(demonstration, actions=np.clip(demonstration.actions, ...))"
            )


def save_npz(path: Path | str, demonstrations: Sequence[Demonstration]) -> None:
    """Write demonstrations as one array per field, episode after episode.

    `lengths`, shape (episodes,), says how many steps each episode has, so that it also tells where
    an episode begins; observations have one row more per episode. The entries of a dict
    observation are called `observations/KEY`. What no episode has (rewards, seed, is_success) is
    left out. Nothing is pickled.

    Raises:
        ValueError: If there are none, or only some of them have rewards, a seed or a success.
    """
    if not demonstrations:
        raise ValueError("there are no demonstrations to save; record at least one episode")
    observations = join_observations([episode.observations for episode in demonstrations], 0)
    columns: dict[str, Any] = (
        {f"observations/{key}": value for key, value in observations.items()}
        if isinstance(observations, dict)
        else {"observations": observations}
    )
    columns["actions"] = np.concatenate([episode.actions for episode in demonstrations])
    columns["lengths"] = np.array([len(episode) for episode in demonstrations])
    columns["terminated"] = np.array([episode.terminated for episode in demonstrations])
    for name in _OPTIONAL:
        values = [getattr(episode, name) for episode in demonstrations]
        missing = sum(value is None for value in values)
        if missing == len(values):
            continue
        if missing:
            raise ValueError(
                f"{missing} of {len(values)} demonstrations have no {name}; save those in a file "
                f"of their own, or leave it out of all: dataclasses.replace(d, {name}=None)"
            )
        columns[name] = np.concatenate(values) if name == "rewards" else np.array(values)
    np.savez_compressed(path, **columns)


def load_npz(path: Path | str) -> list[Demonstration]:
    """Read what `save_npz` wrote.

    Raises:
        ValueError: If the file holds something else.
    """
    with np.load(path) as file:
        columns = {name: file[name] for name in file.files}
    missing = {"actions", "lengths", "terminated"} - columns.keys()
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(sorted(missing))}: it was not written by save_npz; "
            f"it holds {', '.join(sorted(columns)) or 'nothing'}"
        )
    lengths = columns["lengths"]
    observations: Any = columns.get("observations")
    if observations is None:
        prefix = "observations/"
        observations = {k.removeprefix(prefix): v for k, v in columns.items() if prefix in k}
    last_rows, last_steps = np.cumsum(lengths + 1), np.cumsum(lengths)
    return [
        Demonstration(
            observations=select_rows(observations, slice(row - num - 1, row)),
            actions=columns["actions"][step - num : step],
            terminated=bool(columns["terminated"][i]),
            rewards=columns["rewards"][step - num : step] if "rewards" in columns else None,
            seed=int(columns["seed"][i]) if "seed" in columns else None,
            is_success=bool(columns["is_success"][i]) if "is_success" in columns else None,
        )
        for i, (num, row, step) in enumerate(zip(lengths, last_rows, last_steps, strict=True))
    ]


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Return what an env's info of the last step says about success; None: nothing."""
    found = [bool(info[key]) for key in _SUCCESS_KEYS if key in info]
    return found[0] if found else None


def rewards_of(episode: Demonstration) -> np.ndarray:
    """Return the rewards, shape (T,).

    Raises:
        ValueError: If they are not known.
    """
    if episode.rewards is None:
        raise ValueError(
            "a demonstration has no rewards, and they are needed here; repeat it in its env, or "
            "put them in: dataclasses.replace(demonstration, rewards=rewards)"
        )
    return episode.rewards


def _record_episode(policy: Policy, env: gym.Env, seed: int, deterministic: bool) -> Demonstration:
    observation, _ = env.reset(seed=seed)
    observations = [observation]
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    state, is_over = None, False
    while not is_over:
        action, state = policy.predict(observation, state, np.array([not actions]), deterministic)
        action = np.asarray(action)[()]  # a category is a number: tables are indexed by it
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
        is_over = terminated or truncated
    return Demonstration(
        observations=stack_observations(observations),
        actions=np.array(actions),
        terminated=bool(terminated),
        rewards=np.array(rewards),
        seed=seed,
        is_success=success_of(info),
    )


def _leaves(observations: Observation) -> list[np.ndarray]:
    return list(observations.values()) if isinstance(observations, dict) else [observations]


def _row_shapes(observations: Observation) -> Any:
    if isinstance(observations, dict):
        return {key: value.shape[1:] for key, value in observations.items()}
    return observations.shape[1:]


def _shapes(space: gym.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: entry.shape for key, entry in space.items()}
    return space.shape
