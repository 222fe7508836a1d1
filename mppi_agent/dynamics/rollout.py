"""Rollouts on any set of simulations, open and closed loop, and the checks on what enters them.

states (S), actions (S, K, H) -> restore S x K simulations -> step the live ones -> RolloutBatch
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import gymnasium as gym
import numpy as np

from mppi_agent.dynamics.observations import (
    empty_observations,
    join_observations,
    reshape_leading,
    select_rows,
    stack_observations,
    write_rows,
)
from mppi_agent.interfaces import (
    Act,
    Dynamics,
    EnvState,
    Observation,
    RolloutBatch,
    Simulations,
    StepBatch,
)

__all__ = [
    "ClosedLoop",
    "LargestSimulations",
    "closed_loop_rollout",
    "join_batches",
    "join_steps",
    "open_loop_rollout",
    "reshape_batch",
    "resume_simulations",
    "validate_actions",
    "validate_rollout",
]

AnySimulations = TypeVar("AnySimulations", bound=Simulations)


def resume_simulations(simulations: Simulations, states: Sequence[EnvState]) -> None:
    """Put simulations into snapshots that were taken of them, the noise ahead included."""
    resume = getattr(simulations, "resume", simulations.restore)
    resume(states)


def open_loop_rollout(
    simulations: Simulations,
    states: Sequence[EnvState],
    actions: np.ndarray,
    *,
    keep_observations: bool = False,
) -> RolloutBatch:
    """Roll out S x K action sequences, all at once.

    A simulation that ends is not stepped again; its final observation is the one of its last step
    (for a diverged one, the last before it broke).

    Args:
        simulations: At least S x K of them; the first S x K are used.
        states: S start states.
        actions: Valid for the env, see `validate_rollout`, shape (S, K, H, *action).
        keep_observations: Whether to fill `RolloutBatch.observations`; after the end of a rollout
            its final observation is repeated.

    Returns:
        The outcome; `rewards` is float64, and 0 from the divergence of a sample on.

    Raises:
        ValueError: If there are fewer than S x K simulations.
    """
    flat = actions.reshape(-1, *actions.shape[2:])  # (S * K, H, *action)

    def replay(step: int, observations: Observation, running: np.ndarray) -> np.ndarray:
        return flat[:, step] if running.size == len(flat) else flat[running, step]

    return closed_loop_rollout(
        simulations, states, actions.shape[1:3], replay, keep_observations=keep_observations
    )


def closed_loop_rollout(
    simulations: Simulations,
    states: Sequence[EnvState],
    shape: tuple[int, int],
    act: Act,
    *,
    keep_observations: bool = False,
) -> RolloutBatch:
    """Roll out S x K simulations whose actions answer to what they observe, all at once.

    Args:
        simulations: At least S x K of them; the first S x K are used.
        states: S start states.
        shape: Samples per state and control steps, (K, H).
        act: Chooses the actions of each step.
        keep_observations: Whether to fill `RolloutBatch.observations`; after the end of a rollout
            its final observation is repeated.

    Returns:
        The outcome, as of `open_loop_rollout`.

    Raises:
        ValueError: If there are fewer than S x K simulations.
    """
    num_states, (num_samples, horizon) = len(states), shape
    total = num_states * num_samples
    if simulations.num < total:
        raise ValueError(f"{total} rollouts need as many simulations, got {simulations.num}")
    everyone = None if simulations.num == total else np.arange(total)
    simulations.restore([s for s in states for _ in range(num_samples)], everyone)

    rewards = np.zeros((total, horizon))
    terminated = np.zeros(total, dtype=bool)
    diverged = np.zeros(total, dtype=bool)
    lengths = np.full(total, horizon)
    start = stack_observations([state.observation for state in states])
    final = select_rows(start, np.repeat(np.arange(num_states), num_samples))
    kept = empty_observations(start, (total, horizon)) if keep_observations else None
    live = np.arange(total)
    sim_steps = 0
    for step in range(horizon):
        all_live = live.size == total
        seen = final if all_live else select_rows(final, live)
        batch = simulations.step(act(step, seen, live), everyone if all_live else live)
        sim_steps += live.size
        broken, ended = batch.diverged, batch.ended
        if not ended.any():
            rewards[live, step] = batch.rewards
            write_rows(final, slice(None) if all_live else live, batch.observations)
        else:
            sound = ~broken
            rewards[live[sound], step] = batch.rewards[sound]
            write_rows(final, live[sound], select_rows(batch.observations, sound))
            terminated[live] = batch.terminated & sound
            diverged[live] = broken
            lengths[live[ended]] = step + 1
            live = live[~ended]
        if kept is not None:
            write_rows(kept, (slice(None), step), final)
        if live.size == 0:
            if kept is not None and step + 1 < horizon:
                repeated = select_rows(kept, (slice(None), slice(step, step + 1)))
                write_rows(kept, (slice(None), slice(step + 1, None)), repeated)
            break
    leading = (num_states, num_samples)
    return RolloutBatch(
        rewards=rewards.reshape(*leading, horizon),
        terminated=terminated.reshape(leading),
        diverged=diverged.reshape(leading),
        lengths=lengths.reshape(leading),
        final_observations=reshape_leading(final, 1, leading),
        sim_steps=sim_steps,
        observations=None if kept is None else reshape_leading(kept, 1, leading),
    )


class LargestSimulations(Generic[AnySimulations]):
    """Keep the most simulations of one model that were asked for; they serve smaller requests."""

    def __init__(self) -> None:
        self._held: AnySimulations | None = None

    def at_least(self, num: int, make: Callable[[int], AnySimulations]) -> AnySimulations:
        """Return `num` simulations or more, made by `make` where those at hand are too few."""
        if self._held is None or self._held.num < num:
            self.close()
            self._held = make(num)
        return self._held

    def close(self) -> None:
        """Free the simulations; the next request makes new ones."""
        if self._held is not None:
            self._held.close()
            self._held = None


class ClosedLoop:
    """Run closed-loop rollouts on one model, in simulations that it keeps.

    Args:
        dynamics: The model; the caller closes it.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        self._dynamics = dynamics
        self._simulations = LargestSimulations[Simulations]()

    def __call__(
        self,
        states: Sequence[EnvState],
        shape: tuple[int, int],
        act: Act,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out (K, H) = `shape` samples and steps per state; see `closed_loop_rollout`."""
        simulations = self._simulations.at_least(len(states) * shape[0], self._dynamics.simulations)
        return closed_loop_rollout(
            simulations, states, shape, act, keep_observations=keep_observations
        )

    def close(self) -> None:
        """Free the simulations; the next rollout makes new ones."""
        self._simulations.close()


def reshape_batch(batch: RolloutBatch, shape: tuple[int, int]) -> RolloutBatch:
    """Arrange the samples of `batch`, in order, as (S, K) = `shape`."""
    kept = batch.observations
    return RolloutBatch(
        rewards=batch.rewards.reshape(*shape, -1),
        terminated=batch.terminated.reshape(shape),
        diverged=batch.diverged.reshape(shape),
        lengths=batch.lengths.reshape(shape),
        final_observations=reshape_leading(batch.final_observations, 2, shape),
        sim_steps=batch.sim_steps,
        observations=None if kept is None else reshape_leading(kept, 2, shape),
    )


def join_batches(batches: Sequence[RolloutBatch]) -> RolloutBatch:
    """Join batches along the axis of samples; `sim_steps` add up."""
    kept = [batch.observations for batch in batches if batch.observations is not None]
    return RolloutBatch(
        rewards=np.concatenate([batch.rewards for batch in batches], axis=1),
        terminated=np.concatenate([batch.terminated for batch in batches], axis=1),
        diverged=np.concatenate([batch.diverged for batch in batches], axis=1),
        lengths=np.concatenate([batch.lengths for batch in batches], axis=1),
        final_observations=join_observations([b.final_observations for b in batches], axis=1),
        sim_steps=sum(batch.sim_steps for batch in batches),
        observations=join_observations(kept, axis=1) if kept else None,
    )


def join_steps(batches: Sequence[StepBatch], places: Sequence[np.ndarray]) -> StepBatch:
    """Put the outcomes of some simulations each together.

    Args:
        batches: At least one, not empty.
        places: Where each batch belongs; together all of 0 to N - 1.
    """
    num = sum(map(len, places))
    observations = empty_observations(batches[0].observations, (num,))
    rewards = np.zeros(num)
    terminated, truncated, diverged = np.zeros((3, num), dtype=bool)
    for batch, where in zip(batches, places, strict=True):
        write_rows(observations, where, batch.observations)
        rewards[where], terminated[where] = batch.rewards, batch.terminated
        truncated[where], diverged[where] = batch.truncated, batch.diverged
    return StepBatch(observations, rewards, terminated, truncated, diverged)


def validate_rollout(
    states: Sequence[EnvState], actions: np.ndarray, action_space: gym.Space[Any]
) -> np.ndarray:
    """Check the arguments of `Dynamics.rollout`.

    Returns:
        The actions in the dtype of the action space, shape (S, K, H, *action).

    Raises:
        ValueError: If a shape does not fit, an axis is empty, or an action is not usable.
    """
    actions = validate_actions(actions, action_space, num_leading=3)
    if len(states) != actions.shape[0]:
        raise ValueError(
            f"actions have shape {actions.shape}, so there must be {actions.shape[0]} states; "
            f"got {len(states)}"
        )
    if 0 in actions.shape[:3]:
        raise ValueError(
            f"actions must hold at least one state, sample and step, got shape {actions.shape}"
        )
    return actions


def validate_actions(
    actions: np.ndarray, action_space: gym.Space[Any], num_leading: int, num: int | None = None
) -> np.ndarray:
    """Check actions for an env and bring them into its dtype, as `env.step` wants them.

    Actions outside the bounds of a Box are let through: what they mean is up to the env.

    Args:
        actions: In the env's own units, shape (*leading, *action).
        action_space: Of the env.
        num_leading: Number of leading axes.
        num: Required size of the first axis; None: any.

    Returns:
        The same actions in the dtype of the action space; the input is not modified.

    Raises:
        ValueError: If shape or dtype do not fit, or an action is not finite or does not exist.
    """
    array = np.asarray(actions)
    shape, dtype = action_space.shape, action_space.dtype
    if shape is None or dtype is None:
        raise ValueError(f"action space must be Box or Discrete-like, got {action_space}")
    if array.ndim != num_leading + len(shape) or array.shape[num_leading:] != shape:
        wanted = ", ".join([*["n"] * num_leading, *map(str, shape)])
        raise ValueError(f"actions must have shape ({wanted}), got {array.shape}")
    if num is not None and array.shape[0] != num:
        raise ValueError(f"{num} simulations need as many actions, got shape {array.shape}")
    if array.dtype.kind not in "fiub" or (dtype.kind in "iu" and array.dtype.kind == "f"):
        raise ValueError(f"actions must be convertible to {dtype}, got dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(f"actions must be finite, got {count} NaN or infinite numbers")
    if isinstance(action_space, gym.spaces.Discrete | gym.spaces.MultiDiscrete) and array.size:
        discrete = isinstance(action_space, gym.spaces.Discrete)
        choices = action_space.n if discrete else action_space.nvec  # type: ignore[union-attr]
        first, last = action_space.start, action_space.start + choices - 1
        if (array < first).any() or (array > last).any():
            raise ValueError(
                f"discrete actions must lie in {first} to {last}, "
                f"got {array.min()} to {array.max()}"
            )
    return array.astype(dtype, copy=False)
