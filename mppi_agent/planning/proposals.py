"""Extra plans that join the samples: where better ones may lie than around the last plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mppi_agent.interfaces import EnvState

__all__ = ["ConstantPlan", "Demonstrations", "Proposer"]


class Proposer(Protocol):
    """Propose plans for S states; the planner measures them and trusts none."""

    def __call__(self, states: Sequence[EnvState], horizon: int) -> np.ndarray:
        """Return normalised controls, shape (S, P, H, nu), P >= 1 the same in every call."""
        ...


class ConstantPlan:
    """Propose to do the same thing all the time, such as nothing.

    Args:
        controls: Normalised, shape (nu,); zeros: rest in the middle of the action range.
    """

    def __init__(self, controls: np.ndarray) -> None:
        self._controls = np.array(controls, dtype=np.float64)
        if self._controls.ndim != 1:
            raise ValueError(f"controls must have shape (nu,), got {self._controls.shape}")

    def __call__(self, states: Sequence[EnvState], horizon: int) -> np.ndarray:
        """Return one plan per state, shape (S, 1, H, nu)."""
        return np.tile(self._controls, (len(states), 1, horizon, 1))


class Demonstrations:
    """Propose what was done from the most similar states of recorded episodes on.

    States are compared by their observations, each number in standard deviations of the recorded
    ones. Where an episode ends before the horizon does, its last action goes on.

    Args:
        episodes: Pairs of observations before each step, shape (T, d), and normalised controls,
            shape (T, nu), in the order of time.
        num: Plans per state, >= 1.

    Raises:
        ValueError: If shapes do not fit or there are fewer steps than `num`.
    """

    def __init__(self, episodes: Sequence[tuple[np.ndarray, np.ndarray]], *, num: int = 2) -> None:
        for observations, controls in episodes:
            if np.ndim(observations) != 2 or np.ndim(controls) != 2:
                raise ValueError(
                    "episodes must hold pairs of shape (T, d) and (T, nu), got "
                    f"{np.shape(observations)} and {np.shape(controls)}"
                )
            if len(observations) != len(controls):
                raise ValueError(
                    f"an episode has {len(observations)} observations and {len(controls)} "
                    "controls; leave out the observation after the last step"
                )
        lengths = [len(controls) for _, controls in episodes]
        if not 1 <= num <= sum(lengths):
            raise ValueError(f"num must be in [1, {sum(lengths)}], the recorded steps, got {num}")
        self._num = num
        self._controls = np.concatenate([controls for _, controls in episodes])
        self._last = np.repeat(np.cumsum(lengths) - 1, lengths)  # (T,) end of each one's episode
        rows = np.concatenate([observations for observations, _ in episodes]).astype(np.float64)
        spread = rows.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        self._rows = rows / self._spread

    def __call__(self, states: Sequence[EnvState], horizon: int) -> np.ndarray:
        """Return plans, the one from the nearest state first, shape (S, num, H, nu)."""
        seen = np.stack([np.asarray(state.observation, dtype=np.float64) for state in states])
        if seen.shape[1:] != self._rows.shape[1:]:
            raise ValueError(
                f"demonstrations have observations of shape {self._rows.shape[1:]}, the env "
                f"{seen.shape[1:]}; record them in the env that is planned for"
            )
        distances = np.linalg.norm(seen[:, None] / self._spread - self._rows, axis=-1)  # (S, T)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, : self._num]
        steps = nearest[..., None] + np.arange(horizon)  # (S, num, H)
        return self._controls[np.minimum(steps, self._last[nearest][..., None])]
