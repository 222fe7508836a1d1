"""The code in docs/cloning.md runs as it stands, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

from mppi_agent.cloning import registry

DOCUMENT = Path(__file__).parents[2] / "docs" / "cloning.md"


def test_code_in_the_document_runs_and_its_envs_are_exact(monkeypatch, capsys):
    monkeypatch.setattr(registry, "_registered", [])
    names = {"__name__": "cloning_document"}
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert printed.count("bit-exact") == printed.count("cloning ") == 3
    assert "adapter    engine" in printed and "adapter    user_protocol" in printed
