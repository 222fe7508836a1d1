"""The two files of figures that a run writes: its log and its evaluations, across sessions.

A session that goes on from a checkpoint drops what an earlier one wrote after it, so that the files
read as those of a run that never stopped.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import CSVOutputFormat

from mppi_agent.env_ids import make_env
from mppi_agent.evaluation import limited
from mppi_agent.runs.config import RunConfig
from mppi_agent.runs.folder import RunFolder

__all__ = ["EVAL_SEED", "STEPS", "Evaluations", "csv_log", "read_evaluations", "read_progress"]

STEPS = "time/total_timesteps"
EVAL_SEED = 1_000_000  # apart from the seeds of training and those held out for `eval`


def read_progress(path: Path) -> list[dict[str, float]]:
    """Return the rows of a log, each with the numbers that it has.

    Raises:
        FileNotFoundError: If there is no log.
    """
    return [
        {name: number for name, text in row.items() if (number := _number(text)) is not None}
        for row in _read(path)[1]
    ]


def csv_log(path: Path, until_step: int) -> CSVOutputFormat:
    """Return a log that goes on behind the rows that an older one has up to a step.

    Args:
        path: Of the log.
        until_step: Rows of later steps are dropped.
    """
    names, rows = _read(path) if path.exists() else ([], [])
    new = path.with_name(f"{path.name}.tmp")
    log = CSVOutputFormat(str(new))
    if names:
        log.keys = names
        writer = csv.DictWriter(log.file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if (_number(row[STEPS]) or 0) <= until_step)
        log.file.flush()
    os.replace(new, path)
    return log


def read_evaluations(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return steps, shape (evaluations,), and returns, shape (evaluations, episodes)."""
    with np.load(path) as file:
        return file["timesteps"], file["results"]


class Evaluations(EvalCallback):
    """Evaluate on the same episodes each time, and go on where an earlier session stopped.

    Args:
        folder: Gets evaluations.npz, replaced in one step, and best_model.zip.
        config: Of the run.
        until_step: Evaluations of later steps are dropped.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, until_step: int) -> None:
        super().__init__(
            make_vec_env(lambda: limited(make_env(config.env)), config.eval_episodes),
            n_eval_episodes=config.eval_episodes,
            eval_freq=max(config.eval_freq // config.n_envs, 1),
            best_model_save_path=str(folder.path),
            verbose=0,
        )
        self._file = folder.evaluations
        self._new_file = folder.path / "evaluations.tmp.npz"
        self.log_path = str(self._new_file.with_suffix(""))
        self.n_calls = until_step // config.n_envs
        if self._file.exists():
            self._take_up(until_step)

    def _take_up(self, until_step: int) -> None:
        with np.load(self._file) as file:
            kept = file["timesteps"] <= until_step
            self.evaluations_timesteps = file["timesteps"][kept].tolist()
            self.evaluations_results = file["results"][kept].tolist()
            self.evaluations_length = file["ep_lengths"][kept].tolist()
            if "successes" in file:
                self.evaluations_successes = file["successes"][kept].tolist()
        if self.evaluations_results:
            self.best_mean_reward = max(map(float, np.mean(self.evaluations_results, axis=1)))

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        self.eval_env.seed(EVAL_SEED)
        goes_on = super()._on_step()
        os.replace(self._new_file, self._file)
        return goes_on

    def _on_training_end(self) -> None:
        self.eval_env.close()


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return names and rows of a log."""
    with path.open() as file:
        whole = [line for line in file if line.endswith("\n")]  # a kill may leave half of the last
    reader = csv.DictReader(whole)
    return list(reader.fieldnames or []), list(reader)


def _number(text: str) -> float | None:
    """Return a number or truth value; None for other text and for none."""
    if text in ("True", "False"):
        return float(text == "True")
    try:
        return float(text)
    except ValueError:
        return None
