from __future__ import annotations

import csv

import expert_returns
import pytest


def test_an_episode_keeps_to_its_budget_and_the_summary_shows_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(expert_returns.CORE_MS, "B1", 4.0)
    out = tmp_path / "expert.csv"
    for arguments in (["Pendulum-v1", "--seeds", "0", "1"], ["summary"]):
        monkeypatch.setattr("sys.argv", ["expert_returns.py", *arguments, "--out", str(out)])
        expert_returns.main()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1"]
    assert {row["length"] for row in rows} == {"200"}
    assert rows[0]["return"] != rows[1]["return"]
    sizes = [(int(row["num_samples"]), int(row["horizon"]), int(row["iterations"])) for row in rows]
    assert sizes[0] == sizes[1]  # fitted once
    samples, horizon, iterations = sizes[0]
    most = (samples * iterations + 1) * horizon
    assert 0.5 * most < float(rows[0]["sim_steps_per_step"]) <= most
    last = capsys.readouterr().out.splitlines()[-1]
    median = sum(float(row["return"]) for row in rows) / 2
    assert last.startswith("| Pendulum-v1 | B1 |")
    assert float(last.split("|")[3].replace(",", "")) == pytest.approx(median, rel=1e-3)
