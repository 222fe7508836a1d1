"""What rollouts are worth: discounted rewards, and values where they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mppi_agent.interfaces import Observation, RolloutBatch
from mppi_agent.planning.objective import discounted_sum

__all__ = ["LeafValue", "discounted_returns", "leaf_values"]


@dataclass(frozen=True)
class LeafValue:
    """Value what follows the end of a plan.

    Attributes:
        predict: Maps observations with leading axis N to the value of carrying on from them,
            shape (N,), reward units.
        discount: Per control step, that the values were learnt with; in (0, 1]. A plan that ends
            in them counts its rewards by it, too, unless its own discount is less impatient:
            discounted faster than the values, rewards and values would not add up.
    """

    predict: Callable[[Observation], np.ndarray]
    discount: float


def discounted_returns(
    rollout: RolloutBatch, discount: float, leaf_values: np.ndarray | None = None
) -> np.ndarray:
    """Sum up the discounted rewards of each rollout and the value of where it ended.

    Args:
        rollout: S x K rollouts of H steps.
        discount: Per control step, in (0, 1].
        leaf_values: Value of each final observation, shape (S, K), reward units; ignored where
            the episode terminated. None: 0.

    Returns:
        Shape (S, K); -inf where the simulation diverged or the sum is not finite.
    """
    rewards = np.where(rollout.is_alive & ~rollout.diverged[..., None], rollout.rewards, 0.0)
    returns = discounted_sum(rewards, discount)
    if leaf_values is not None:
        at_the_end = np.array([discount**step for step in range(rollout.rewards.shape[-1] + 1)])
        left = np.where(rollout.terminated, 0.0, leaf_values)
        returns = returns + at_the_end[rollout.lengths] * left
    return np.where(rollout.diverged | ~np.isfinite(returns), -np.inf, returns)


def leaf_values(rollout: RolloutBatch, leaf_value: LeafValue) -> np.ndarray:
    """Return the value of each final observation, shape (S, K).

    Raises:
        ValueError: If the values have another shape, or are not finite where they count.
    """
    shape = rollout.terminated.shape
    final = rollout.final_observations
    if isinstance(final, dict):
        flat: Observation = {
            name: part.reshape(-1, *part.shape[2:]) for name, part in final.items()
        }
    else:
        flat = final.reshape(-1, *final.shape[2:])
    values = np.asarray(leaf_value.predict(flat), dtype=np.float64)
    if values.shape != (shape[0] * shape[1],):
        raise ValueError(
            f"leaf_value must return shape (N,) = ({shape[0] * shape[1]},), got {values.shape}; "
            "squeeze the last axis of a value network"
        )
    values = values.reshape(shape)
    if not np.isfinite(values[~(rollout.terminated | rollout.diverged)]).all():
        raise ValueError(
            "leaf_value must be finite where a rollout neither terminated nor diverged, got NaN "
            "or infinity; check the value network and its normalisation"
        )
    return values
