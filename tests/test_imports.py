"""Holds the import table of the design: who may import what, of ours and of others."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW_GPS = {"interfaces", "planning", "cloning", "dynamics", "guide", "expert", "demonstrations"}
FRONT = {
    "baselines",
    "batch_vec_env",
    "bench",
    "bridges",
    "budget",
    "compare",
    "demonstration_formats",
    "env_ids",
    "evaluation",
    "gps",
    "intervals",
    "machine",
    "media",
    "plan_media",
    "plan_run",
    "progress",
    "runs",
    "training",
    "tuning",
    "zoo",
}

# Place: (places of ours, packages of others); the longest matching place counts.
TABLE: dict[str, tuple[set[str], set[str]]] = {
    "mppi_agent/interfaces": (set(), {"numpy"}),
    "mppi_agent/planning": ({"interfaces"}, {"numpy"}),
    "mppi_agent/cloning": ({"interfaces"}, {"numpy", "gymnasium", "cloudpickle"}),
    "mppi_agent/cloning/mujoco": ({"interfaces"}, {"numpy", "gymnasium", "mujoco"}),
    "mppi_agent/dynamics": (
        {"interfaces", "cloning"},
        {"numpy", "gymnasium", "mujoco", "cloudpickle"},
    ),
    "mppi_agent/dynamics/fidelity": ({"interfaces", "cloning", "dynamics"}, {"numpy", "scipy"}),
    "mppi_agent/dynamics/tasks": ({"interfaces"}, {"numpy"}),
    "mppi_agent/guide": ({"interfaces", "planning", "dynamics"}, {"numpy"}),
    "mppi_agent/expert": (BELOW_GPS, {"numpy", "gymnasium"}),
    "mppi_agent/demonstrations": (BELOW_GPS, {"numpy", "gymnasium"}),
    "mppi_agent/demonstration_formats": (
        {"demonstrations"},
        {"numpy", "gymnasium", "minari", "imitation"},
    ),
    "mppi_agent/bridges": (
        {"demonstrations", "dynamics", "gps"},
        {"numpy", "gymnasium", "stable_baselines3"},
    ),
    "mppi_agent/gps": (BELOW_GPS, {"numpy", "gymnasium", "torch", "stable_baselines3"}),
    "mppi_agent/batch_vec_env": (
        {"interfaces", "cloning", "dynamics", "env_ids"},
        {"numpy", "gymnasium", "stable_baselines3"},
    ),
    "mppi_agent/env_ids": (set(), {"gymnasium"}),
    "mppi_agent/progress": (set(), {"tqdm"}),
    "mppi_agent/bench": (BELOW_GPS | {"env_ids"}, {"numpy", "gymnasium", "mujoco"}),
    "mppi_agent/evaluation": ({"dynamics", "expert", "interfaces"}, {"numpy", "gymnasium"}),
    "mppi_agent/media": (
        {"evaluation", "interfaces"},
        {"numpy", "gymnasium", "matplotlib", "imageio", "imageio_ffmpeg"},
    ),
    "mppi_agent/budget": ({"cloning", "expert", "interfaces", "planning"}, {"numpy"}),
    "mppi_agent/plan_media": (
        {"cloning", "expert", "interfaces", "media", "plan_run", "planning"},
        {"numpy", "mujoco"},
    ),
    "mppi_agent/plan_run": (FRONT | BELOW_GPS, {"numpy", "gymnasium"}),
    "mppi_agent/tuning": (FRONT | BELOW_GPS, {"numpy", "optuna"}),
    "mppi_agent/baselines": (set(), {"gymnasium", "stable_baselines3", "torch"}),
    "mppi_agent/intervals": ({"evaluation"}, {"numpy", "scipy"}),
    "mppi_agent/machine": ({"dynamics"}, {"torch"}),
    "mppi_agent/training": (
        FRONT | {"interfaces", "planning"},
        {"numpy", "stable_baselines3", "torch"},
    ),
    "mppi_agent/runs": (FRONT | BELOW_GPS, {"numpy", "stable_baselines3", "yaml"}),
    "mppi_agent/compare": (FRONT | {"expert"}, set()),
    "mppi_agent/zoo": ({"gps"}, {"rl_zoo3"}),
    "mppi_agent/cli": (FRONT | BELOW_GPS | {""}, set()),
    "mppi_agent/__init__": (FRONT | BELOW_GPS, set()),
    "mppi_envs": (set(), {"numpy", "gymnasium", "mujoco"}),
}


def _files() -> dict[str, Path]:
    roots = (ROOT, ROOT / "envs")
    packages = ("mppi_agent", "mppi_envs")
    return {
        path.relative_to(root).as_posix().removesuffix(".py"): path
        for root, package in zip(roots, packages, strict=True)
        for path in sorted((root / package).rglob("*.py"))
    }


def _imported(path: Path) -> set[str]:
    """Return dotted names of all imported modules, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mppi_agent":
                submodules = BELOW_GPS | FRONT
                names |= {
                    f"mppi_agent.{alias.name}" if alias.name in submodules else "mppi_agent"
                    for alias in node.names
                }
            else:
                names.add(str(node.module))
    return {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}


def _is_under(file: str, place: str) -> bool:
    # "cloning/mujoco" also covers files such as cloning/mujoco_state.py.
    return file == place or file.startswith((place + "/", place + "_"))


@pytest.mark.parametrize("file", _files())
def test_imports_stay_within_the_table(file):
    places = [place for place in TABLE if _is_under(file, place)]
    assert places, f"{file} is not in the import table"
    ours, others = TABLE[max(places, key=len)]
    own_place = file.split("/")[1] if "/" in file else ""
    for name in _imported(_files()[file]):
        package, _, rest = name.partition(".")
        if package == "mppi_agent" and file.startswith("mppi_agent"):
            place = rest.partition(".")[0]
            assert place in ours | {own_place}, f"{file} imports {name}"
        elif package == "mppi_envs" and file.startswith("mppi_envs"):
            continue
        else:
            assert package in others, f"{file} imports {name}"


@pytest.mark.parametrize(
    "module",
    [
        "mppi_agent",
        "mppi_agent.planning",
        "mppi_agent.cloning",
        "mppi_agent.dynamics",
        "mppi_agent.expert",
        "mppi_agent.demonstrations",
        "mppi_agent.cli",
    ],
)
def test_importing_does_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_public_names_load_on_first_use():
    import mppi_agent

    missing = [name for name in mppi_agent.__all__ if not hasattr(mppi_agent, name)]
    assert missing == []


def test_an_unknown_public_name_is_an_attribute_error():
    import mppi_agent

    with pytest.raises(AttributeError, match="no attribute 'MPPIPGS'"):
        _ = mppi_agent.MPPIPGS
