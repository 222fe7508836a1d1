"""How well a coarse model ranks plans, against the true one, and how much faster it is.

A planner needs the order of its samples, not their returns: what counts is the rank correlation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.mujoco_batch import MujocoBatchDynamics
from mppi_agent.interfaces import Dynamics, EnvState, RolloutBatch

__all__ = ["FidelityReport", "measure_fidelity"]

_HELD_STEPS = 4  # each random action, as smooth samples of a planner do
_MOVING_STEPS = 20  # until the second half of the start states


@dataclass(frozen=True)
class FidelityReport:
    """Hold how a coarse model compares with the true one, over all start states.

    Attributes:
        substeps: Physics substeps per control step of the coarse model; the true model has
            `true_substeps`, by its own integrator.
        true_substeps: Of the true model.
        num_states: Start states, S; half are resets, the others are on the move.
        num_samples: Random plans from each state, K.
        horizon: Control steps of each, H.
        spearman: Median over states of Spearman's rank correlation of the K returns.
        lowest_spearman: The lowest of them.
        kendall: Median over states of Kendall's tau.
        regret: How much of the lead of the best plan over the median plan is lost by taking the
            coarse model's best one, median over states; 0: nothing, 1: no better than the median.
        same_length: Share of rollouts that end at the same step.
        diverged: Share of rollouts that diverged on the coarse model.
        speed_up: Time of the true rollouts over that of the coarse ones.
    """

    substeps: int
    true_substeps: int
    num_states: int
    num_samples: int
    horizon: int
    spearman: float
    lowest_spearman: float
    kendall: float
    regret: float
    same_length: float
    diverged: float
    speed_up: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a line."""
        return (
            f"{self.substeps} of {self.true_substeps} substeps: rank correlation "
            f"{self.spearman:.3f} (lowest {self.lowest_spearman:.3f}; Kendall {self.kendall:.3f}), "
            f"regret {self.regret:.1%}, same length {self.same_length:.1%}, "
            f"diverged {self.diverged:.1%}, {self.speed_up:.2f} x as fast"
        )


def measure_fidelity(
    env: Cloneable,
    substeps: int,
    *,
    num_states: int = 8,
    num_samples: int = 64,
    horizon: int = 20,
    num_threads: int | None = None,
    repeats: int = 3,
    seed: int = 0,
) -> FidelityReport:
    """Roll out the same random plans on the true and on a coarse model.

    Args:
        env: A MuJoCo env with a known task; only read.
        substeps: Of the coarse model, see `MujocoBatchDynamics.coarse`.
        num_states: Start states, S >= 2.
        num_samples: Plans from each, K >= 2.
        horizon: Control steps of each, H.
        num_threads: None: one per core.
        repeats: Rounds of timing; the median ratio counts.
        seed: Of states and plans.

    Returns:
        The comparison.

    Raises:
        ValueError: If the env has no coarse model, or a number is out of range.
    """
    for name, value, least in (
        ("num_states", num_states, 2),
        ("num_samples", num_samples, 2),
        ("horizon", horizon, 1),
        ("repeats", repeats, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be >= {least}, got {value}")
    true = MujocoBatchDynamics(env, num_threads=num_threads)
    coarse = true.coarse(substeps)
    try:
        rng = np.random.default_rng(seed)
        states = _start_states(true, num_states, rng)
        actions = _held_actions(true, (num_states, num_samples, horizon), rng)
        seconds = np.empty((repeats + 1, 2))
        for row in seconds:
            start = time.perf_counter()
            checked = true.rollout(states, actions)
            middle = time.perf_counter()
            searched = coarse.rollout(states, actions)
            row[:] = middle - start, time.perf_counter() - middle
        ranks = _compare(_returns(checked), _returns(searched))
    finally:
        coarse.close()
        true.close()
    return FidelityReport(
        substeps=substeps,
        true_substeps=env.unwrapped.frame_skip,  # type: ignore[attr-defined]
        num_states=num_states,
        num_samples=num_samples,
        horizon=horizon,
        **ranks,
        same_length=float((checked.lengths == searched.lengths).mean()),
        diverged=float(searched.diverged.mean()),
        speed_up=float(np.median(seconds[1:, 0] / seconds[1:, 1])),
    )


def _start_states(dynamics: Dynamics, num: int, rng: np.random.Generator) -> list[EnvState]:
    """Return resets, half of them followed by some random steps, as far as the episode lasts."""
    states = dynamics.initial_states(num, rng)
    moving = np.arange(num // 2)
    simulations = dynamics.simulations(len(moving))
    simulations.restore(states[: len(moving)])
    actions = _held_actions(dynamics, (1, len(moving), _MOVING_STEPS), rng)[0]
    for step in range(_MOVING_STEPS):
        outcome = simulations.step(actions[moving, step], moving)
        moving = moving[~outcome.ended]
        if not moving.size:
            break
        for index, state in zip(moving, simulations.snapshot(moving), strict=True):
            states[index] = state
    simulations.close()
    return states


def _held_actions(
    dynamics: Dynamics, shape: tuple[int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Return uniform actions, each held for some steps, shape (*shape, *action)."""
    space = dynamics.action_space
    num_drawn = -(-shape[2] // _HELD_STEPS)
    drawn = rng.uniform(space.low, space.high, (*shape[:2], num_drawn, *space.shape))
    return np.repeat(drawn, _HELD_STEPS, axis=2)[:, :, : shape[2]].astype(space.dtype)


def _returns(batch: RolloutBatch) -> np.ndarray:
    """Return undiscounted returns, shape (S, K); -inf where a simulation diverged."""
    return np.where(batch.diverged, -np.inf, batch.rewards.sum(axis=-1))


def _compare(true: np.ndarray, coarse: np.ndarray) -> dict[str, float]:
    """Compare returns (S, K) of the same plans, state by state.

    Where all returns are equal on one side there is no order: its correlation is 1 if they are
    equal on the other side as well, else 0.
    """
    rows: list[Sequence[float]] = []
    for ours, theirs in zip(true, coarse, strict=True):
        flat = [np.ptp(np.nan_to_num(values)) == 0 for values in (ours, theirs)]
        if any(flat):
            spearman = kendall = float(all(flat))
        else:
            spearman = float(spearmanr(ours, theirs).statistic)
            kendall = float(kendalltau(ours, theirs).statistic)
        best, median = np.max(ours), np.median(ours)
        lost = best - ours[np.argmax(theirs)]
        rows.append((spearman, kendall, lost / (best - median) if best > median else 0.0))
    spearmans, kendalls, regrets = np.array(rows).T
    return {
        "spearman": float(np.median(spearmans)),
        "lowest_spearman": float(spearmans.min()),
        "kendall": float(np.median(kendalls)),
        "regret": float(np.median(regrets)),
    }
