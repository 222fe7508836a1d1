"""Read what runs logged, and put those that differ in the seed alone into one curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mppi_agent.intervals import mean_interval
from mppi_agent.runs.folder import RunFolder
from mppi_agent.runs.metrics import STEPS, read_evaluations, read_progress

__all__ = ["Curve", "Line", "read_curves"]

_NO_SETTING = ("seed", "eval_freq", "eval_episodes", "checkpoint_freq", "tensorboard")
_PHASE = "seconds/"


@dataclass(frozen=True)
class Line:
    """Hold one figure along training, for each of some runs.

    Attributes:
        steps: Real env steps, rising, shape (points,).
        values: Shape (runs, points).
    """

    steps: np.ndarray
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Over runs, shape (points,)."""
        return self.values.mean(axis=0)

    @property
    def band(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Confidence interval of the mean over runs; None with one run."""
        return mean_interval(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Hold what runs of the same settings logged.

    Attributes:
        env: Id of the training env.
        label: What sets these settings apart from those of other curves.
        seeds: One per run.
        returns: Mean return of the deterministic policy.
        is_simulated: Whether returns are from simulated evaluations, where a run has no others.
        gap: How far plans beat the student, 0 to 1; None where it was never measured.
        minutes: Wall-clock of training; what callbacks take counts as collecting.
        seconds: Spent in each phase, mean over runs.
    """

    env: str
    label: str
    seeds: tuple[int, ...]
    returns: Line
    is_simulated: bool
    gap: Line | None
    minutes: Line
    seconds: dict[str, float]

    def minutes_at(self, steps: np.ndarray) -> np.ndarray:
        """Return the wall-clock at real env steps, mean over runs."""
        return np.interp(steps, self.minutes.steps, self.minutes.mean)

    def __str__(self) -> str:
        """Say where it ends."""
        final = f"{self.returns.mean[-1]:.1f}"
        if self.returns.band is not None:
            low, high = (end[-1] for end in self.returns.band)
            final += f" [{low:.1f}, {high:.1f}]"
        runs = "1 run" if len(self.seeds) == 1 else f"{len(self.seeds)} runs"
        return f"{self.label}: return {final} at step {self.returns.steps[-1]:,.0f}, {runs}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        band = self.returns.band
        return {
            "env": self.env,
            "label": self.label,
            "seeds": list(self.seeds),
            "is_simulated": self.is_simulated,
            "steps": self.returns.steps.tolist(),
            "minutes": self.minutes_at(self.returns.steps).tolist(),
            "mean_return": self.returns.mean.tolist(),
            "low": None if band is None else band[0].tolist(),
            "high": None if band is None else band[1].tolist(),
            "gap": None if self.gap is None else float(self.gap.mean[-1]),
            "seconds": self.seconds,
        }


def read_curves(paths: Sequence[Path]) -> list[Curve]:
    """Read runs and group them by their settings.

    Args:
        paths: Folders of runs in one env.

    Returns:
        One curve per setting, in the order of `paths`.

    Raises:
        ValueError: If a folder is no run or has no evaluation yet, envs differ, or runs of one
            setting share a seed or no step.
        FileNotFoundError: If there is no such folder.
    """
    runs = [_read_run(path) for path in paths]
    envs = sorted({run.env for run in runs})
    if len(envs) > 1:
        raise ValueError(f"runs in {' and '.join(envs)} share no axes: plot one env at a time")
    groups: dict[str, list[_Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    labels = _labels([group[0].settings for group in groups.values()])
    return [_curve(group, label) for group, label in zip(groups.values(), labels, strict=True)]


class _Run(NamedTuple):
    path: Path
    env: str
    seed: int
    settings: dict[str, Any]
    rows: list[dict[str, float]]
    evaluations: tuple[np.ndarray, np.ndarray] | None  # steps, mean returns

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return steps and values of the rows that have a figure."""
        rows = [row for row in self.rows if name in row and STEPS in row]
        return np.array([row[STEPS] for row in rows]), np.array([row[name] for row in rows])

    def gap(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the planner-student gap, which holds from one measurement to the next."""
        steps, values = self.column("planner/gap")
        last = [row[STEPS] for row in self.rows if STEPS in row][-1:]
        return np.append(steps, last if len(steps) else []), np.append(values, values[-1:])

    def minutes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return steps, from 0 on, and the wall-clock at them."""
        rows = [row for row in self.rows if f"{_PHASE}sample" in row]
        seconds = [sum(v for k, v in row.items() if k.startswith(_PHASE)) for row in rows]
        return np.array([0, *(row[STEPS] for row in rows)]), np.array([0, *seconds]) / 60


def _read_run(path: Path) -> _Run:
    folder = RunFolder.find(path)
    config = asdict(folder.read_config())
    evaluations = None
    if folder.evaluations.exists():
        steps, returns = read_evaluations(folder.evaluations)
        evaluations = steps, returns.mean(axis=1)
    rows = read_progress(folder.progress) if folder.progress.exists() else []
    settings = {key: value for key, value in config.items() if key not in _NO_SETTING}
    return _Run(folder.path, config["env"], config["seed"], settings, rows, evaluations)


def _curve(runs: list[_Run], label: str) -> Curve:
    seeds = [run.seed for run in runs]
    names = ", ".join(str(run.path) for run in runs)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{names} share a seed, but a band is across seeds: leave one out")
    evaluations = [run.evaluations for run in runs if run.evaluations is not None]
    is_simulated = len(evaluations) < len(runs)
    returns = _line(
        [run.column("student/mean_reward") for run in runs] if is_simulated else evaluations
    )
    minutes = _line([run.minutes() for run in runs])
    if returns is None or minutes is None:
        raise ValueError(f"no evaluation at a step that all of these have reached: {names}")
    return Curve(
        env=runs[0].env,
        label=label,
        seeds=tuple(seeds),
        returns=returns,
        is_simulated=is_simulated,
        gap=_line([run.gap() for run in runs]),
        minutes=minutes,
        seconds=_mean_seconds(runs),
    )


def _line(parts: list[tuple[np.ndarray, np.ndarray]]) -> Line | None:
    """Put figures of several runs on common steps; None where they have none in common."""
    if not all(len(steps) for steps, _ in parts):
        return None
    first, last = max(steps[0] for steps, _ in parts), min(steps[-1] for steps, _ in parts)
    union = np.unique(np.concatenate([steps for steps, _ in parts]))
    common = union[(union >= first) & (union <= last)]
    if not len(common):
        return None
    return Line(common, np.array([np.interp(common, steps, values) for steps, values in parts]))


def _mean_seconds(runs: list[_Run]) -> dict[str, float]:
    """Return the mean over runs of what each phase took in all."""
    spent: dict[str, list[float]] = {}
    for run in runs:
        latest = {k: v for row in run.rows for k, v in row.items() if k.startswith(_PHASE)}
        for name, value in latest.items():
            spent.setdefault(name.removeprefix(_PHASE), []).append(value)
    return {name: sum(values) / len(runs) for name, values in sorted(spent.items())}


def _labels(settings: list[dict[str, Any]]) -> list[str]:
    """Name settings by what is not the same in all of them."""
    flat = [
        {
            f"{key}.{name}" if name else key: inner
            for key, value in one.items()
            for name, inner in (value.items() if isinstance(value, dict) else [("", value)])
        }
        for one in settings
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    varied = [key for key in keys if len({json.dumps(one.get(key, "default")) for one in flat}) > 1]
    return [
        ", ".join(f"{key.rpartition('.')[2]} {one.get(key, 'default')}" for key in varied)
        or "MPPIGPS"
        for one in flat
    ]
