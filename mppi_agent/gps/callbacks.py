"""Callbacks for MPPIGPS, to be passed to `learn` like any of SB3's."""

from __future__ import annotations

import time

from stable_baselines3.common.callbacks import BaseCallback

__all__ = ["WallClockBudget"]


class WallClockBudget(BaseCallback):
    """Stop training after some seconds, and let schedules run along the clock.

    Args:
        seconds: From `on_training_start` on, > 0; overrun by at most one round.
        verbose: As in SB3.

    Raises:
        ValueError: If `seconds` is not positive.
    """

    def __init__(self, seconds: float, verbose: int = 0) -> None:
        super().__init__(verbose)
        if not seconds > 0:
            raise ValueError(f"seconds must be > 0, got {seconds}")
        self.seconds = seconds
        self._started = 0.0

    def used(self) -> float:
        """Return the share of the budget that is used; above 1 once it is over."""
        return (time.perf_counter() - self._started) / self.seconds

    def _on_training_start(self) -> None:
        self._started = time.perf_counter()
        # Only MPPIGPS has a clock; other algorithms are just stopped.
        if hasattr(self.model, "clock"):
            self.model.clock = self.used

    def _on_step(self) -> bool:
        return self.used() < 1.0

    def _on_training_end(self) -> None:
        if hasattr(self.model, "clock"):
            self.model.clock = None
