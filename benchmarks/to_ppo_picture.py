"""Draw the curves of `to_ppo.csv`: PPO from MPPIGPS's weights, and beside it.

python benchmarks/to_ppo_picture.py docs/images/to_ppo.png
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

from mppi_agent.media import new_figure, tidy_axes

LABELS = {
    "to_ppo": "to_ppo",
    "defaults": "same weights, PPO's defaults",
    "scratch": "from scratch, zoo settings",
}
COLOURS = {"to_ppo": "C0", "defaults": "C1", "scratch": "C2"}


def main() -> None:
    """Write the picture that the command line names."""
    rows = list(csv.DictReader(Path(__file__).with_name("to_ppo.csv").open()))
    envs = list(dict.fromkeys(row["env"] for row in rows))
    figure = new_figure((5.0 * len(envs), 3.6))
    for number, env in enumerate(envs):
        axes = figure.add_subplot(1, len(envs), number + 1)
        curves: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
        for row in rows:
            if row["env"] == env:
                curves[row["arm"], row["seed"]].append((int(row["steps"]), float(row["mean"])))
        for (arm, seed), points in sorted(curves.items()):
            label = LABELS[arm] if seed == min(s for a, s in curves if a == arm) else None
            axes.plot(*zip(*points, strict=True), color=COLOURS[arm], label=label)
        axes.set_title(f"{env}, one line per seed of PPO")
        axes.set_xlabel("env steps of PPO")
        axes.set_ylabel("return, 10 held-out episodes")
        axes.legend(frameon=False, loc="center")
        tidy_axes(axes)
    figure.savefig(sys.argv[1])


if __name__ == "__main__":
    main()
