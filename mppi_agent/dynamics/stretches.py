"""Open-loop rollouts of a MuJoCo task, several control steps per call of the simulator.

Python's work per call then weighs little beside the physics. A simulation that ends within a
stretch is simulated to the stretch's end in vain, so stretches grow only while none ends, and
begin at what is worth a call.
"""

from __future__ import annotations

import numpy as np

from mppi_agent.dynamics.observations import (
    empty_observations,
    finite_rows,
    reshape_leading,
    select_rows,
    write_rows,
)
from mppi_agent.dynamics.physics import Physics
from mppi_agent.interfaces import BatchTask, Observation, RolloutBatch

__all__ = ["rollout_in_stretches"]

_LEAST_SUBSTEPS = 100  # of all simulations together: about a millisecond of one core
_MOST_NUMBERS = 2**20  # recorded at a time: 8 MB


def rollout_in_stretches(
    physics: Physics,
    task: BatchTask,
    before: dict[str, np.ndarray],
    actions: np.ndarray,
    nstep: int,
    observations: Observation,
    *,
    keep_observations: bool,
) -> RolloutBatch | None:
    """Roll out the first n simulations, whose states have been set.

    Args:
        physics: Simulates.
        task: Computes observation, reward and termination.
        before: The task's `before_fields` as they stand now, shape (n, ...).
        actions: Shape (n, H, nu).
        nstep: Substeps per control step.
        observations: Of the shape and dtype of the result's `final_observations`, which they
            become, shape (n, *obs).
        keep_observations: Whether to fill `RolloutBatch.observations`.

    Returns:
        The outcome with S = 1 and K = n; None where MuJoCo warned about a simulation or a number
        is not finite: then only single steps can tell what happened when.
    """
    num, horizon = actions.shape[:2]
    fields = {*task.before_fields, *task.after_fields}
    most_steps = _MOST_NUMBERS // (nstep * sum(_size(physics, name) for name in fields))
    outcome = _Outcome(task, observations, (num, horizon), keep_observations)
    live = np.arange(num)
    start = growth = 0
    while start < horizon and live.size:
        least = -(-_LEAST_SUBSTEPS // (live.size * nstep))
        stretch = min(least << growth, max(1, most_steps // live.size), horizon - start)
        taken = actions[live, start : start + stretch]
        after = physics.run(taken, nstep, fields, live)
        if physics.warning[:num, :, 1].any():
            return None
        has_ended = outcome.store(live, start, after, *_judge(task, before, after, taken))
        before = {name: after[name][~has_ended, -1] for name in task.before_fields}
        live = live[~has_ended]
        start, growth = start + stretch, 0 if has_ended.any() else growth + 1
    return outcome.batch()


class _Outcome:
    """The arrays of a `RolloutBatch`, filled stretch by stretch.

    Args:
        task: Computes observations.
        observations: Becomes `final_observations`, shape (n, *obs).
        shape: Simulations and control steps, (n, H).
        keep_observations: Whether those of every step are kept.
    """

    def __init__(
        self,
        task: BatchTask,
        observations: Observation,
        shape: tuple[int, int],
        keep_observations: bool,
    ) -> None:
        self._task = task
        num, self._horizon = shape
        self._final = observations
        self._kept: Observation | None = None
        if keep_observations:
            self._kept = empty_observations(observations, shape)
        self._rewards = np.zeros(shape)
        self._terminated = np.zeros(num, dtype=bool)
        self._lengths = np.full(num, self._horizon)

    def store(
        self,
        live: np.ndarray,
        start: int,
        after: dict[str, np.ndarray],
        rewards: np.ndarray,
        ends: np.ndarray,
    ) -> np.ndarray:
        """Store a stretch and return which of its simulations ended, shape (n,).

        Args:
            live: The simulations of the stretch, shape (n,).
            start: Its first step.
            after: Fields after each step, shape (n, steps, ...).
            rewards: Shape (n, steps).
            ends: Where the episode ended, and anything after that, shape (n, steps).
        """
        steps = np.arange(ends.shape[1])
        stop = start + len(steps)
        has_ended = np.asarray(ends.any(axis=1))
        last = np.where(has_ended, ends.argmax(axis=1), len(steps) - 1)
        self._rewards[live, start:stop] = np.where(steps <= last[:, None], rewards, 0.0)
        self._lengths[live[has_ended]] = start + last[has_ended] + 1
        self._terminated[live] = has_ended
        leaving = np.flatnonzero(has_ended | (stop == self._horizon))
        if leaving.size:
            seen = {name: values[leaving, last[leaving]] for name, values in after.items()}
            write_rows(self._final, live[leaving], self._task.observations(seen))
        if self._kept is not None:
            shown = _observe_all(self._task, after)
            repeats = np.minimum(steps, last[:, None])
            rows = select_rows(shown, (np.arange(live.size)[:, None], repeats))
            write_rows(self._kept, (live, slice(start, stop)), rows)
            ended = live[has_ended]
            write_rows(
                self._kept, (ended, slice(stop, None)), select_rows(self._final, (ended, None))
            )
        return has_ended

    def batch(self) -> RolloutBatch | None:
        """Return the outcome, or None where a number is not finite."""
        shown = self._final if self._kept is None else self._kept
        if not (np.isfinite(self._rewards).all() and finite_rows(shown).all()):
            return None
        return RolloutBatch(
            rewards=self._rewards[None],
            terminated=self._terminated[None],
            diverged=np.zeros((1, len(self._lengths)), dtype=bool),
            lengths=self._lengths[None],
            final_observations=select_rows(self._final, None),
            sim_steps=int(self._lengths.sum()),
            observations=None if self._kept is None else select_rows(self._kept, None),
        )


def _judge(
    task: BatchTask,
    before: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    actions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return rewards and ends of each step of a stretch, shape (n, steps)."""
    shape = actions.shape[:2]
    earlier = {
        name: _flat(np.concatenate((first[:, None], after[name][:, :-1]), axis=1))
        for name, first in before.items()
    }
    later = {name: _flat(after[name]) for name in task.after_fields}
    taken = actions.reshape(-1, *actions.shape[2:])
    rewards = task.rewards(earlier, later, taken).reshape(shape)
    return rewards, task.terminated(later).reshape(shape)


def _observe_all(task: BatchTask, after: dict[str, np.ndarray]) -> Observation:
    """Return observations of each step of a stretch, shape (n, steps, *obs)."""
    seen = task.observations({name: _flat(after[name]) for name in task.after_fields})
    return reshape_leading(seen, 1, next(iter(after.values())).shape[:2])


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])


def _size(physics: Physics, name: str) -> int:
    return int(np.prod(physics.bind(name).shape[1:]))
