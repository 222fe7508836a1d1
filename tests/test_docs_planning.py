"""docs/planning.md: its code runs, and its command lines are ones that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mppi_agent import planning
from mppi_agent.cli import _parser

PAGE = (Path(__file__).parents[1] / "docs" / "planning.md").read_text()


def test_the_code_on_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "planning_page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out
    assert "ranked by something else: True" in printed
    assert "states remembered: 3" in printed
    assert "samples, proposals among them: (1, 16, 8, 1)" in printed
    assert '\nTrue\n# not measured\n"Pendulum-v1": {' in printed


def test_the_terms_that_the_table_names_are_public():
    named = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    assert len(named) == 8
    assert set(named) <= set(planning.__all__)


@pytest.mark.parametrize("line", re.findall(r"^mppi-agent (.*)$", PAGE, re.MULTILINE))
def test_the_command_lines_are_understood(line):
    assert _parser().parse_args(shlex.split(line)).env == "Hopper-v5"
