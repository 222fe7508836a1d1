"""Closed-loop simulations that live in the workers of a process pool, and outlive them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mppi_agent.dynamics.rollout import join_steps, validate_actions
from mppi_agent.interfaces import EnvState, StepBatch

if TYPE_CHECKING:
    from mppi_agent.dynamics.process_pool import ProcessPoolDynamics

__all__ = ["ProcessPoolSimulations"]

_LONGEST_HISTORY = 1000


class ProcessPoolSimulations:
    """Step N simulations that live in the workers of a pool.

    The state that each was last restored to, and the actions taken since, are remembered: what a
    dead worker held is made again in its replacement, and a call that failed did not happen.

    Args:
        pool: Its workers hold the simulations, in equal parts.
        key: Name of this set of simulations among those of the pool.
        num: Simulations, N.
    """

    def __init__(self, pool: ProcessPoolDynamics, key: int, num: int) -> None:
        self.num = num
        self._pool, self._key = pool, key
        # Worker w holds the simulations bounds[w] <= i < bounds[w + 1].
        self._bounds = np.linspace(0, num, pool.num_workers + 1).astype(int)
        self._generations = [-1] * pool.num_workers
        self._starts: list[EnvState | None] = [None] * num
        self._taken: list[list[np.ndarray]] = [[] for _ in range(num)]
        self._is_closed = False

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        chosen = self._resolve(indices)
        if len(states) != len(chosen):
            raise ValueError(f"{len(chosen)} simulations need as many states, got {len(states)}")
        parts = self._split(chosen)
        self._ask(
            {
                worker: ("restore", (self._key, [states[i] for i in places], local))
                for worker, (places, local) in parts.items()
            }
        )
        self._remember(chosen, states)

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        chosen = self._resolve(indices, must_have_state=True)
        checked = validate_actions(actions, self._pool.action_space, 1, num=len(chosen))
        parts = self._split(chosen)
        replies = self._ask(
            {
                worker: ("step", (self._key, checked[places], local))
                for worker, (places, local) in parts.items()
            }
        )
        for index, action in zip(chosen.tolist(), checked.copy(), strict=True):
            self._taken[index].append(action)
        grown = [i for i in chosen.tolist() if len(self._taken[i]) >= _LONGEST_HISTORY]
        if grown:
            self.snapshot(np.array(grown))
        return join_steps(list(replies.values()), [parts[worker][0] for worker in replies])

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        chosen = self._resolve(indices, must_have_state=True)
        parts = self._split(chosen)
        replies = self._ask(
            {w: ("snapshot", (self._key, local)) for w, (_, local) in parts.items()}
        )
        placed = {
            int(place): state
            for worker, states in replies.items()
            for place, state in zip(parts[worker][0], states, strict=True)
        }
        states = [placed[place] for place in range(len(placed))]
        self._remember(chosen, states)
        return states

    def close(self) -> None:
        """Free the simulations in the workers; the pool lives on."""
        if self._is_closed:
            return
        self._is_closed = True
        workers = [w for w, g in enumerate(self._generations) if g == self._pool.generation(w)]
        if workers:
            self._pool.ask({worker: ("discard", (self._key,)) for worker in workers})

    def _resolve(self, indices: np.ndarray | None, must_have_state: bool = False) -> np.ndarray:
        if self._is_closed:
            raise RuntimeError("these simulations are closed; ask for new ones with simulations()")
        chosen = np.arange(self.num) if indices is None else np.asarray(indices, dtype=int)
        stateless = [i for i in chosen.tolist() if self._starts[i] is None]
        if must_have_state and stateless:
            raise RuntimeError(
                f"simulations {stateless} have no state yet: restore them before they are stepped "
                "or captured"
            )
        return chosen

    def _split(self, chosen: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Return per worker the places within `chosen` that it serves, and its own indices."""
        owners = np.searchsorted(self._bounds, chosen, side="right") - 1
        parts = {}
        for worker in np.unique(owners).tolist():
            places = np.flatnonzero(owners == worker)
            parts[worker] = (places, chosen[places] - self._bounds[worker])
        return parts

    def _remember(self, chosen: np.ndarray, states: Sequence[EnvState]) -> None:
        for index, state in zip(chosen.tolist(), states, strict=True):
            self._starts[index] = state
            self._taken[index] = []

    def _ask(self, requests: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        try:
            return self._pool.ask(requests, prepare=self._resume)
        except BaseException:  # some workers may be ahead of what is remembered of them
            self._generations = [-1] * self._pool.num_workers
            raise

    def _resume(self, workers: Sequence[int]) -> None:
        """Make anew what some of the workers should hold and do not."""
        lost = [w for w in workers if self._generations[w] != self._pool.generation(w)]
        requests: dict[int, tuple[Any, ...]] = {}
        for worker in lost:
            first, last = self._bounds[worker], self._bounds[worker + 1]
            known = [i for i in range(first, last) if self._starts[i] is not None]
            starts = [self._starts[i] for i in known]
            taken = [self._taken[i] for i in known]
            local = [i - first for i in known]
            requests[worker] = ("resume", (self._key, int(last - first), local, starts, taken))
        if requests:
            self._pool.ask(requests)
        for worker in lost:
            self._generations[worker] = self._pool.generation(worker)
