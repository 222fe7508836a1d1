"""A bonus for states unlike those that were visited: exploration beyond what a plan can see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mppi_agent.interfaces import EnvState, Observation
from mppi_agent.planning.objective import Trajectories

__all__ = ["Novelty"]

_MOST_DISTANCES = 2**22  # at a time: 32 MB


class Novelty:
    """Reward plans for the distance of what they see from what was visited.

    The bonus of a step is the mean distance to the k nearest visited states, in feature space,
    each feature measured in standard deviations of the visited ones. What the expert visits is
    remembered over episodes; labelling adds nothing.

    Attributes:
        weight: Reward units per unit of distance and step, > 0.

    Source: Lehman and Stanley 2011, "Abandoning objectives: evolution through the search for
        novelty alone", section 4.1.
    """

    reads_observations = True
    comes_first = False

    def __init__(
        self,
        weight: float,
        *,
        features: Callable[[Observation], np.ndarray] | None = None,
        neighbours: int = 5,
        capacity: int = 1000,
    ) -> None:
        """Remember nothing yet.

        Args:
            weight: Reward units per unit of distance and step, > 0.
            features: Maps observations with leading axis N to what is to be diverse, shape (N, d),
                such as a position; None: the whole observation, flat.
            neighbours: k, >= 1; fewer while fewer states were visited.
            capacity: Visited states that are remembered, >= `neighbours`; the oldest go first.

        Raises:
            ValueError: If a number is out of its range.
        """
        if not 0 < weight < np.inf:
            raise ValueError(f"weight must be > 0 and finite, got {weight}")
        if not 1 <= neighbours <= capacity:
            raise ValueError(
                f"neighbours must be >= 1 and at most capacity, got neighbours={neighbours} and "
                f"capacity={capacity}"
            )
        self.weight = weight
        self._features = features or _flat
        self._neighbours = neighbours
        self._capacity = capacity
        self._visited: np.ndarray | None = None

    def visit(self, states: Sequence[EnvState]) -> None:
        """Remember states; the expert does it with each state that it acts from."""
        for state in states:
            row = self._rows(_add_axis(state.observation))
            known = row[:0] if self._visited is None else self._visited
            self._visited = np.concatenate([known, row])[-self._capacity :]

    def scale(self, first: Trajectories) -> float:
        """Return the weight."""
        return self.weight

    def value(self, trajectories: Trajectories) -> np.ndarray:
        """Return the discounted sum of distances to what was visited, shape (S, K)."""
        shape = trajectories.rollout.rewards.shape
        if self._visited is None:
            return np.zeros(shape[:2])
        rows = self._rows(_merge_axes(trajectories.observations, len(shape)))
        spread = self._visited.std(axis=0)
        spread = np.where(spread > 1e-9 * (1 + np.abs(self._visited).max(axis=0)), spread, 1.0)
        distances = _mean_nearest(rows / spread, self._visited / spread, self._neighbours)
        return trajectories.discounted_sum(distances.reshape(shape))

    def state_dict(self) -> dict[str, Any]:
        """Return what was visited; picklable."""
        return {"visited": self._visited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what was visited."""
        self._visited = state["visited"]

    def _rows(self, observations: Observation) -> np.ndarray:
        rows = np.asarray(self._features(observations), dtype=np.float64)
        if rows.ndim != 2:
            raise ValueError(
                f"features must return shape (N, d), got {rows.shape}; keep the last axis with "
                "observations[:, 3:4], or stack features with np.stack(..., axis=1)"
            )
        return rows


def _mean_nearest(rows: np.ndarray, visited: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the mean distance of each row to its nearest visited ones, shape (N,)."""
    count = min(neighbours, len(visited))
    at_once = max(1, _MOST_DISTANCES // len(visited))
    norms = np.square(visited).sum(axis=1)
    found = np.empty(len(rows))
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        squares = np.square(part).sum(axis=1)[:, None] + norms - 2 * part @ visited.T
        nearest = np.partition(squares, count - 1, axis=1)[:, :count]
        found[start : start + at_once] = np.sqrt(np.maximum(nearest, 0.0)).mean(axis=1)
    return found


def _flat(observations: Observation) -> np.ndarray:
    if isinstance(observations, dict):
        raise ValueError(
            "Novelty needs features for Dict observations: pass features=lambda obs: obs['key']"
        )
    return observations.reshape(len(observations), -1)


def _add_axis(observation: Observation) -> Observation:
    if isinstance(observation, dict):
        return {key: _add_axis(part) for key, part in observation.items()}  # type: ignore[misc]
    return np.asarray(observation)[None]


def _merge_axes(observations: Observation, num: int) -> Observation:
    """Make one axis of the first `num`."""
    if isinstance(observations, dict):
        return {k: _merge_axes(part, num) for k, part in observations.items()}  # type: ignore[misc]
    return observations.reshape(-1, *observations.shape[num:])
