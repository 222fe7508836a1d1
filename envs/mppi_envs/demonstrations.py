"""Record whole episodes of anything that has `predict`: a planner, a controller or a policy.

controller + env + reset seeds --record--> [Demonstration] --save_npz, save_minari--> file
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

__all__ = ["Controller", "Demonstration", "load_npz", "record", "save_minari", "save_npz"]


class Controller(Protocol):
    """Act as a Stable-Baselines3 model does."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Return the action and what to hand in as `state` next time."""
        ...


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """Hold one episode of T steps.

    Attributes:
        seed: Of the reset.
        observations: Shape (T + 1, *obs); the last one is where the episode ended.
        actions: As the env took them, shape (T, *action).
        rewards: Shape (T,).
        terminated: Whether the env ended the episode; if not, its time limit did.
        is_success: Of the last step.
    """

    seed: int
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    is_success: bool


def record(controller: Controller, env: gym.Env, seeds: Sequence[int]) -> list[Demonstration]:
    """Record one episode from each reset seed.

    Args:
        controller: Acts; a planner plans from its own env, so pass that one: `expert.env`.
        env: With a time limit and array observations.
        seeds: One per episode.

    Raises:
        ValueError: If observations are no arrays, or episodes would not end.
    """
    if not isinstance(env.observation_space, gym.spaces.Box):
        raise ValueError(
            f"demonstrations hold array observations, got {env.observation_space}; "
            "wrap the env in gymnasium.wrappers.FlattenObservation"
        )
    if env.spec is None or env.spec.max_episode_steps is None:
        raise ValueError(f"{env} has no time limit; make it with gym.make, or wrap it in TimeLimit")
    return [_record_episode(controller, env, seed) for seed in seeds]


def save_npz(path: Path | str, demonstrations: Sequence[Demonstration]) -> None:
    """Write demonstrations as one array per field, episode after episode.

    `lengths`, shape (episodes,), says how many steps each episode has, so that it also tells where
    an episode begins; observations have one row more per episode.

    Raises:
        ValueError: If there are none.
    """
    _require_some(demonstrations)
    columns: dict[str, Any] = {
        field.name: [getattr(episode, field.name) for episode in demonstrations]
        for field in fields(Demonstration)
    }
    for name in ("observations", "actions", "rewards"):
        columns[name] = np.concatenate(columns[name])
    np.savez_compressed(path, lengths=[len(e.rewards) for e in demonstrations], **columns)


def load_npz(path: Path | str) -> list[Demonstration]:
    """Read what `save_npz` wrote."""
    with np.load(path) as file:
        ends = np.cumsum(file["lengths"])
        rows = np.cumsum(file["lengths"] + 1)
        return [
            Demonstration(
                seed=int(seed),
                observations=observations,
                actions=actions,
                rewards=rewards,
                terminated=bool(terminated),
                is_success=bool(is_success),
            )
            for seed, observations, actions, rewards, terminated, is_success in zip(
                file["seed"],
                np.split(file["observations"], rows[:-1]),
                np.split(file["actions"], ends[:-1]),
                np.split(file["rewards"], ends[:-1]),
                file["terminated"],
                file["is_success"],
                strict=True,
            )
        ]


def save_minari(
    dataset_id: str, demonstrations: Sequence[Demonstration], env: gym.Env, **metadata: Any
) -> Any:
    """Create a Minari dataset in its local store.

    Args:
        dataset_id: As Minari wants it, such as "cart-pole/scripted-v0".
        demonstrations: At least one.
        env: Where they come from.
        metadata: Passed on to Minari: `author`, `description`, `algorithm_name` and the like.

    Returns:
        The `minari.MinariDataset`.

    Raises:
        ImportError: If Minari is not installed.
        ValueError: If there are no demonstrations.
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError as error:
        raise ImportError("Minari datasets need the package: pip install 'minari[hdf5]'") from error
    _require_some(demonstrations)
    buffers: list[Any] = []
    for episode in demonstrations:
        ends = np.zeros((2, len(episode.rewards)), dtype=bool)
        ends[0, -1], ends[1, -1] = episode.terminated, not episode.terminated
        buffers.append(
            EpisodeBuffer(
                id=len(buffers),
                seed=episode.seed,
                observations=episode.observations,
                actions=episode.actions,
                rewards=list(episode.rewards),
                terminations=list(ends[0]),
                truncations=list(ends[1]),
            )
        )
    return minari.create_dataset_from_buffers(dataset_id, buffers, env=env, **metadata)


def _record_episode(controller: Controller, env: gym.Env, seed: int) -> Demonstration:
    observation, _ = env.reset(seed=int(seed))
    observations = [observation]
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    state, is_over = None, False
    while not is_over:
        action, state = controller.predict(observation, state, np.array([not actions]), True)
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
        is_over = terminated or truncated
    return Demonstration(
        seed=int(seed),
        observations=np.array(observations),
        actions=np.array(actions),
        rewards=np.array(rewards),
        terminated=bool(terminated),
        is_success=bool(info.get("is_success", False)),
    )


def _require_some(demonstrations: Sequence[Demonstration]) -> None:
    if not demonstrations:
        raise ValueError("there are no demonstrations to save; record at least one episode")
