"""What MPPIGPS remembers: planner labels with their age, and states to restart simulations from."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mppi_agent.dynamics.observations import join_observations, select_rows, stack_observations
from mppi_agent.interfaces import EnvState, Observation

__all__ = ["LabelBatch", "LabelDataset", "StateArchive"]


@dataclass(frozen=True)
class LabelBatch:
    """Hold states with the planner's actions.

    Attributes:
        observations: As the env shows them, shape (B, *obs): statistics of a `VecNormalize`, which
            the policy sees them through, change.
        actions: The planner's action in env units, shape (B, *action).
        weights: Non-negative; a label's measured gain, scaled, shape (B,).
    """

    observations: Observation
    actions: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    def select(self, rows: np.ndarray) -> LabelBatch:
        """Return some of the labels, in the order of `rows`."""
        return LabelBatch(
            select_rows(self.observations, rows), self.actions[rows], self.weights[rows]
        )


class LabelDataset:
    """Aggregate labels over rounds (DAgger) and forget old ones gradually.

    Args:
        half_life: Rounds after which a label is drawn half as often.
        capacity: Labels kept; the oldest go first.

    Source: Ross et al. 2011, "A reduction of imitation learning to no-regret online learning".
    """

    def __init__(self, half_life: float, capacity: int) -> None:
        self._half_life = half_life
        self._capacity = capacity
        self._batches: deque[tuple[int, LabelBatch]] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def capacity(self) -> int:
        """Return how many labels are kept before the oldest go."""
        return self._capacity

    def add(self, labels: LabelBatch, round_number: int) -> None:
        """Add the labels of a round."""
        if len(labels) == 0:
            return
        self._batches.append((round_number, labels))
        self._size += len(labels)
        while self._size > self._capacity and len(self._batches) > 1:
            self._size -= len(self._batches.popleft()[1])

    def date_back_to(self, round_number: int) -> None:
        """Let no label be of a later round than this, as those of another training may be."""
        if self._batches:
            excess = max(self._batches[-1][0] - round_number, 0)
            self._batches = deque((added - excess, labels) for added, labels in self._batches)

    def sample(self, num: int, round_number: int, rng: np.random.Generator) -> LabelBatch | None:
        """Draw labels with replacement, recent ones more often; None while there are none."""
        if not self._size:
            return None
        ages = np.array([round_number - added for added, _ in self._batches], dtype=np.float64)
        ages -= ages.min()  # only differences matter, and large ages would underflow
        sizes = np.array([len(batch) for _, batch in self._batches])
        chances = sizes * 0.5 ** (ages / self._half_life)
        counts = rng.multinomial(num, chances / chances.sum())
        drawn = [
            batch.select(rng.integers(len(batch), size=count))
            for (_, batch), count in zip(self._batches, counts, strict=True)
            if count
        ]
        return LabelBatch(
            observations=join_observations([batch.observations for batch in drawn], 0),
            actions=np.concatenate([batch.actions for batch in drawn]),
            weights=np.concatenate([batch.weights for batch in drawn]),
        )


class StateArchive:
    """Keep states of the student and of the expert as starts for simulations.

    Args:
        capacity: States kept of each kind; the student's oldest go first.
    """

    def __init__(self, capacity: int) -> None:
        self._student: deque[EnvState] = deque(maxlen=capacity)
        self._expert: deque[EnvState] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._student) + len(self._expert)

    def add_student(self, states: Sequence[EnvState]) -> None:
        """Add states that the student visited."""
        self._student.extend(states)

    def add_expert(self, states: Sequence[EnvState]) -> None:
        """Add states that the expert visited."""
        self._expert.extend(states)

    def draw(self, num: int, expert_share: float, rng: np.random.Generator) -> list[EnvState]:
        """Draw states with replacement, `expert_share` of them from the expert's (DAgger's beta).

        Raises:
            ValueError: If the archive is empty.
        """
        if not len(self):
            raise ValueError("the archive is empty: add states before drawing")
        if not self._expert:
            expert_share = 0.0
        elif not self._student:
            expert_share = 1.0
        pools = [self._expert if e else self._student for e in rng.random(num) < expert_share]
        return [pool[int(rng.integers(len(pool)))] for pool in pools]


def label_batch(
    observations: Sequence[Observation], actions: Sequence[np.ndarray], weights: Sequence[float]
) -> LabelBatch:
    """Collect single labels, at least one, into a batch."""
    return LabelBatch(
        stack_observations(observations), np.stack(actions), np.asarray(weights, dtype=np.float64)
    )
