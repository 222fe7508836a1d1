"""Demonstrations as other packages keep them: Minari datasets, `imitation` trajectories.

Both packages are optional and imported only by the function that needs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.demonstrations import Demonstration, rewards_of, success_of

__all__ = ["from_imitation", "load_minari", "save_minari", "to_imitation"]


def save_minari(
    dataset_id: str, demonstrations: Sequence[Demonstration], env: gym.Env, **metadata: Any
) -> Any:
    """Create a Minari dataset in its local store.

    Args:
        dataset_id: As Minari wants it, such as "cart-pole/scripted-v0".
        demonstrations: At least one; all have rewards.
        env: Where they come from.
        metadata: Passed on to Minari: `author`, `description`, `algorithm_name` and the like.

    Returns:
        The `minari.MinariDataset`.

    Raises:
        ImportError: If Minari is not installed.
        ValueError: If there are no demonstrations, or one has no rewards.
    """
    minari = _import_minari()
    from minari.data_collector import EpisodeBuffer

    if not demonstrations:
        raise ValueError("there are no demonstrations to save; record at least one episode")
    buffers: list[Any] = []
    for episode in demonstrations:
        infos = None
        if episode.is_success is not None:
            # One info more than steps: that of the reset comes first.
            infos = {"is_success": np.array([False] * len(episode) + [episode.is_success])}
        buffers.append(
            EpisodeBuffer(
                id=len(buffers),
                seed=episode.seed,
                observations=episode.observations,
                actions=episode.actions,
                rewards=list(rewards_of(episode)),
                terminations=_only_last(len(episode), episode.terminated),
                truncations=_only_last(len(episode), not episode.terminated),
                infos=infos,
            )
        )
    return minari.create_dataset_from_buffers(dataset_id, buffers, env=env, **metadata)


def load_minari(dataset: Any) -> list[Demonstration]:
    """Read a Minari dataset.

    Args:
        dataset: Id of a dataset in the local store, or a `minari.MinariDataset`, such as one that
            `filter_episodes` returned.

    Raises:
        ImportError: If Minari is not installed.
    """
    minari = _import_minari()
    if isinstance(dataset, str):
        dataset = minari.load_dataset(dataset)
    metadata = dataset.storage.get_episode_metadata(dataset.episode_indices)
    return [
        Demonstration(
            observations=episode.observations,
            actions=np.asarray(episode.actions),
            terminated=bool(episode.terminations[-1]),
            rewards=np.asarray(episode.rewards, dtype=np.float64),
            seed=None if described.get("seed") is None else int(described["seed"]),
            is_success=success_of(_last_of(episode.infos)),
        )
        for episode, described in zip(dataset.iterate_episodes(), metadata, strict=True)
    ]


def to_imitation(demonstrations: Sequence[Demonstration]) -> list[Any]:
    """Return `imitation` trajectories, with rewards where they are known.

    `imitation` does not tell a time limit from an end; the key "TimeLimit.truncated" of
    Stable-Baselines3 in the last info does.

    Raises:
        ImportError: If `imitation` is not installed.
    """
    types = _import_imitation()
    trajectories = []
    for episode in demonstrations:
        infos: list[dict[str, Any]] = [{} for _ in range(len(episode))]
        infos[-1]["TimeLimit.truncated"] = not episode.terminated
        if episode.is_success is not None:
            infos[-1]["is_success"] = episode.is_success
        fields = {
            "obs": types.maybe_wrap_in_dictobs(episode.observations),
            "acts": episode.actions,
            "infos": np.array(infos),
            "terminal": True,
        }
        trajectories.append(
            types.Trajectory(**fields)
            if episode.rewards is None
            else types.TrajectoryWithRew(**fields, rews=episode.rewards.astype(np.float64))
        )
    return trajectories


def from_imitation(trajectories: Iterable[Any]) -> list[Demonstration]:
    """Return demonstrations from `imitation` trajectories, with or without rewards.

    Without infos, which `imitation.data.rollout` leaves out unless told `exclude_infos=False`, an
    episode that a time limit ended cannot be told from one that the env ended: it counts as such.
    """
    demonstrations = []
    for trajectory in trajectories:
        last = {} if trajectory.infos is None else trajectory.infos[-1]
        observations, rewards = trajectory.obs, getattr(trajectory, "rews", None)
        demonstrations.append(
            Demonstration(
                observations=getattr(observations, "unwrap", lambda o=observations: o)(),
                actions=np.asarray(trajectory.acts),
                terminated=bool(trajectory.terminal) and not last.get("TimeLimit.truncated", False),
                rewards=None if rewards is None else np.asarray(rewards, dtype=np.float64),
                is_success=success_of(last),
            )
        )
    return demonstrations


def _import_minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise ImportError(
            "Minari datasets need the package: pip install 'mppi-agent[minari]'"
        ) from error
    return minari


def _import_imitation() -> Any:
    try:
        from imitation.data import types
    except ImportError as error:
        raise ImportError(
            "trajectories need the package imitation; it asks for old versions of others, so: "
            "pip install --no-deps imitation"
        ) from error
    return types


def _only_last(num: int, value: bool) -> list[bool]:
    return [False] * (num - 1) + [value]


def _last_of(infos: dict[str, Any] | None) -> dict[str, Any]:
    """Return the last entry of each flat array of infos."""
    return {
        key: values[-1] for key, values in (infos or {}).items() if isinstance(values, np.ndarray)
    }
