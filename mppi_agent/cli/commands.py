"""What all commands share."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

__all__ = ["CLOSED_PIPE", "INTERRUPTED", "add_command", "add_device", "print_result"]

INTERRUPTED = 130  # what shells report for Ctrl-C
CLOSED_PIPE = 141  # and for a pipe that nobody reads


def add_command(
    commands: Any,
    name: str,
    run: Any,
    help_line: str,
    examples: Sequence[str],
    *,
    seed_help: str = "default: 0",
    default_seed: int | None = 0,
) -> argparse.ArgumentParser:
    """Add a command with what all of them share."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_line,
        description=help_line,
        epilog="examples:\n" + "\n".join(f"  mppi-agent {line}" for line in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run, env=None)
    command.add_argument("--seed", type=_seed, default=default_seed, help=seed_help)
    command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return command


def add_device(command: argparse.ArgumentParser, default: str | None = "auto") -> None:
    """Add `--device`."""
    command.add_argument("--device", default=default, help="of torch: auto (default), cpu, cuda")


def print_result(options: argparse.Namespace, result: Any, text: str) -> None:
    """Print what a command found, as text or as one JSON object, null for what is no number."""
    said = json.dumps(_finite(result), allow_nan=False) if options.json else text
    print(said, file=options.stdout, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise argparse.ArgumentTypeError(f"must be >= 0, got {seed}")
    return seed
