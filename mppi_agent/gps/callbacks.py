"""Callbacks for MPPIGPS, to be passed to `learn` like any of SB3's."""

from __future__ import annotations

import time
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from mppi_agent.gps.mppi_gps import MPPIGPS

__all__ = ["ResumableCheckpoint", "WallClockBudget"]


class ResumableCheckpoint(BaseCallback):
    """Keep one file up to date from which training goes on as if it had never stopped.

    Unlike SB3's `CheckpointCallback`, whose files hold the model, this one's holds the whole run;
    see `MPPIGPS.save_checkpoint`.

    Args:
        path: Of the file; ".zip" is added where it has no suffix. Written atomically.
        save_freq: Calls of `env.step` from one checkpoint to the next, >= 1.

    Raises:
        ValueError: If `save_freq` < 1.
    """

    def __init__(self, path: str | Path, save_freq: int = 1000) -> None:
        super().__init__()
        if save_freq < 1:
            raise ValueError(f"save_freq must be >= 1, got {save_freq}")
        self.path = path
        self.save_freq = save_freq

    def _init_callback(self) -> None:
        if not isinstance(self.model, MPPIGPS):
            raise TypeError(
                f"ResumableCheckpoint needs an MPPIGPS model, got {type(self.model).__name__}; "
                "use CheckpointCallback of Stable-Baselines3"
            )

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            self._save()
        return True

    def _on_training_end(self) -> None:
        self._save()

    def _save(self) -> None:
        assert isinstance(self.model, MPPIGPS)
        self.model.save_checkpoint(self.path)


class WallClockBudget(BaseCallback):
    """Stop training after some seconds, and let schedules run along the clock.

    Args:
        seconds: From `on_training_start` on, > 0; overrun by at most one round, and by the last
            evaluation of an MPPIGPS model.
        verbose: As in SB3.
        spent: Seconds of these that are used up already, by set-up or an earlier session.

    Raises:
        ValueError: If `seconds` is not positive.
    """

    def __init__(self, seconds: float, verbose: int = 0, spent: float = 0.0) -> None:
        super().__init__(verbose)
        if not seconds > 0:
            raise ValueError(f"seconds must be > 0, got {seconds}")
        self.seconds = seconds
        self.spent = spent
        self._started = 0.0

    def used(self) -> float:
        """Return the share of the budget that is used; above 1 once it is over."""
        return (self.spent + time.perf_counter() - self._started) / self.seconds

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
