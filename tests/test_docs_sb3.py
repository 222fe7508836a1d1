"""docs/sb3.md: the tests that its table names exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "sb3.md").read_text()


def test_the_tests_that_the_table_names_exist():
    table = PAGE.split("## Can I use?")[1].split("## Stop and go on")[0]
    named = set(re.findall(r"`(?:\w+\.py::)?(test_\w+)`", table))
    there = set(re.findall(r"def (test_\w+)", "".join(p.read_text() for p in TESTS.rglob("*.py"))))
    assert len(named) > 30
    assert named <= there
