"""The rl-baselines3-zoo with MPPIGPS among its algorithms.

    python -m mppi_agent.zoo train --algo mppigps --env Pendulum-v1
    python -m mppi_agent.zoo enjoy --algo mppigps --env Pendulum-v1 -f logs

Everything after the command goes to the zoo as it is; so its other algorithms, its log folders and
its options work as in `python -m rl_zoo3.train`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

__all__ = ["HYPERPARAMS", "main", "register"]

HYPERPARAMS = Path(__file__).parent / "hyperparams" / "mppigps.yml"
_COMMANDS = ("train", "enjoy")


def register() -> None:
    """Add MPPIGPS to the algorithms of the zoo in this process, as "mppigps".

    Raises:
        ImportError: If the zoo is missing.
    """
    if find_spec("rl_zoo3") is None:
        raise ImportError(
            "mppi_agent.zoo needs the rl-baselines3-zoo: pip install 'mppi-agent[zoo]'"
        )
    import rl_zoo3

    from mppi_agent.gps import MPPIGPS

    rl_zoo3.ALGOS["mppigps"] = MPPIGPS


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command of the zoo.

    Args:
        argv: "train" or "enjoy", and what the zoo is to see; None takes that of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in _COMMANDS:
        print(f"usage: python -m mppi_agent.zoo {{{','.join(_COMMANDS)}}} [options of the zoo]")
        raise SystemExit(2)
    command, *arguments = arguments
    register()
    if command == "train" and _needs_hyperparams(arguments):
        arguments += ["--conf-file", str(HYPERPARAMS)]
    before = sys.argv
    sys.argv = [f"mppi_agent.zoo {command}", *arguments]  # the zoo reads it, and nothing else
    try:
        getattr(import_module(f"rl_zoo3.{command}"), command)()
    finally:
        sys.argv = before


def _needs_hyperparams(arguments: Sequence[str]) -> bool:
    """Say whether the zoo would look for a file of ours in its own folder."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo")
    parser.add_argument("-conf", "--conf-file")
    known, _ = parser.parse_known_args(arguments)
    return known.algo == "mppigps" and known.conf_file is None


if __name__ == "__main__":
    main()
