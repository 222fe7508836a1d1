"""One process's part of a run: learn with callbacks, stop at any time, leave the folder in order.

config, model --learn--> log, evaluations, checkpoints --> model, record of the session
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import (
    HumanOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
)

from mppi_agent.gps import MPPIGPS
from mppi_agent.gps.callbacks import ResumableCheckpoint, WallClockBudget
from mppi_agent.machine import describe_machine
from mppi_agent.progress import Progress
from mppi_agent.runs.config import RunConfig
from mppi_agent.runs.folder import RunFolder
from mppi_agent.runs.interrupt import StopOnSignal
from mppi_agent.runs.metrics import EVAL_SEED, Evaluations, csv_log

__all__ = ["Console", "RunResult", "Session"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Hold the outcome of a session.

    Attributes:
        run: Folder of the run.
        model: File of the trained model.
        env: Id of the training env.
        seed: Of the run.
        status: "finished", "stopped" by a signal, or "interrupted" by a second one.
        signal: Number of the signal; None without one.
        training_seconds: Wall-clock of all sessions so far, set-up included.
        env_steps: Real env steps of all sessions so far.
        sim_steps: Env steps simulated beside them.
        checkpoint_step: Real env step that a resumed run goes on from.
    """

    run: Path
    model: Path
    env: str
    seed: int
    status: str
    signal: int | None
    training_seconds: float
    env_steps: int
    sim_steps: int
    checkpoint_step: int

    def __str__(self) -> str:
        """Say what came of it, and how to go on if it can."""
        done = f"{self.env_steps:,} env steps, {self.sim_steps:,} simulated steps"
        lines = [
            f"{self.status} after {self.training_seconds:.1f} s: {done}",
            f"run {self.run}",
            f"saved {self.model}",
        ]
        if self.status != "finished":
            step = f"from step {self.checkpoint_step:,}"
            lines.append(f"go on {step}: mppi-agent train --resume {self.run}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return asdict(self) | {"run": str(self.run), "model": str(self.model)}


@dataclass(frozen=True, kw_only=True)
class Console:
    """Say what is shown while a run trains.

    Attributes:
        verbose: Whether the log is printed on stdout.
        show_progress: Whether a bar is drawn on stderr.
        report: Gets a line on what is going on now.
    """

    verbose: bool = False
    show_progress: bool = False
    report: Callable[[str], None] = lambda line: None


class Session:
    """Train, save and record: one process's part of a run.

    Args:
        folder: Of the run.
        config: What the run is asked to do.
        model: New, or loaded from a checkpoint.
        started: When set-up began, as `time.perf_counter` counts.
        console: What is shown meanwhile.
        out: Gets the trained model, beside the folder; None: nothing does.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        model: MPPIGPS,
        started: float,
        console: Console,
        out: Path | None,
    ) -> None:
        self.folder, self.config, self.model = folder, config, model
        self._started, self._console, self._out = started, console, out
        self._first_step = model.num_timesteps
        self._checkpoint_step = self._first_step or None
        self._earlier: list[dict[str, Any]] = folder.read_record()["sessions"]
        self._earlier_seconds = sum(one["seconds"] for one in self._earlier)
        self._began = datetime.now(UTC).isoformat(timespec="seconds")
        self._machine = describe_machine()

    @property
    def seconds(self) -> float:
        """Wall-clock of all sessions so far."""
        return self._earlier_seconds + time.perf_counter() - self._started

    def check_is_incomplete(self) -> None:
        """Refuse to go on where nothing is left to do."""
        steps, minutes = self.config.total_timesteps, self.config.minutes
        if self._first_step >= steps:
            done, cure = f"{self._first_step:,} of {steps:,} steps", "--steps"
        elif minutes is not None and self._earlier_seconds >= 60 * minutes:
            done, cure = f"{self._earlier_seconds / 60:.1f} of {minutes:g} minutes", "--minutes"
        else:
            return
        raise ValueError(f"{self.folder.path} is complete, {done}: go on with more {cure}")

    def run(self) -> RunResult:
        """Learn, save and record."""
        with StopOnSignal(self._console.report) as stop:
            try:
                status = self._learn_and_save(stop)
            except BaseException as error:
                with suppress(OSError):  # where even this cannot be written, `error` says why
                    self.record("failed")
                if isinstance(error, OSError) and error.errno in _NO_SPACE:
                    raise OSError(self._full_disk()) from error
                raise
        return RunResult(
            run=self.folder.path,
            model=self._out or self.folder.model,
            env=self.config.env,
            seed=self.config.seed,
            status=status,
            signal=None if stop.signal is None else int(stop.signal),
            training_seconds=self.seconds,
            env_steps=self.model.num_timesteps,
            sim_steps=self.model.num_sim_steps,
            checkpoint_step=self._checkpoint_step or 0,
        )

    def checkpointed(self) -> None:
        """Note that there is a checkpoint of now."""
        self._checkpoint_step = self.model.num_timesteps
        self.record("running")

    def record(self, status: str) -> None:
        """Write down what this session did so far."""
        session = {
            "started": self._began,
            "status": status,
            "from_step": self._first_step,
            "to_step": self.model.num_timesteps,
            "sim_steps": self.model.num_sim_steps,
            "seconds": self.seconds - self._earlier_seconds,
            "command": sys.argv,
            "machine": self._machine,
        }
        self.folder.write_record(
            {
                "env": self.config.env,
                "seeds": {"training": self.config.seed, "evaluation": EVAL_SEED},
                "sessions": [*self._earlier, session],
            }
        )

    def _learn_and_save(self, stop: StopOnSignal) -> str:
        self.record("running")
        try:
            self._learn(stop)
            status = "finished" if stop.signal is None else "stopped"
        except KeyboardInterrupt:
            # An update that was cut short is in no checkpoint that training goes on from exactly.
            status = "interrupted"
            if self._checkpoint_step is None:
                self.model.save_checkpoint(self.folder.checkpoint)
                self._checkpoint_step = self.model.num_timesteps
        for path in (self.folder.model, self._out):
            if path is not None:
                self.model.save(path)
        self.record(status)
        return status

    def _learn(self, stop: StopOnSignal) -> None:
        config, model = self.config, self.model
        log = Logger(str(self.folder.path), self._log_formats())
        model.set_logger(log)
        total = config.total_timesteps
        budget_s = None if config.minutes is None else 60 * config.minutes
        unit = "steps" if budget_s is None else "s"
        with Progress(
            "train", budget_s or total, unit, is_shown=self._console.show_progress
        ) as progress:
            callbacks: list[BaseCallback] = [_Checkpoint(self), stop, _Bar(self, progress)]
            if config.eval_freq:
                callbacks.insert(0, Evaluations(self.folder, config, self._first_step))
            if budget_s is not None:
                callbacks.append(WallClockBudget(budget_s, spent=self.seconds))
            try:
                model.learn(
                    total - self._first_step,
                    callbacks,
                    reset_num_timesteps=self._first_step == 0,
                    **config.learn_arguments(),
                )
            finally:
                log.close()

    def _log_formats(self) -> list[KVWriter]:
        formats: list[KVWriter] = [csv_log(self.folder.progress, self._first_step)]
        if self.config.tensorboard:
            formats.append(TensorBoardOutputFormat(str(self.folder.path / "tensorboard")))
        if self._console.verbose:
            formats.append(HumanOutputFormat(sys.stdout))
        return formats

    def _full_disk(self) -> str:
        what = f"the disk is full, training stopped at step {self.model.num_timesteps:,}"
        if self._checkpoint_step is None:
            return f"{what}, before the first checkpoint: make room and train anew"
        return (
            f"{what}; the checkpoint of step {self._checkpoint_step:,} is whole: make room, then "
            f"mppi-agent train --resume {self.folder.path}"
        )


class _Checkpoint(ResumableCheckpoint):
    """Keeps the record of the session up to date, too."""

    def __init__(self, session: Session) -> None:
        config = session.config
        super().__init__(session.folder.checkpoint, max(config.checkpoint_freq // config.n_envs, 1))
        self.n_calls = session.model.num_timesteps // config.n_envs
        self._session = session

    def _save(self) -> None:
        super()._save()
        self._session.checkpointed()


class _Bar(BaseCallback):
    """Moves the progress bar."""

    def __init__(self, session: Session, progress: Progress) -> None:
        super().__init__()
        self._session, self._progress = session, progress

    def _on_step(self) -> bool:
        is_timed = self._session.config.minutes is not None
        self._progress.reach(self._session.seconds if is_timed else self.num_timesteps)
        return True
