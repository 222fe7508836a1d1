"""Lines of CSV that say where, with what and from which commit a number was measured."""

from __future__ import annotations

import csv
import platform
import subprocess
from pathlib import Path

from mppi_agent.machine import describe_machine

__all__ = ["PROVENANCE", "append", "commit", "provenance"]

PROVENANCE = ("cores", "commit", "versions", "machine")


def provenance() -> dict[str, object]:
    """Return the columns `PROVENANCE`: cores that this process may use, commit, versions."""
    found = describe_machine()
    return {
        "cores": found["cores"],
        "commit": commit(),
        "versions": " ".join(f"{name}={version}" for name, version in found["versions"].items()),
        "machine": platform.machine(),
    }


def append(path: Path, row: dict[str, object], fields: list[str] | None = None) -> None:
    """Add a line to a CSV, with a head if it is new.

    Args:
        path: Of the file; its folder is made.
        row: By column.
        fields: Order of the columns, where a row may leave some out; None: that of `row`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields or list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def commit() -> str:
    """Return the commit that is measured, with a mark if files other than CSVs differ from it."""
    return _COMMIT


def _commit() -> str:
    root = Path(__file__).parents[1]
    commands = (
        ["describe", "--always"],
        ["status", "--porcelain", "--", ".", ":!benchmarks/*.csv"],
    )
    described, changed = (
        subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()
        for words in commands
    )
    return f"{described}-dirty" if changed else described


_COMMIT = _commit()  # of what is imported now, not of what is committed while it runs
