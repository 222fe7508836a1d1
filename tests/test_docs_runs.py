"""docs/runs.md: its commands run, in the order of the page, with its settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from mppi_agent.cli import main
from mppi_agent.runs import RunConfig

PAGE = (Path(__file__).parents[1] / "docs" / "runs.md").read_text()
SETTINGS = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL).group(1)
COMMANDS = [
    line.removeprefix("mppi-agent ")
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


def test_the_settings_on_the_page_are_known(tmp_path):
    path = tmp_path / "pendulum.yaml"
    path.write_text(SETTINGS)
    config = RunConfig.read(path)
    assert set(yaml.safe_load(SETTINGS)["model"]) <= set(config.model_arguments())


@pytest.mark.slow
def test_the_commands_on_the_page_run(tmp_path, monkeypatch, capsys):
    for package in ("matplotlib", "imageio_ffmpeg", "pygame"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    Path("pendulum.yaml").write_text(SETTINGS)
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        # Five minutes are for users: the first run is one of the page's settings instead.
        command = command.replace("Pendulum-v1 --minutes 5", "--config pendulum.yaml --seed 7")
        assert main(shlex.split(command)) == 0, capsys.readouterr().err
    assert Path("pendulum.mp4").exists() and Path("runs.png").exists()
    assert Path("runs/Pendulum-v1/mppigps_3/model.zip").exists()
