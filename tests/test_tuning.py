"""The search over settings: equal budgets, never worse than the preset, and what it refuses."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from mppi_agent.evaluation import evaluate_expert
from mppi_agent.expert import MPPIAgent
from mppi_agent.tuning import TUNING_SEEDS, tune


def test_the_best_settings_keep_to_the_budget_and_return_what_is_claimed():
    pytest.importorskip("optuna")
    lines = []
    tuned = tune(
        "Pendulum-v1", trials=6, episodes=2, max_steps=12, sim_steps=400, report=lines.append
    )
    assert tuned.trials == 6 and tuned.seeds == (TUNING_SEEDS, TUNING_SEEDS + 1)
    assert tuned.config.steps_per_plan <= 400
    assert tuned.mean_return >= tuned.preset_return and lines
    expert = MPPIAgent("Pendulum-v1", tuned.config, seed=0)
    again = [evaluate_expert(expert, [seed], max_steps=12).mean for seed in tuned.seeds]
    assert np.mean(again) == pytest.approx(tuned.mean_return)
    measured = tuned.measured()
    assert measured["max_steps"] == 12 and f"{tuned.mean_return:.1f} in 2 episodes" in str(tuned)


def test_the_same_seed_finds_the_same_settings():
    pytest.importorskip("optuna")
    settings = {"trials": 3, "episodes": 1, "max_steps": 4, "sim_steps": 400}
    assert tune("Pendulum-v1", **settings) == tune("Pendulum-v1", **settings)


def test_an_env_whose_preset_takes_derivatives_is_tuned_without_reflexes():
    pytest.importorskip("optuna")
    tuned = tune("Reacher-v5", trials=3, episodes=1, max_steps=2, sim_steps=400)
    assert tuned.trials == 3 and tuned.config.lqr_steps and not tuned.config.reflex_std


def test_bad_numbers_are_named():
    pytest.importorskip("optuna")
    with pytest.raises(ValueError, match="trials must be >= 1, got 0"):
        tune("Pendulum-v1", trials=0)
    with pytest.raises(ValueError, match="episodes must be >= 1, got 0"):
        tune("Pendulum-v1", episodes=0)
    with pytest.raises(ValueError, match=r"sim_steps=10 is too small.*0 samples of 40 steps"):
        tune("Pendulum-v1", sim_steps=10)


def test_a_missing_optuna_is_answered_with_the_extra(monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "optuna":
            raise ImportError("No module named 'optuna'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'mppi-agent\[tune\]'"):
        tune("Pendulum-v1")
