"""The command `mppi-agent`: parse arguments, call the library, print what it returns."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence

from mppi_agent import __version__
from mppi_agent.cli.commands import CLOSED_PIPE, INTERRUPTED
from mppi_agent.cli.export import add_export
from mppi_agent.cli.measure import add_bench, add_check, add_compare
from mppi_agent.cli.plan import add_plan, add_tune
from mppi_agent.cli.train import add_eval, add_plot, add_train
from mppi_agent.env_ids import make_env
from mppi_agent.media import MediaError

__all__ = ["main"]

# Of envs and of torch, too; what is not here is a fault of ours, and shows its traceback.
_FOR_USERS = (ValueError, TypeError, OSError, ImportError, RuntimeError, MediaError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit code: 0 for success, 1 if `check` finds an env that cannot be cloned exactly, 2 for bad
        input, 130 after Ctrl-C, 141 where nobody reads on, 143 after SIGTERM.
    """
    options = _parser().parse_args(argv)
    options.stdout = sys.stdout
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a result is worth more than its plus-minus sign
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where `my_envs:MyEnv-v0` may be, as for `python -m`
    # What envs print must not get into the JSON.
    printed = contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext()
    try:
        with printed:
            if getattr(options, "env", None) is not None:
                make_env(options.env).close()
            return int(options.run(options))
    except KeyboardInterrupt:
        if argv is None:  # a second one would cut the cleaning up
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("mppi-agent: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # of `| head`, say
        sys.stdout = open(os.devnull, "w")
        return CLOSED_PIPE
    except _FOR_USERS as error:
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
        "  mppi-agent train --resume runs/HalfCheetah-v5/mppigps_1 --minutes 10\n"
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
