"""docs/sb3.md: its code runs, and the tests that its table names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "sb3.md").read_text()


def test_the_tests_that_the_table_names_exist():
    table = PAGE.split("## Can I use?")[1].split("## Stop and go on")[0]
    named = set(re.findall(r"`(?:\w+\.py::)?(test_\w+)`", table))
    there = set(re.findall(r"def (test_\w+)", "".join(p.read_text() for p in TESTS.rglob("*.py"))))
    assert len(named) > 30
    assert named <= there


@pytest.mark.slow
def test_the_code_on_the_page_runs(tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoint.zip").exists()
