"""What `eval` and `plot` say about runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

from mppi_agent.cli import main
from mppi_agent.evaluation import Evaluation, evaluate_policy, held_out_seeds
from mppi_agent.gps import MPPIGPS
from mppi_agent.intervals import mean_interval, paired_difference
from mppi_agent.runs.curves import read_curves
from mppi_agent.runs.evaluate import evaluate_model
from mppi_agent.runs.folder import RunFolder
from mppi_agent.runs.plot import draw_curves

COLUMNS = "time/total_timesteps,planner/gap,seconds/sample,seconds/train,student/mean_reward"


def _evaluation(returns, seeds=(1, 2, 3, 4)):
    return Evaluation(seeds, np.asarray(returns, dtype=float), np.full(len(returns), 10))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two untrained policies in run folders."""
    runs = []
    for seed in (0, 1):
        config = tiny.config(seed=seed)
        folder = RunFolder.create(tmp_path_factory.mktemp("runs"), config.env)
        folder.write_config(config)
        MPPIGPS(env=config.env, **config.model_arguments()).save(folder.model)
        runs.append(folder.path)
    return runs


def _write_run(root, *, seed, returns, steps=(10, 20, 30), gap=(0.5, 0.25, ""), **changes):
    config = tiny.config(seed=seed, **changes)
    folder = RunFolder.create(root, config.env)
    folder.write_config(config)
    if returns is not None:
        np.savez(folder.evaluations, timesteps=steps, results=returns, ep_lengths=returns)
    lines = [f"{s},{g},{6 * s},{1.5 * s},{-s}" for s, g in zip(steps, gap, strict=True)]
    folder.progress.write_text("\n".join([COLUMNS, *lines]) + "\n")
    return folder.path


def test_the_interval_of_a_mean_is_students():
    # Student's 97.5 % quantile with 2 degrees of freedom is 4.302653, with 3 it is 3.182446.
    low, high = mean_interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302653 / np.sqrt(3)
    assert (low, high) == (pytest.approx(2 - half, abs=1e-5), pytest.approx(2 + half, abs=1e-5))
    low, high = mean_interval(np.array([[0.0, 5.0], [0.0, 5.0]]))
    np.testing.assert_array_equal([low, high], [[0, 5], [0, 5]])
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        mean_interval(np.array([1.0]))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    # 2,000 draws of 5: the covered share has a standard deviation of 0.005, so that a correct
    # interval fails this with probability below 1e-4.
    samples = np.random.default_rng(0).normal(3.0, 2.0, (5, 2000))
    low, high = mean_interval(samples)
    assert 0.93 < np.mean((low < 3.0) & (high > 3.0)) < 0.97


def test_pairs_cancel_what_the_seeds_do():
    easy_and_hard = np.array([0.0, 100.0, 200.0, 300.0])
    difference = paired_difference(
        _evaluation(easy_and_hard + np.array([1, 2, 3, 2])), _evaluation(easy_and_hard)
    )
    half = 3.182446 * np.std([1, 2, 3, 2], ddof=1) / 2
    assert difference.mean == pytest.approx(2.0)
    assert difference.low == pytest.approx(2 - half, abs=1e-5)
    assert difference.high == pytest.approx(2 + half, abs=1e-5)
    assert (difference.wins, difference.losses, difference.episodes) == (4, 0, 4)
    with pytest.raises(ValueError, match="same seeds in the same order"):
        paired_difference(_evaluation([1, 2]), _evaluation([1, 2], (7, 8)))


