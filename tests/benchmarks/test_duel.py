from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from duel import budget_steps, episode, main, settings_of
from duel_planners import PLANNERS, TUNABLE, grid, open_task
from duel_summary import mean_returns, print_summary, ranks, ratios_to_winner

from mppi_agent import MPPIAgent, MPPIConfig
from mppi_agent.evaluation import evaluate_expert

PUBLISHED = ("ours", "predictive_sampling", "cem", "icem")


@pytest.fixture
def pendulum():
    task = open_task("Pendulum-v1", 800)
    yield task
    task.dynamics.close()


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(planner, seed, value, env="Reacher-v5", budget="B1", max_steps=""):
    return {
        "env": env,
        "planner": planner,
        "budget": budget,
        "seed": str(seed),
        "return": str(value),
        "max_steps": max_steps,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_planner_stays_within_the_budget_and_repeats_itself(pendulum, name):
    first = episode(pendulum, name, {}, seed=3, max_steps=5)
    again = episode(pendulum, name, {}, seed=3, max_steps=5)
    assert first["length"] == 5
    assert 600 <= first["sim_steps_per_step"] <= 800
    other = episode(pendulum, name, {}, seed=4, max_steps=5)
    assert again["return"] == first["return"] != other["return"]


def test_ours_is_the_agent_as_a_user_gets_it(pendulum):
    config = MPPIConfig.for_env("Pendulum-v1", budget_ms=1000.0, steps_per_second=800)
    agent = MPPIAgent("Pendulum-v1", replace(config, budget_steps=800), seed=2)
    expected = evaluate_expert(agent, [2], max_steps=20)
    agent.close()
    measured = episode(pendulum, "ours", {}, seed=2, max_steps=20)
    assert float(measured["return"]) == pytest.approx(expected.mean, rel=1e-4)
    assert measured["sim_steps_per_step"] == expected.sim_steps / 20


def test_a_whole_episode_ends_where_the_env_ends_it():
    task = open_task("InvertedPendulum-v5", 80, horizon=2)
    measured = episode(task, "cem", {}, seed=0, max_steps=None)
    task.dynamics.close()
    assert measured["length"] < 1000  # no plan of two steps sees the fall
    assert float(measured["return"]) in (measured["length"], measured["length"] - 1)


def test_budgets_are_read_off_the_table(tmp_path):
    table = write(
        tmp_path / "budgets.csv",
        [
            {"env": "Hopper-v5", "B1": 900, "B2": 9000},
            {"env": "Hopper-v5", "B1": 1000, "B2": 10000},
        ],
    )
    assert budget_steps("B1", "Hopper-v5", table) == 1000  # the latest measurement
    assert budget_steps("B2", "Hopper-v5", table) == 10000
    assert budget_steps("B1/4", "Hopper-v5", table) == 250
    assert budget_steps("123", "Hopper-v5", table) == 123
    with pytest.raises(ValueError, match="has no line for Ant-v5"):
        budget_steps("B1", "Ant-v5", table)
    for wrong in ("B3", "B1/x", "1/2", ""):
        with pytest.raises(ValueError, match="must be B1, B2"):
            budget_steps(wrong, "Hopper-v5", table)


def test_tuned_settings_are_those_of_the_best_mean_at_the_same_budget(tmp_path):
    def tried(settings, seed, value, budget="B1"):
        return row("icem", seed, value, budget=budget) | {"settings": json.dumps(settings)}

    table = write(
        tmp_path / "tuning.csv",
        [
            tried({"beta": 1.0}, 10_000, -5),
            tried({"beta": 1.0}, 10_001, -5),
            tried({"beta": 2.0}, 10_000, -1),
            tried({"beta": 2.0}, 10_001, -10),
            tried({"beta": 3.0}, 10_000, 0, budget="B2"),
        ],
    )
    assert settings_of("icem:tuned", "Reacher-v5", "B1", table) == {"beta": 1.0}
    assert settings_of("icem:tuned", "Reacher-v5", "B2", table) == {"beta": 3.0}
    assert settings_of("icem", "Reacher-v5", "B1", table) == {}
    assert settings_of("icem", "HalfCheetah-v5", "B1", table) == {"beta": 0.25}
    with pytest.raises(ValueError, match="has nothing for icem on Ant-v5 at B1"):
        settings_of("icem:tuned", "Ant-v5", "B1", table)


def test_every_setting_of_the_grids_runs(pendulum):
    names = set()
    for name, settings in grid(pendulum, TUNABLE):
        names.add(name)
        if name != "pytorch_mppi":
            assert episode(pendulum, name, settings, seed=0, max_steps=1)["length"] == 1
    assert names == set(TUNABLE)


def test_temperatures_to_try_scale_with_the_rewards(pendulum):
    tried = {s["temperature"] for _, s in grid(pendulum, ["pytorch_mppi"])}
    # Returns of random plans of 20 steps differ by tens on Pendulum.
    assert len(tried) == 3
    assert 1 < max(tried) < 100
    assert max(tried) / min(tried) == pytest.approx(100, rel=0.1)


def test_ranks_share_ties():
    np.testing.assert_array_equal(ranks(np.array([3.0, 1.0, 2.0])), [1, 3, 2])
    np.testing.assert_array_equal(ranks(np.array([1000.0, 1000.0, 5.0])), [1.5, 1.5, 3])
    np.testing.assert_array_equal(ranks(np.array([-3.0, -6.0, -3.001])), [1.5, 3, 1.5])


def test_ratios_are_of_returns_or_of_costs():
    np.testing.assert_allclose(ratios_to_winner(np.array([100.0, 50.0, -50.0])), [1, 0.5, -0.5])
    np.testing.assert_allclose(ratios_to_winner(np.array([-4.0, -2.0])), [0.5, 1])
    np.testing.assert_allclose(ratios_to_winner(np.array([0.0, -2.0])), [1, 0])


def test_means_are_over_the_seeds_that_all_planners_have():
    rows = [
        row("ours", 0, 1),
        row("ours", 0, 3),  # a later line replaces an earlier one
        row("ours", 1, 100),
        row("cem", 0, 5),
        row("cem", 0, 7, max_steps="50"),
    ]
    assert mean_returns(rows) == {
        ("B1", "Reacher-v5"): {"ours": 3.0, "cem": 5.0},
        ("B1, 50 steps", "Reacher-v5"): {"cem": 7.0},
    }


def test_the_summary_says_where_we_lose(capsys):
    print_summary(
        [
            row("ours", 0, -4),
            row("icem", 0, -3),
            row("ours", 0, 500, env="Hopper-v5"),
            row("icem", 0, 400, env="Hopper-v5"),
        ]
    )
    shown = capsys.readouterr().out
    assert "| Reacher-v5 | -4 | -3 |" in shown
    assert "| mean rank | 1.50 | 1.50 |" in shown
    assert "| wins, shared ones included | 1 of 2 | 1 of 2 |" in shown
    assert "| lowest ratio to the winner | 0.75 | 0.80 |" in shown
    assert "ours loses (ratio to the winner): Reacher-v5 to icem (0.750)" in shown


def test_lengths_of_one_budget_are_summed_up_together(capsys):
    rows = [
        row("ours", 0, -4.0, max_steps="50"),
        row("cem", 0, -8.0, max_steps="50"),
        row("ours", 0, 300.0, env="Hopper-v5", max_steps="150"),
        row("cem", 0, 400.0, env="Hopper-v5", max_steps="150"),
    ]
    print_summary(rows)
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("###")] == [
        "### B1, 50 steps",
        "### B1, 150 steps",
        "### B1, all lengths",
    ]
    together = shown.partition("all lengths")[2]
    assert "| mean rank | 1.50 | 1.50 |" in together
    assert "| mean ratio to the winner | 0.875 | 0.750 |" in together
    assert "Hopper-v5, 150 steps to cem (0.750)" in together


