"""The folder of a run: where each file lies, and the record of who trained it when.

runs/Pendulum-v1/mppigps_1/
    config.yaml       what the run was asked to do
    run.json          seeds, and for each session machine, versions, steps and seconds
    progress.csv      the log, as Stable-Baselines3 writes it
    evaluations.npz   of Stable-Baselines3's EvalCallback, beside best_model.zip
    checkpoint.zip    training goes on from here as if it had not stopped
    model.zip         what training ended with
    tensorboard/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mppi_agent.gps.resume import write_file
from mppi_agent.runs.config import RunConfig

__all__ = ["RunFolder", "env_folder_name"]


def env_folder_name(env_id: str) -> str:
    """Return an env id as one that file systems take."""
    return env_id.replace("/", "-").replace(":", "-")


@dataclass(frozen=True)
class RunFolder:
    """Name the files of a run, and read and write the small ones.

    Attributes:
        path: Of the folder.
    """

    path: Path

    @classmethod
    def create(cls, root: Path, env_id: str) -> RunFolder:
        """Make the folder of a new run; runs of one env are numbered."""
        parent = root / env_folder_name(env_id)
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = parent / f"mppigps_{number}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return cls(path)

    @classmethod
    def find(cls, path: Path) -> RunFolder:
        """Return the run that a folder, or a file within it, belongs to.

        Raises:
            ValueError: If it is no run.
            FileNotFoundError: If there is nothing of that name.
        """
        if not path.exists():
            raise FileNotFoundError(f"there is no run or file {path}")
        folder = cls(path if path.is_dir() else path.parent)
        if not folder.config_file.exists():
            raise ValueError(
                f"{folder.path} is no run: it holds no {folder.config_file.name}; name a folder "
                "that `mppi-agent train` made, or a file within it"
            )
        return folder

    @property
    def config_file(self) -> Path:
        """What the run was asked to do."""
        return self.path / "config.yaml"

    @property
    def record_file(self) -> Path:
        """Seeds and sessions."""
        return self.path / "run.json"

    @property
    def progress(self) -> Path:
        """The log."""
        return self.path / "progress.csv"

    @property
    def evaluations(self) -> Path:
        """Of the policy, on seeds that neither training nor `eval` uses."""
        return self.path / "evaluations.npz"

    @property
    def checkpoint(self) -> Path:
        """What training goes on from."""
        return self.path / "checkpoint.zip"

    @property
    def model(self) -> Path:
        """What training ended with."""
        return self.path / "model.zip"

    def read_config(self) -> RunConfig:
        """Return what the run was asked to do."""
        return RunConfig.read(self.config_file)

    def write_config(self, config: RunConfig) -> None:
        """Replace what the run is asked to do."""
        text = config.dump()
        write_file(self.config_file, "", lambda file: _write(file, text))

    def read_record(self) -> dict[str, Any]:
        """Return seeds and sessions; no session where there is no record."""
        if not self.record_file.exists():
            return {"sessions": []}
        record: dict[str, Any] = json.loads(self.record_file.read_text())
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace seeds and sessions."""
        text = json.dumps(record, indent=2) + "\n"
        write_file(self.record_file, "", lambda file: _write(file, text))


def _write(file: Any, text: str) -> None:
    file.write(text.encode())
