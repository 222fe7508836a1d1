"""Draw the curves of runs: returns with bands, planner-student gap, seconds per phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mppi_agent.intervals import CONFIDENCE
from mppi_agent.media import new_figure, tidy_axes
from mppi_agent.runs.curves import Curve, Line

__all__ = ["draw_curves"]

_COLORS = ("#c1272d", "#0071bc", "#3f8f4f", "#d98b1f", "#7b4fa3", "#4d4d4d", "#17a2a2")
_BAND_OPACITY = 0.18


def draw_curves(curves: Sequence[Curve], path: Path, *, x: str = "steps") -> None:
    """Draw curves of one env into a picture.

    Args:
        curves: As `read_curves` returns them, at least one.
        path: Of the picture, its suffix sets the format; its folder is made.
        x: What runs to the right, "steps" of the real env or "minutes" of training.

    Raises:
        ValueError: If `x` is something else, or the suffix is no format of pictures.
        MediaError: If matplotlib is missing.
    """
    if x not in ("steps", "minutes"):
        raise ValueError(f"x must be steps or minutes, got {x!r}")
    figure = new_figure((8.4, 7.2))
    panels = figure.subplot_mosaic(
        [["returns", "returns"], ["gap", "phases"]], height_ratios=[3, 2], width_ratios=[1, 1]
    )
    for curve, color in zip(curves, _cycle(len(curves)), strict=True):
        name = f"{curve.label} (n = {len(curve.seeds)})"
        _draw_line(panels["returns"], curve, curve.returns, x, color, name)
        if curve.gap is not None:
            _draw_line(panels["gap"], curve, curve.gap, x, color, name)
    _name_axes(panels, curves, x)
    _draw_phases(panels["phases"], curves)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_line(axes: Any, curve: Curve, line: Line, x: str, color: str, name: str) -> None:
    along = line.steps if x == "steps" else curve.minutes_at(line.steps)
    marker = "o" if len(along) < 40 else None
    axes.plot(along, line.mean, label=name, color=color, marker=marker, markersize=3)
    if line.band is not None:
        axes.fill_between(along, *line.band, color=color, alpha=_BAND_OPACITY, linewidth=0)


def _name_axes(panels: dict[str, Any], curves: Sequence[Curve], x: str) -> None:
    unit = "real env steps" if x == "steps" else "training time [min]"
    returns, gap = panels["returns"], panels["gap"]
    kind = "simulated episodes" if any(curve.is_simulated for curve in curves) else "evaluations"
    returns.set_ylabel(f"mean return of {kind}")
    title = f"{curves[0].env}: return of the deterministic policy"
    if any(len(curve.seeds) > 1 for curve in curves):
        title += f"; band: {CONFIDENCE:.0%} interval of the mean over seeds"
    returns.set_title(title, fontsize=10)
    returns.legend(frameon=False, loc="best")
    gap.set_title("how far plans beat the student", fontsize=10)
    gap.set_ylabel("share of the planner's return")
    gap.set_ylim(0, 1.02)
    if all(curve.gap is None for curve in curves):
        gap.text(0.5, 0.5, "no labels in these runs", ha="center", transform=gap.transAxes)
    for axes in (returns, gap):
        axes.set_xlabel(unit)
        axes.set_xlim(0, returns.get_xlim()[1])
        tidy_axes(axes)


def _draw_phases(axes: Any, curves: Sequence[Curve]) -> None:
    """Draw one bar per curve, a piece per phase."""
    phases = list(dict.fromkeys(phase for curve in curves for phase in curve.seconds))
    left = np.zeros(len(curves))
    for phase, color in zip(phases, _cycle(len(phases)), strict=True):
        minutes = np.array([curve.seconds.get(phase, 0.0) for curve in curves]) / 60
        axes.barh(range(len(curves)), minutes, left=left, color=color, label=phase, height=0.6)
        left += minutes
    axes.set_yticks(range(len(curves)), [curve.label for curve in curves])
    axes.set_ylim(len(curves) - 0.5, -0.5)
    axes.set_title("where the time went", fontsize=10)
    axes.set_xlabel("minutes per run, mean")
    axes.legend(frameon=False, ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    tidy_axes(axes)


def _cycle(num: int) -> list[str]:
    return [_COLORS[i % len(_COLORS)] for i in range(num)]
