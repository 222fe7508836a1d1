from __future__ import annotations

import csv
from dataclasses import replace

from ablation import ENVS, VARIANTS, main
from duel import ENVS as DUEL_ENVS

from mppi_agent import MPPIConfig


def test_each_variant_changes_the_defaults_by_a_part():
    assert set(ENVS) <= set(DUEL_ENVS)
    for name, settings in VARIANTS.items():
        assert (replace(MPPIConfig(), **settings) == MPPIConfig()) == (
            name in ("ours", "ours:white")  # white is what the defaults are
        )


def test_variants_act_in_the_same_episodes(tmp_path, monkeypatch):
    out = tmp_path / "ablation.csv"
    options = ["--variants", "ours", "ours:no elites", "--budget", "400", "--seeds", "1"]
    monkeypatch.setattr(
        "sys.argv", ["ablation.py", "Pendulum-v1", *options, "--steps", "3", "--out", str(out)]
    )
    main()
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["planner"], line["seed"], line["length"]) for line in lines] == [
        ("ours", "10000", "3"),
        ("ours:no elites", "10000", "3"),
    ]
    assert lines[0]["budget_steps"] == lines[1]["budget_steps"] == "400"
    assert lines[0]["settings"] == "{}" and lines[1]["settings"] == '{"elites": 0}'
