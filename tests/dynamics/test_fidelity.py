"""Coarse models against true ones: the figures of the report are what they claim to be."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rollout_cases import make

from mppi_agent.cli import main
from mppi_agent.dynamics import fidelity
from mppi_agent.dynamics.fidelity import measure_fidelity

SMALL = {"num_states": 4, "num_samples": 16, "horizon": 8, "num_threads": 1, "repeats": 1}


def test_a_model_agrees_with_itself(monkeypatch):
    env = make("HalfCheetah-v5")
    monkeypatch.setattr(
        fidelity.MujocoBatchDynamics,
        "coarse",
        lambda self, substeps: fidelity.MujocoBatchDynamics(env, num_threads=1),
    )
    report = measure_fidelity(env, 5, **SMALL)
    assert (report.spearman, report.lowest_spearman, report.kendall) == pytest.approx((1, 1, 1))
    assert (report.regret, report.same_length, report.diverged) == (0, 1, 0)


def test_more_substeps_agree_better_and_take_longer():
    env = make("Walker2d-v5")
    one, four = (measure_fidelity(env, n, **SMALL | {"num_samples": 32}) for n in (1, 4))
    assert one.true_substeps == four.true_substeps == 4
    assert 0 < one.spearman < four.spearman and four.spearman > 0.8
    assert 0 <= four.regret < 1
    assert "4 of 4 substeps: rank correlation 0." in str(four)


def test_the_figures_are_those_of_the_returns():
    true = np.array([[0.0, 1.0, 2.0, 10.0], [3.0, 3.0, 3.0, 3.0], [0.0, 1.0, 2.0, 4.0]])
    coarse = np.array([[5.0, 6.0, 8.0, 7.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, -np.inf, -1.0]])
    ranks = fidelity._compare(true, coarse)
    assert ranks["lowest_spearman"] == pytest.approx(-0.8)  # ranks 2, 1, 4, 3 become 4, 3, 1, 2
    assert ranks["spearman"] == pytest.approx(0.8)
    # Lost: 8 of a lead of 8.5; nothing; 4 of 2.5, worse than the median plan.
    assert ranks["regret"] == pytest.approx(8 / 8.5)


def test_numbers_out_of_range_and_envs_without_a_model_are_refused():
    env = make("HalfCheetah-v5")
    with pytest.raises(ValueError, match="num_samples must be >= 2, got 1"):
        measure_fidelity(env, 2, num_samples=1)
    with pytest.raises(ValueError, match="substeps must be >= 1 or None, got 0"):
        measure_fidelity(env, 0)
    with pytest.raises(ValueError, match="PendulumEnv has no vectorised task"):
        measure_fidelity(make("Pendulum-v1"), 2)


def test_the_command_reports_each_number_of_substeps(capsys):
    arguments = ["bench", "fidelity", "Reacher-v5", "--num-samples", "8", "--horizon", "5"]
    arguments += ["--threads", "1", "--repeats", "1", "--substeps", "1", "2"]
    assert main([*arguments, "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)["models"]
    assert [report["substeps"] for report in reports] == [1, 2]
    assert all(-1 <= report["spearman"] <= 1 and report["speed_up"] > 0 for report in reports)
    assert main(arguments) == 0
    assert "1 of 2 substeps" in capsys.readouterr().out
