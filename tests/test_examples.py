"""Each example runs as it stands and prints a sensible number."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def _last_number(name: str, directory: Path, pattern: str) -> float:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(pattern, done.stdout)
    assert found, done.stdout
    return float(found[-1])


def test_the_expert_swings_a_pendulum_up(tmp_path):
    assert _last_number("plan_with_expert.py", tmp_path, r"return (-?[\d.]+)") > -400


def test_an_env_of_ones_own_is_planned_for(tmp_path):
    assert _last_number("own_env.py", tmp_path, r"60 steps: ([\d.]+)") < 0.2


@pytest.mark.slow
def test_a_policy_climbs_the_mountain(tmp_path):
    assert _last_number("train_policy.py", tmp_path, r"return (-?[\d.]+)") > 85


@pytest.mark.slow
def test_the_class_is_swapped(tmp_path):
    assert _last_number("swap_the_class.py", tmp_path, r"MPPIGPS: return (-?[\d.]+)") > -700


def test_all_examples_are_tested():
    text = Path(__file__).read_text()
    assert all(path.name in text for path in EXAMPLES.glob("*.py"))
