"""`mppi-agent export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mppi_agent.cli.commands import add_command, print_result

__all__ = ["add_export"]


def add_export(commands: Any) -> None:
    """Add `export`."""
    command = add_command(
        commands,
        "export",
        _export,
        "write a saved policy as ONNX or TorchScript, with its normalisation",
        ["export cheetah.zip --onnx cheetah.onnx", "export cheetah.zip --torchscript cheetah.pt"],
    )
    command.add_argument("model", metavar="MODEL", type=Path, help="file that train saved")
    command.add_argument("--onnx", metavar="FILE", type=Path, help="needs the package onnx")
    command.add_argument("--torchscript", metavar="FILE", type=Path, help="for torch.jit.load")


def _export(options: argparse.Namespace) -> int:
    from mppi_agent.gps import MPPIGPS
    from mppi_agent.gps.export import export_onnx, export_torchscript

    files = {"onnx": options.onnx, "torchscript": options.torchscript}
    wanted = {kind: path for kind, path in files.items() if path is not None}
    if not wanted:
        raise ValueError("name a file to write: --onnx FILE, --torchscript FILE or both")
    model = MPPIGPS.load(options.model, device="cpu")
    for kind, path in wanted.items():
        export = export_onnx if kind == "onnx" else export_torchscript
        export(model, path)
    result = {"model": str(options.model), **{kind: str(path) for kind, path in wanted.items()}}
    print_result(options, result, "\n".join(f"wrote {path}" for path in wanted.values()))
    return 0
