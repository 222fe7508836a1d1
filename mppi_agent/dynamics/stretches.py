"""Open-loop rollouts of a MuJoCo task, several control steps per call of the simulator.

Python's work per call then weighs little beside the physics. A simulation that ends within a
stretch is simulated to the stretch's end in vain, so stretches grow only while none ends, and
begin at what is worth a call.
"""

from __future__ import annotations

import numpy as np

from mppi_agent.dynamics.physics import Physics
from mppi_agent.interfaces import BatchTask, RolloutBatch

__all__ = ["rollout_in_stretches"]

_LEAST_SUBSTEPS = 100  # of all simulations together: about a millisecond of one core
_MOST_NUMBERS = 2**20  # recorded at a time: 8 MB


def rollout_in_stretches(
    physics: Physics,
    task: BatchTask,
    before: dict[str, np.ndarray],
    actions: np.ndarray,
    nstep: int,
    observations: np.ndarray,
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
        observations: An array of the shape and dtype of the result's `final_observations`, which
            it becomes, shape (n, *obs).
        keep_observations: Whether to fill `RolloutBatch.observations`.

    Returns:
        The outcome with S = 1 and K = n; None where MuJoCo warned about a simulation or a number
        is not finite: then only single steps can tell what happened when.
    """
    num, horizon = actions.shape[:2]
    fields = {*task.before_fields, *task.after_fields}
    most_steps = _MOST_NUMBERS // (nstep * sum(_size(physics, name) for name in fields))
    rewards, lengths = np.zeros((num, horizon)), np.full(num, horizon)
    terminated = np.zeros(num, dtype=bool)
    kept_shape = (num, horizon, *observations.shape[1:])
    kept = np.empty(kept_shape, observations.dtype) if keep_observations else None
    live = np.arange(num)
    start = growth = 0
    while start < horizon and live.size:
        least = -(-_LEAST_SUBSTEPS // (live.size * nstep))
        stretch = min(least << growth, max(1, most_steps // live.size), horizon - start)
        stop = start + stretch
        taken = actions[live, start:stop]
        after = physics.run(taken, nstep, fields, live)
        paid, ends = _judge(task, before, after, taken)
        has_ended = ends.any(axis=1)
        last = np.where(has_ended, ends.argmax(axis=1), stretch - 1)
        rewards[live, start:stop] = np.where(np.arange(stretch) <= last[:, None], paid, 0.0)
        lengths[live[has_ended]] = start + last[has_ended] + 1
        terminated[live] = has_ended

        leaving = np.flatnonzero(has_ended | (stop == horizon))
        if leaving.size:
            seen = {name: values[leaving, last[leaving]] for name, values in after.items()}
            observations[live[leaving]] = task.observations(seen)
        if kept is not None:
            shown = _observe_all(task, after)
            repeats = np.minimum(np.arange(stretch), last[:, None])
            kept[live, start:stop] = shown[np.arange(live.size)[:, None], repeats]
            kept[live[has_ended], stop:] = observations[live[has_ended], None]

        before = {name: after[name][~has_ended, -1] for name in task.before_fields}
        live = live[~has_ended]
        start, growth = stop, 0 if has_ended.any() else growth + 1
    is_sound = not physics.warning[:num, :, 1].any() and np.isfinite(rewards).all()
    if not (is_sound and np.isfinite(observations if kept is None else kept).all()):
        return None
    return RolloutBatch(
        rewards=rewards[None],
        terminated=terminated[None],
        diverged=np.zeros((1, num), dtype=bool),
        lengths=lengths[None],
        final_observations=observations[None],
        sim_steps=int(lengths.sum()),
        observations=None if kept is None else kept[None],
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


def _observe_all(task: BatchTask, after: dict[str, np.ndarray]) -> np.ndarray:
    """Return observations of each step of a stretch, shape (n, steps, *obs)."""
    seen = task.observations({name: _flat(after[name]) for name in task.after_fields})
    num, steps = next(iter(after.values())).shape[:2]
    return seen.reshape(num, steps, *seen.shape[1:])


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[2:])


def _size(physics: Physics, name: str) -> int:
    return int(np.prod(physics.bind(name).shape[1:]))
