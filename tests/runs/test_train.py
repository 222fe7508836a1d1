"""Run folders: what they hold, and that a run that was stopped goes on as if it had not."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import tiny
import torch
from stable_baselines3.common.logger import configure

from mppi_agent.cli import main
from mppi_agent.gps import MPPIGPS
from mppi_agent.gps.improvement import TrustRegionUpdate
from mppi_agent.runs import Console, resume, train
from mppi_agent.runs.folder import RunFolder
from mppi_agent.runs.interrupt import StopOnSignal
from mppi_agent.runs.metrics import Evaluations, csv_log, read_progress
from tests.gps.toy_envs import Target

ROOT = Path(__file__).parents[2]


def _weights(run):
    return MPPIGPS.load(RunFolder(run).model, device="cpu").policy.state_dict()


def _assert_same_run(one, other):
    first, second = _weights(one), _weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    with (
        np.load(RunFolder(one).evaluations) as one_file,
        np.load(RunFolder(other).evaluations) as other_file,
    ):
        for name in ("timesteps", "results", "ep_lengths"):
            np.testing.assert_array_equal(one_file[name], other_file[name])


def _send_at(monkeypatch, step, *signals):
    """Let signals arrive right behind a step of the training env."""
    on_step = StopOnSignal._on_step

    def send(stop):
        if stop.num_timesteps == step:
            for one in signals:
                os.kill(os.getpid(), one)
        return on_step(stop)

    monkeypatch.setattr(StopOnSignal, "_on_step", send)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that never stopped."""
    return train(tiny.config(), tmp_path_factory.mktemp("whole")).run


def test_a_run_folder_holds_what_the_run_was_and_gave(whole):
    folder = RunFolder(whole)
    assert folder.path.name == "mppigps_1" and folder.path.parent.name == "Pendulum-v1"
    assert folder.read_config() == tiny.config()
    record = folder.read_record()
    assert record["seeds"]["training"] == 0
    (session,) = record["sessions"]
    assert (session["from_step"], session["to_step"], session["status"]) == (0, 24, "finished")
    assert session["machine"]["versions"]["torch"] == torch.__version__
    rows = read_progress(folder.progress)
    assert [row["time/total_timesteps"] for row in rows if "seconds/sample" in row][-1] == 24
    with np.load(folder.evaluations) as file:
        assert file["timesteps"].tolist() == [8, 16, 24] and file["results"].shape == (3, 1)
    assert MPPIGPS.load(folder.checkpoint, device="cpu").num_timesteps == 24
    names = {file.name for file in whole.iterdir()}
    assert names == {
        "best_model.zip",
        "checkpoint.zip",
        "config.yaml",
        "evaluations.npz",
        "model.zip",
        "progress.csv",
        "run.json",
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_and_the_run_goes_on_bit_for_bit(number, whole, tmp_path, monkeypatch):
    before = signal.getsignal(number)
    lines = []
    _send_at(monkeypatch, 13, number)
    stopped = train(tiny.config(), tmp_path, console=Console(report=lines.append))
    assert stopped.status == "stopped" and stopped.signal == number
    assert stopped.env_steps == stopped.checkpoint_step == 13
    assert any("again stops at once" in line for line in lines)
    assert f"go on from step 13: mppi-agent train --resume {stopped.run}" in str(stopped)
    assert signal.getsignal(number) is before

    monkeypatch.undo()
    finished = resume(stopped.run)
    assert finished.run == stopped.run and finished.status == "finished"
    assert finished.training_seconds > stopped.training_seconds
    _assert_same_run(finished.run, whole)
    sessions = RunFolder(finished.run).read_record()["sessions"]
    assert [(one["from_step"], one["to_step"]) for one in sessions] == [(0, 13), (13, 24)]
    steps = [row["time/total_timesteps"] for row in read_progress(finished.run / "progress.csv")]
    assert steps == sorted(steps) and {8, 16, 24} <= set(steps)


def test_a_second_signal_stops_at_once_and_keeps_the_exact_checkpoint(whole, tmp_path, monkeypatch):
    _send_at(monkeypatch, 13, signal.SIGINT, signal.SIGINT)
    stopped = train(tiny.config(), tmp_path)
    assert stopped.status == "interrupted" and stopped.checkpoint_step == 10
    assert MPPIGPS.load(stopped.model, device="cpu").num_timesteps == 13
    monkeypatch.undo()
    _assert_same_run(resume(stopped.run).run, whole)


def test_an_interrupt_before_the_first_checkpoint_loses_nothing(tmp_path, monkeypatch):
    _send_at(monkeypatch, 3, signal.SIGINT, signal.SIGINT)
    stopped = train(tiny.config(), tmp_path)
    assert stopped.status == "interrupted" and stopped.checkpoint_step == 3
    monkeypatch.undo()
    assert resume(stopped.run).env_steps == 24


def test_a_run_may_go_on_for_longer_with_several_envs(tmp_path):
    first = train(tiny.config(n_envs=2, **{"learn.total_timesteps": 16}), tmp_path)
    with pytest.raises(ValueError, match="is complete, 16 of 16 steps: go on with more --steps"):
        resume(first.run)
    longer = resume(first.run, {"learn.total_timesteps": 32, "eval_freq": 16})
    assert longer.env_steps == 32
    assert RunFolder(first.run).read_config().total_timesteps == 32
    with np.load(first.run / "evaluations.npz") as file:
        assert file["timesteps"].tolist() == [8, 16, 32]


def test_an_old_checkpoint_drops_what_was_written_after_it(whole, tmp_path, monkeypatch):
    saved, save = [], MPPIGPS.save_checkpoint

    def keep(model, path):
        save(model, path)
        if model.num_timesteps == 10:
            copy = Path(path).with_name("step_10.zip")
            copy.write_bytes(Path(path).read_bytes())
            saved.append(copy)

    monkeypatch.setattr(MPPIGPS, "save_checkpoint", keep)
    train(tiny.config(), tmp_path)
    result = resume(saved[0])
    _assert_same_run(result.run, whole)
    steps = [row["time/total_timesteps"] for row in read_progress(result.run / "progress.csv")]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"model.n_epochs": 3}, {"env": "Hopper-v5"}, {"eval_episodes": 2}]
)
def test_what_a_run_depends_on_stays_as_it_was(whole, change):
    with pytest.raises(ValueError, match=r"must stay .* train anew without --resume"):
        resume(whole, change)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run"):
        resume(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"is no run: it holds no config\.yaml"):
        resume(tmp_path)
    RunFolder(tmp_path).write_config(tiny.config())
    with pytest.raises(ValueError, match=r"has no checkpoint, .* train anew with --config"):
        resume(tmp_path)
    (tmp_path / "checkpoint.zip").write_text("not a zip file")
    with pytest.raises(ValueError, match=r"checkpoint\.zip wasn't a zip-file"):
        resume(tmp_path)