def test_a_run_is_evaluated_in_its_own_env(models, capsys):
    assert main(["eval", str(models[0]), "--episodes", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    policy = MPPIGPS.load(RunFolder(models[0]).model, device="cpu")
    expected = evaluate_policy(policy, "Pendulum-v1", held_out_seeds(2)).returns
    assert result["env"] == "Pendulum-v1" and result["returns"] == expected.tolist()


def test_two_models_meet_on_the_same_seeds(models, capsys):
    arguments = ["eval", str(models[0]), "--episodes", "3", "--seed", "77"]
    arguments += ["--paired-with", str(models[1])]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    other = result["paired_with"]
    assert result["seeds"] == other["seeds"] == [77, 78, 79]
    assert result["difference"]["mean"] == pytest.approx(
        np.mean(result["returns"]) - np.mean(other["returns"])
    )
    assert main(arguments) == 0
    assert "difference: " in capsys.readouterr().out


@pytest.mark.parametrize("other", ["expert", "planner"])
def test_a_model_meets_planners_on_the_same_seeds(models, other, monkeypatch):
    seen = []

    class Short:
        def __init__(self, env_id, *, seed, policy):
            seen.append(policy)

    def run(expert, seeds, on_episode):
        on_episode()
        return _evaluation([0.0, 0.0], seeds)

    monkeypatch.setattr("mppi_agent.runs.evaluate.MPPIAgent", Short)
    monkeypatch.setattr("mppi_agent.runs.evaluate.evaluate_expert", run)
    report = evaluate_model(models[0], episodes=2, paired_with=other)
    assert (seen[0] is None) == (other == "expert")
    assert report.difference.mean == pytest.approx(report.evaluation.mean)


def test_the_video_shows_the_policy(models, tmp_path, capsys):
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    path = tmp_path / "new" / "video.mp4"
    assert main(["eval", str(models[0]), "--episodes", "1", "--video", str(path)]) == 0
    assert f"video: {path}" in capsys.readouterr().out
    with imageio.get_reader(path) as reader:
        assert sum(1 for _ in reader) == 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--paired-with", "nothing.zip"], "name a saved model, expert or planner"),
        (["--paired-with", "expert", "--episodes", "1"], "at least 2 episodes, got 1"),
        (["--episodes", "0"], "episodes must be > 0"),
        (["--env", "HalfCheetah-v5"], "trained with the observation_space"),
    ],
)
def test_bad_arguments_of_eval_name_the_cure(models, arguments, message, capsys):
    assert main(["eval", str(models[0]), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_run_is_refused(models, tmp_path):
    file = tmp_path / "model.zip"
    file.write_bytes(RunFolder(models[0]).model.read_bytes())
    with pytest.raises(ValueError, match="name it by --env"):
        evaluate_model(file)
    with pytest.raises(ValueError, match="is no run"):
        evaluate_model(tmp_path)
    RunFolder(tmp_path).write_config(tiny.config())
    file.unlink()
    with pytest.raises(ValueError, match="holds no trained model yet; finish it with"):
        evaluate_model(tmp_path)


def test_runs_that_differ_in_the_seed_are_one_curve(tmp_path):
    one = _write_run(tmp_path, seed=0, returns=[[1, 3], [4, 4], [9, 9]])
    other = _write_run(tmp_path, seed=1, returns=[[4, 4], [6, 6], [7, 7]], eval_freq=9)
    third = _write_run(tmp_path, seed=1, returns=[[0, 0]] * 3, **{"model.n_epochs": 9})
    curve, alone = read_curves([one, other, third])
    assert (curve.label, alone.label) == ("n_epochs 1", "n_epochs 9")
    assert curve.seeds == (0, 1) and not curve.is_simulated
    np.testing.assert_array_equal(curve.returns.steps, [10, 20, 30])
    np.testing.assert_array_equal(curve.returns.mean, [3, 5, 8])
    low, high = curve.returns.band
    np.testing.assert_allclose((low + high) / 2, curve.returns.mean)
    assert alone.returns.band is None and "1 run" in str(alone)
    np.testing.assert_array_equal(curve.gap.mean, [0.5, 0.25, 0.25])
    assert curve.seconds == {"sample": 180, "train": 45}
    np.testing.assert_allclose(curve.minutes_at(np.array([20])), 20 * 7.5 / 60)


def test_steps_that_not_all_runs_reached_are_left_out(tmp_path):
    one = _write_run(tmp_path, seed=0, returns=[[0], [10], [20]])
    other = _write_run(tmp_path, seed=1, returns=[[2], [4], [6]], steps=(15, 25, 35))
    (curve,) = read_curves([one, other])
    np.testing.assert_array_equal(curve.returns.steps, [15, 20, 25, 30])
    np.testing.assert_allclose(curve.returns.values, [[5, 10, 15, 20], [2, 3, 4, 5]])


def test_runs_without_evaluations_show_simulated_returns(tmp_path):
    (curve,) = read_curves([_write_run(tmp_path, seed=0, returns=None)])
    assert curve.is_simulated and curve.label == "MPPIGPS"
    np.testing.assert_array_equal(curve.returns.mean, [-10, -20, -30])


def test_runs_that_cannot_share_a_picture_are_refused(tmp_path):
    one = _write_run(tmp_path, seed=0, returns=[[0]] * 3)
    with pytest.raises(ValueError, match="share a seed"):
        read_curves([one, _write_run(tmp_path, seed=0, returns=[[0]] * 3)])
    late = _write_run(tmp_path, seed=1, returns=[[0]] * 3, steps=(50, 60, 70))
    with pytest.raises(ValueError, match="no evaluation at a step that all"):
        read_curves([one, late])
    other = _write_run(tmp_path, seed=0, returns=[[0]] * 3, env="Hopper-v5")
    with pytest.raises(ValueError, match="Hopper-v5 and Pendulum-v1 share no axes"):
        read_curves([one, other])


def test_the_picture_holds_lines_bands_and_bars(tmp_path, monkeypatch, capsys):
    figures = pytest.importorskip("matplotlib.figure")
    drawn, savefig = [], figures.Figure.savefig

    def keep(figure, path):
        drawn.append(figure)
        savefig(figure, path)

    monkeypatch.setattr(figures.Figure, "savefig", keep)
    runs = [_write_run(tmp_path, seed=s, returns=[[s], [5], [9 + s]]) for s in (0, 1, 2)]
    path = tmp_path / "new" / "runs.png"
    assert main(["plot", *map(str, runs), "--out", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["picture"] == str(path) and path.read_bytes().startswith(b"\x89PNG")
    assert result["curves"][0]["mean_return"] == [1, 5, 10]
    returns, gap, phases = drawn[0].axes
    assert returns.lines[0].get_ydata().tolist() == [1, 5, 10]
    band = returns.collections[0].get_paths()[0].vertices[:, 1]
    low, high = mean_interval(np.array([9.0, 10, 11]))
    assert band.max() == pytest.approx(high) and low in band
    assert gap.lines[0].get_ydata().tolist() == [0.5, 0.25, 0.25]
    assert [bar.get_width() for bar in phases.patches] == [3, 0.75]

    curves = read_curves(runs)
    draw_curves(curves, path, x="minutes")
    assert drawn[1].axes[0].lines[0].get_xdata() == pytest.approx([1.25, 2.5, 3.75])
    with pytest.raises(ValueError, match="x must be steps or minutes, got 'hours'"):
        draw_curves(curves, path, x="hours")
