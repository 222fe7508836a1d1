"""`mppi-agent plan` and `mppi-agent tune` as a user meets them."""

from __future__ import annotations

import json

import pytest

from mppi_agent.cli import main
from mppi_agent.planning import MPPIConfig, save_preset

SMALL = ["--steps", "3", "--num-samples", "8", "--horizon", "5"]


def _error(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


def test_plan_writes_picture_and_video_and_names_them(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    plot, video = tmp_path / "plan.png", tmp_path / "plan.mp4"
    arguments = ["plan", "Pendulum-v1", *SMALL, "--plot", str(plot), "--video", str(video)]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["files"] == {"video": str(video), "plot": str(plot)}
    assert plot.stat().st_size > 0 and video.stat().st_size > 0
    assert result["horizon"] == 5 and result["num_samples"] == 8


def test_plan_reads_a_preset_and_options_go_before_it(capsys, tmp_path):
    path = tmp_path / "preset.json"
    save_preset(MPPIConfig(horizon=7, num_samples=12, iterations=1), path, env_id="Pendulum-v1")
    arguments = ["plan", "Pendulum-v1", "--steps", "2", "--preset", str(path), "--json"]
    assert main([*arguments, "--num-samples", "8"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["horizon"], result["num_samples"], result["iterations"]) == (7, 8, 1)


def test_a_larger_budget_buys_more_samples(capsys):
    samples = []
    for budget in ("10", "200"):  # far apart, so that a busy machine does not matter
        assert main(["plan", "Pendulum-v1", "--steps", "2", "--budget-ms", budget, "--json"]) == 0
        samples.append(json.loads(capsys.readouterr().out)["num_samples"])
    assert samples[0] < samples[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps must be >= 1, got 0"),
        (["--plot", "x.mp3"], "x.mp3 must be a file ending in ."),
        (["--budget-ms", "-5"], "budget_ms must be > 0 and finite, got -5.0"),
        (["--preset", "missing.json"], "missing.json"),
        (["--steps", "2", "--video", "x.mp4", "--track", "nose"], "in MuJoCo envs only"),
    ],
)
def test_bad_input_to_plan_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "Pendulum-v1", *arguments]) == 2
    assert message in _error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_tune_writes_a_preset_that_plan_reads(capsys, tmp_path):
    pytest.importorskip("optuna")
    path = tmp_path / "tuned.json"
    arguments = ["tune", "Pendulum-v1", "--trials", "3", "--episodes", "1", "--steps", "3"]
    assert main([*arguments, "--sim-steps", "300", "--out", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["preset"] == str(path) and '"Pendulum-v1": {' in result["line"]
    assert result["sim_steps_per_plan"] <= 300
    assert main(["plan", "Pendulum-v1", "--steps", "2", "--preset", str(path)]) == 0
    assert "return" in capsys.readouterr().out


def test_help_of_tune_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    assert "mppi-agent tune " in capsys.readouterr().out.partition("examples:")[2]
