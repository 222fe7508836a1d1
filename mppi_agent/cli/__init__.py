"""The command `mppi-agent`: parse arguments, call the library, print what it returns."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mppi_agent import __version__
from mppi_agent.cli.commands import INTERRUPTED
from mppi_agent.cli.export import add_export
from mppi_agent.cli.measure import add_bench, add_check, add_compare
from mppi_agent.cli.plan import add_plan, add_tune
from mppi_agent.cli.train import add_eval, add_plot, add_train
from mppi_agent.env_ids import make_env
from mppi_agent.media import MediaError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit code: 0 for success, 1 if `check` finds an env that cannot be cloned exactly, 2 for bad
        input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    options = _parser().parse_args(argv)
    try:
        if getattr(options, "env", None) is not None:
            make_env(options.env).close()
        return int(options.run(options))
    except KeyboardInterrupt:
        print("mppi-agent: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, MediaError) as error:
        if options.debug:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"mppi-agent: error: {message}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mppi-agent",
        description="MPPI-guided policy learning on Gymnasium envs whose state can be cloned.",
        epilog="examples:\n"
        "  mppi-agent check Pendulum-v1\n"
        "  mppi-agent plan Pendulum-v1\n"
        "  mppi-agent train HalfCheetah-v5 --minutes 5 --out cheetah.zip\n"
        "  mppi-agent eval cheetah.zip --env HalfCheetah-v5\n"
        "  mppi-agent train --resume runs/HalfCheetah-v5/mppigps_1\n"
        "  mppi-agent plot runs/HalfCheetah-v5/mppigps_1\n"
        "  mppi-agent compare Pendulum-v1 --minutes 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mppi-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_train(commands)
    add_eval(commands)
    add_export(commands)
    add_plot(commands)
    add_plan(commands)
    add_tune(commands)
    add_compare(commands)
    add_check(commands)
    add_bench(commands)
    return parser