def test_bad_settings_leave_no_folder(tmp_path):
    with pytest.raises(ValueError, match="n_epochs must be an int >= 1"):
        train(tiny.config(**{"model.n_epochs": 0}), tmp_path)
    with pytest.raises(ValueError, match="did you mean Pendulum-v1"):
        train(tiny.config(env="Pendulm-v1"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tensorboard_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"mppi-agent\[tensorboard\]"):
        train(tiny.config(tensorboard=True), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(whole, tmp_path, monkeypatch, capsys):
    fsync, save = os.fsync, MPPIGPS.save_checkpoint
    full = []

    def write(descriptor):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    def checkpoint(model, path):
        if model.num_timesteps == 15:
            full.append(True)
        save(model, path)

    monkeypatch.setattr(os, "fsync", write)
    monkeypatch.setattr(MPPIGPS, "save_checkpoint", checkpoint)
    config = tiny.write_config(tmp_path / "run.yaml")
    assert main(["train", "--config", str(config), "--runs", str(tmp_path / "runs")]) == 2
    run = tmp_path / "runs" / "Pendulum-v1" / "mppigps_1"
    message = capsys.readouterr().err
    assert "the disk is full, training stopped at step 15" in message
    assert (
        f"the checkpoint of step 10 is whole: make room, then mppi-agent train --resume {run}"
        in (message)
    )
    assert not list(run.glob("*.tmp"))
    monkeypatch.undo()
    _assert_same_run(resume(run).run, whole)


def test_the_log_goes_on_behind_an_older_one(tmp_path):
    path = tmp_path / "progress.csv"
    log = csv_log(path, 0)
    for step, extra in ((8, {}), (16, {"new": True}), (24, {})):
        row = {"time/total_timesteps": step, "x": 0.1 + step, **extra}
        log.write(row, {name: () for name in row})
    log.close()
    with path.open("a") as file:
        file.write("32,1")  # killed while it wrote
    log = csv_log(path, 16)
    row = {"time/total_timesteps": 20, "later": 2}
    log.write(row, {name: () for name in row})
    log.close()
    assert read_progress(path) == [
        {"time/total_timesteps": 8, "x": 8.1},
        {"time/total_timesteps": 16, "x": 16.1, "new": 1.0},
        {"time/total_timesteps": 20, "later": 2},
    ]
    with path.open() as file:
        assert [row["x"] for row in csv.DictReader(file)] == ["8.1", "16.1", ""]


def test_a_wall_clock_counts_all_sessions(tmp_path):
    path = train(tiny.config(minutes=1.0), tmp_path).run
    record = RunFolder(path).read_record()
    record["sessions"][0]["seconds"] = 61.0
    RunFolder(path).write_record(record)
    with pytest.raises(ValueError, match=r"is complete, 1\.0 of 1 minutes: go on with more"):
        resume(path, {"learn.total_timesteps": 48})
    assert resume(path, {"learn.total_timesteps": 48, "minutes": 30}).env_steps == 48


def test_the_command_line_trains_resumes_and_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = str(tiny.write_config(tmp_path / "run.yaml"))
    arguments = ["train", "--config", config, "--steps", "8", "--seed", "4", "--n-envs", "2"]
    arguments += [
        "--set",
        "model.n_steps=4",
        "--set",
        "model.n_epochs=2",
        "--out",
        "new/model.zip",
        "--json",
    ]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["env_steps"], result["seed"], result["status"]) == (8, 4, "finished")
    assert result["model"] == "new/model.zip" and Path("new/model.zip").exists()
    saved = RunFolder(Path(result["run"])).read_config()
    assert saved.n_envs == 2 and saved.model["n_steps"] == 4
    assert saved.model["n_epochs"] == 2

    assert main(["train", "--resume", result["run"], "--steps", "16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["env_steps"] == 16
    assert main(["train", "--resume", result["run"], "--seed", "5"]) == 2
    assert "seed must stay 4" in capsys.readouterr().err
    assert main(["train", "--config", config, "--set", "model.n_epoch=3"]) == 2
    assert "did you mean model.n_epochs" in capsys.readouterr().err


def test_tensorboard_gets_the_log_where_asked_for(tmp_path):
    pytest.importorskip("tensorboard")
    run = train(tiny.config(tensorboard=True, **{"learn.total_timesteps": 8}), tmp_path).run
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_killed_and_interrupted_processes_go_on_bit_for_bit(whole, tmp_path):
    config = tiny.write_config(tmp_path / "run.yaml", checkpoint_freq=1)

    def start(root):
        code = "import sys; from mppi_agent.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "train", "--config", str(config)]
        process = subprocess.Popen([*command, "--runs", str(root)], cwd=ROOT)
        run = root / "Pendulum-v1" / "mppigps_1"
        while not (run / "checkpoint.zip").exists():
            assert process.poll() is None
        return process, run

    process, run = start(tmp_path / "killed")
    process.kill()
    assert process.wait() == -signal.SIGKILL and not (run / "model.zip").exists()
    _assert_same_run(resume(run).run, whole)

    process, run = start(tmp_path / "interrupted")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130 and (run / "model.zip").exists()
    _assert_same_run(resume(run).run, whole)


def test_an_update_that_is_cut_short_is_not_in_the_checkpoint(whole, tmp_path, monkeypatch):
    update, calls = TrustRegionUpdate.update, []

    def interrupted(*args, **kwargs):
        result = update(*args, **kwargs)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(TrustRegionUpdate, "update", interrupted)
    stopped = train(tiny.config(), tmp_path)
    assert stopped.status == "interrupted" and stopped.checkpoint_step < stopped.env_steps
    monkeypatch.undo()
    _assert_same_run(resume(stopped.run).run, whole)


gym.register("TrainedTarget-v0", Target)  # without a time limit: it goes on for ever


@pytest.mark.filterwarnings("ignore:.*no time limit")
def test_evaluations_of_an_env_without_a_time_limit_end(tmp_path):
    folder = RunFolder.create(tmp_path, "TrainedTarget-v0")
    config = tiny.config(env="TrainedTarget-v0")
    evaluations = Evaluations(folder, config, 0)
    model = MPPIGPS("MlpPolicy", "TrainedTarget-v0", **tiny.MODEL)
    model.set_logger(configure(None, []))
    evaluations.init_callback(model)
    for _ in range(8):
        evaluations.on_step()
    assert evaluations.evaluations_length == [[1000]]


def test_a_model_is_not_taken_for_a_checkpoint(whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=r"model\.zip is a trained model, not a checkpoint"):
        resume(copy / "model.zip")
    assert before == {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