def test_the_command_line_writes_lines_that_the_summary_reads(tmp_path, monkeypatch, capsys):
    out = tmp_path / "duel.csv"
    options = ["--budget", "400", "--steps", "3", "--seeds", "2", "--planners", "ours", "cem"]
    monkeypatch.setattr("sys.argv", ["duel.py", "run", "Pendulum-v1", *options, "--out", str(out)])
    main()
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["planner"], line["seed"]) for line in lines] == [
        ("ours", "0"),
        ("cem", "0"),
        ("ours", "1"),
        ("cem", "1"),
    ]
    assert all(line["commit"] and line["settings"] == "{}" for line in lines)
    monkeypatch.setattr("sys.argv", ["duel.py", "summary", str(out)])
    capsys.readouterr()
    main()
    assert "### 400, 3 steps" in capsys.readouterr().out


def test_tuning_ends_with_shorter_horizons_of_the_best_settings(tmp_path, monkeypatch):
    out = tmp_path / "tuning.csv"
    options = ["--budget", "800", "--steps", "2", "--seeds", "1", "--planners", "icem"]
    monkeypatch.setattr("sys.argv", ["duel.py", "tune", "Pendulum-v1", *options, "--out", str(out)])
    main()
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert [line["horizon"] for line in lines] == ["40", "40", "40", "40", "20", "10"]
    at_full = max(lines[:4], key=lambda line: float(line["return"]))
    best = json.loads(at_full["settings"])
    tried = [json.loads(line["settings"]) for line in lines[4:]]
    assert tried == [{**best, "horizon": 20}, {**best, "horizon": 10}]
    assert all(500 < int(line["sim_steps_per_step"]) <= 800 for line in lines)


def test_the_command_line_refuses_unknown_planners(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["duel.py", "run", "--planners", "cme"])
    with pytest.raises(SystemExit):
        main()
    assert "invalid choice: 'cme'" in capsys.readouterr().err
    assert {"ours", "pytorch_mppi", "pytorch_mppi:tuned", "icem:tuned"} <= set(PLANNERS)
