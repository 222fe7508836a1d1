"""Every page says what is so: its code runs, its commands parse, its errors exist."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from run_page import script_of

from mppi_agent.cli import _parser

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
WITH_CODE = [name for name, page in PAGES.items() if script_of(page)]
QUICK = {"cloning.md", "expert.md", "simulation.md"}
OPTIONAL = {"huggingface_sb3", "minari", "onnxruntime", "rl_zoo3"}


def run(page: Path, directory: Path) -> str:
    """Run the code of a page in a process of its own; return what it printed."""
    for package in OPTIONAL & set(re.findall(r"^(?:from|import) (\w+)", script_of(page), re.M)):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_page.py")), str(page)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'envs'}"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in WITH_CODE],
)
def test_the_code_of_a_page_runs_as_it_stands(name, tmp_path):
    printed = run(PAGES[name], tmp_path)
    if name == "cloning.md":
        assert printed.count("bit-exact") == printed.count("cloning ") == 3
        assert "adapter    engine" in printed and "adapter    user_protocol" in printed
    elif name == "resume.md":
        assert (tmp_path / "run" / "checkpoint.zip").exists()
    elif name == "hub.md":
        packed = tmp_path / "you-mppigps-Pendulum-v1"
        assert "64" in printed and "MPPIGPS" in (packed / "README.md").read_text()
        assert json.loads((packed / "results.json").read_text())["n_eval_episodes"] == 3
        assert json.loads((packed / "config.json").read_text())["num_timesteps"] == 64


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_are_understood(name):
    for line in re.findall(r"^ *(mppi-agent .*)$", PAGES[name].read_text(), re.MULTILINE):
        command = shlex.split(line, comments=True)[1:]
        if "..." not in command:
            _parser().parse_args(command)


@cache
def _texts_of_the_source() -> str:
    texts = []
    for path in (ROOT / "mppi_agent").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        texts += [node.value for node in nodes if isinstance(node, ast.Constant)]
    return "\n".join(text for text in texts if isinstance(text, str))


def test_the_errors_that_troubleshooting_names_are_ours():
    named = re.findall(r"^### `(.*)`$", PAGES["troubleshooting.md"].read_text(), re.MULTILINE)
    assert len(named) >= 10
    assert [text for text in named if text not in _texts_of_the_source()] == []


def test_every_public_name_has_a_page():
    import mppi_agent

    written = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    names = [name for name in mppi_agent.__all__ if not name.startswith("_")]
    assert [name for name in names if f".{name}\n" not in written] == []
