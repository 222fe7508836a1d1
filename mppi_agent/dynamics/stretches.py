"""Open-loop rollouts of a MuJoCo task, several control steps per call of the simulator.

Python's work per call then weighs little beside the physics. A simulation that ends within a
stretch is simulated to the stretch's end in vain, so stretches are as long as is worth it at the
rate at which simulations ended lately: the whole horizon where none does.
"""

from __future__ import annotations

import math

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

__all__ = ["Pace", "rollout_in_stretches"]

_CALL_SUBSTEPS = 50  # a call costs about as much time as these
_MEMORY = 0.5  # weight of what was learnt before, against a new rollout
_MOST_NUMBERS = 2**20  # recorded at a time: 8 MB


class Pace:
    """Choose how many steps to simulate per call; what they compute does not depend on it.

    With n simulations that end at rate r, stretches of L steps waste about n r L / 2 steps per
    step and cost 1 / L calls: least for L = sqrt(2 call / (n r)), a call counted in steps.
    """

    def __init__(self) -> None:
        self._ends, self._steps = 1.0, 400.0

    def stretch(self, num: int, nstep: int) -> int:
        """Return the steps of the next stretch of `num` simulations, >= 1."""
        call = _CALL_SUBSTEPS / nstep
        return 1 + int(math.sqrt(2 * call * self._steps / (num * self._ends)))

    def learn(self, ends: int, steps: int) -> None:
        """Remember that `ends` simulations ended in `steps` steps, all of theirs together."""
        self._ends = _MEMORY * self._ends + ends + 1e-6
        self._steps = _MEMORY * self._steps + steps


def rollout_in_stretches(
    physics: Physics,
    task: BatchTask,
    before: dict[str, np.ndarray],
    actions: np.ndarray,
    nstep: int,
    observations: Observation,
    pace: Pace,
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
        pace: Chooses the stretches and learns from them.
        keep_observations: Whether to fill `RolloutBatch.observations`.

    Returns:
        The outcome with S = 1 and K = n; None where MuJoCo warned about a simulation or a number
        is not finite: then only single steps can tell what happened when.
    """
    num, horizon = actions.shape[:2]
    fields = {*task.before_fields, *task.after_fields}
    most_steps = _MOST_NUMBERS // (nstep * sum(map(physics.size, fields)))
    outcome = _Outcome(task, observations, (num, horizon), keep_observations)
    live = np.arange(num)
    start = 0
    while start < horizon and live.size:
        most = min(max(1, most_steps // live.size), horizon - start)
        stop = start + min(pace.stretch(live.size, nstep), most)
        # Slices where all simulations live: they copy nothing.
        taken = (actions if live.size == num else actions[live])[:, start:stop]
        record = physics.run(taken, nstep, fields, live, before)
        if physics.warning[:num, :, 1].any():
            return None
        after = {name: record[name][1:] for name in task.after_fields}
        has_ended = outcome.store(live, start, after, *_judge(task, record, taken))
        start = stop
        if start < horizon:
            before = {name: record[name][-1, ~has_ended] for name in task.before_fields}
            live = live[~has_ended]
    batch = outcome.batch()
    if batch is not None:
        pace.learn(int(batch.terminated.sum()), batch.sim_steps)
    return batch


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
            after: The task's `after_fields` after each step, shape (steps, n, ...).
            rewards: Shape (steps, n).
            ends: Where the episode ended, and anything after that, shape (steps, n).
        """
        num_steps, num = ends.shape
        stop = start + num_steps
        has_ended = np.asarray(ends.any(axis=0))
        last = np.full(num, num_steps - 1)
        if has_ended.any():
            last = np.where(has_ended, ends.argmax(axis=0), last)
            rewards = np.where(np.arange(num_steps)[:, None] <= last, rewards, 0.0)
            self._lengths[live[has_ended]] = start + last[has_ended] + 1
            self._terminated[live] = has_ended
        everyone = num == len(self._rewards)
        self._rewards[slice(None) if everyone else live, start:stop] = rewards.T
        leaving = np.flatnonzero(has_ended | (stop == self._horizon))
        if leaving.size:
            seen = {name: values[last[leaving], leaving] for name, values in after.items()}
            write_rows(self._final, live[leaving], self._task.observations(seen))
        if self._kept is not None:
            shown = _observe_all(self._task, after)
            repeats = np.minimum(np.arange(num_steps), last[:, None])
            rows = select_rows(shown, (repeats, np.arange(num)[:, None]))
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
    task: BatchTask, record: dict[str, np.ndarray], actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return rewards and ends of each step of a stretch, shape (steps, n)."""
    num, num_steps = actions.shape[:2]
    # Time comes first, so that all steps but the last, and but the first, are views.
    earlier = {name: _flat(record[name][:-1]) for name in task.before_fields}
    later = {name: _flat(record[name][1:]) for name in task.after_fields}
    rewards = task.rewards(earlier, later, _flat(actions.swapaxes(0, 1)))
    return rewards.reshape(num_steps, num), task.terminated(later).reshape(num_steps, num)


def _observe_all(task: BatchTask, after: dict[str, np.ndarray]) -> Observation:
    """Return observations of each step of a stretch, shape (steps, n, *obs)."""
    seen = task.observations({name: _flat(values) for name, values in after.items()})
    return reshape_leading(seen, 1, next(iter(after.values())).shape[:2])


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])
