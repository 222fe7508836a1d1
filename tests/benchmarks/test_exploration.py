from __future__ import annotations

import csv

import pytest
from exploration import main, measure, print_table


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, "env algo seed minutes success cpu_ms_per_step".split())
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(algo, seed, success, env="mppi_envs/ReachAround-v0", minutes=10.0):
    return {
        "env": env,
        "algo": algo,
        "seed": seed,
        "minutes": "" if algo == "expert" else minutes,
        "success": success,
        "cpu_ms_per_step": 31.7,
    }


def test_a_trained_policy_is_judged_by_the_success_of_its_last_steps():
    found = measure("ReachAround", "ppo", seed=0, minutes=0.02, episodes=2)
    assert found["env"] == "mppi_envs/ReachAround-v0"
    assert found["success"] == 0.0  # nothing is learnt in a second
    assert found["mean_length"] == 75 and found["episodes"] == 2


@pytest.mark.slow
def test_the_expert_reports_what_a_step_costs():
    found = measure("ReachAround", "expert", seed=0, minutes=0, episodes=1)
    assert found["success"] == 1.0
    assert found["cpu_ms_per_step"] > 0 and found["sim_steps"] > 75


def test_the_table_has_a_figure_per_seed_and_the_later_of_two_lines_counts(tmp_path, capsys):
    lines = [row("expert", 0, 1.0), row("ppo", 0, 0.5), row("ppo", 1, 0.1), row("ppo", 0, 0.0)]
    path = write(tmp_path / "exploration.csv", [*lines, row("sac", 0, 1.0, "mppi_envs/GetUp-v0")])
    print_table(path)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("| task | expert, CPU ms per step |")
    assert "| ReachAround | 1.00, 32 ms |  | 0.00, 0.10 in 10 min |  |" in shown
    assert "| GetUp |  |  |  | 1.00 in 10 min |" in shown


def test_the_command_line_refuses_unknown_tasks(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["exploration.py", "ReachAroud"])
    with pytest.raises(SystemExit):
        main()
    assert "invalid choice: 'ReachAroud'" in capsys.readouterr().err
