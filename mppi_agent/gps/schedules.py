"""What changes while MPPIGPS trains: the planner's share, evaluation dates, time spent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch as th

from mppi_agent.gps.labels import LabelReport

__all__ = ["Gap", "PhaseTimer", "StepBudget", "one_thread"]


class Gap:
    """Track how far plans beat the student, as a share in [0, 1] that no reward scale enters.

    1: the student earns nothing of what the planner does. 0: plans no longer beat it.

    Args:
        memory: Weight of the past per update, in [0, 1).
    """

    def __init__(self, memory: float = 0.9) -> None:
        self._memory = memory
        self._gain = 0.0
        self._scale = 0.0

    @property
    def share(self) -> float:
        """Return the gap; 1 before the first measurement."""
        return self._gain / self._scale if self._scale > 0 else 1.0

    def update(self, report: LabelReport) -> None:
        """Merge a measurement."""
        gain = max(report.gain, 0.0)
        scale = abs(report.student_return) + gain + 1e-12
        keep = self._memory if self._scale > 0 else 0.0
        self._gain = keep * self._gain + (1 - keep) * gain
        self._scale = keep * self._scale + (1 - keep) * scale


class StepBudget:
    """Save simulated steps up until they pay for something.

    Steps, not seconds, decide, so that the same seed gives the same run on any machine.
    """

    def __init__(self) -> None:
        self._saved = 0.0

    def earn(self, sim_steps: int, share: float) -> None:
        """Add what lets the purchases make up `share` of all steps, in [0, 1)."""
        self._saved += sim_steps * share / (1 - share)

    def has(self, cost: int) -> bool:
        """Say whether `cost` steps are there."""
        return self._saved >= cost

    def pay(self, cost: int) -> None:
        """Take `cost` steps out."""
        self._saved -= cost


class PhaseTimer:
    """Add up the seconds that each phase of a round takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a with-block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside: in small networks threads only wait for each other."""
    num_threads = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(num_threads)
