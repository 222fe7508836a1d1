"""Settings of a run: what a file may say, what beats it, and what is refused."""

from __future__ import annotations

import pytest
import tiny
import torch
from stable_baselines3.common.utils import LinearSchedule

from mppi_agent.planning import MPPIConfig, cubic_basis
from mppi_agent.runs import RunConfig
from mppi_agent.runs.config import DEFAULT_MINUTES, parse_setting


def _read(tmp_path, text, changes=None):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return RunConfig.read(path, changes)


def test_all_sections_of_a_file_reach_what_they_are_for(tmp_path):
    config = _read(
        tmp_path,
        "env: MountainCarContinuous-v0\nseed: 3\nn_envs: 2\n"
        "model: {n_epochs: 7, policy: MlpPolicy}\n"
        "planner: {num_samples: 40}\n"
        "learn: {total_timesteps: 1e3, log_interval: null}\n",
    )
    preset = MPPIConfig.for_env("MountainCarContinuous-v0")
    model = config.model_arguments()
    assert model["n_epochs"] == 7 and model["seed"] == 3
    assert model["planner"].num_samples == 40 and model["planner"].horizon == preset.horizon != 20
    assert config.total_timesteps == 1000 and config.learn_arguments() == {"log_interval": None}
    assert config.minutes is None and config.n_envs == 2


def test_the_command_line_beats_the_file_key_by_key(tmp_path):
    text = "env: Pendulum-v1\nseed: 3\nmodel: {n_epochs: 7, n_steps: 16}\n"
    config = _read(tmp_path, text, {"seed": 4, "model.n_epochs": 2})
    assert (config.env, config.seed, config.model) == (
        "Pendulum-v1",
        4,
        {"n_epochs": 2, "n_steps": 16},
    )


def test_a_run_without_a_limit_takes_the_default_wall_clock():
    assert RunConfig.read(None, {"env": "Pendulum-v1"}).minutes == DEFAULT_MINUTES
    assert tiny.config().minutes is None


@pytest.mark.parametrize("text", ["3e-4", "3.0e-4", "0.0003", "3E-4"])
def test_numbers_are_numbers_in_every_notation(tmp_path, text):
    config = _read(tmp_path, f"env: Pendulum-v1\nmodel:\n  learning_rate: {text}\n")
    assert config.model["learning_rate"] == 3e-4


def test_objects_are_named_or_called(tmp_path):
    config = _read(
        tmp_path,
        "env: Pendulum-v1\n"
        "model:\n"
        "  policy_kwargs: {activation_fn: {object: torch.nn.ReLU}, net_arch: [8]}\n"
        "  learning_rate: {call: stable_baselines3.common.utils.LinearSchedule,"
        " start: 1e-3, end: 1e-4, end_fraction: 1.0}\n"
        "planner: {knot_interpolation: {object: mppi_agent.planning.cubic_basis}}\n",
    )
    model = config.model_arguments()
    assert model["policy_kwargs"] == {"activation_fn": torch.nn.ReLU, "net_arch": [8]}
    assert isinstance(model["learning_rate"], LinearSchedule)
    assert model["learning_rate"](1.0) == pytest.approx(1e-3)
    assert model["planner"].knot_interpolation is cubic_basis


def test_what_is_written_reads_as_the_same_settings(tmp_path):
    config = tiny.config(
        **{"model.learning_rate": {"call": "a.b", "start": 1e-5}, "learn.log_interval": None}
    )
    assert _read(tmp_path, config.dump()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env: Pendulum-v1\nmodel: {n_epoch: 3}", r"unknown key 'model.n_epoch'.*model\.n_epochs"),
        ("env: Pendulum-v1\nn_epochs: 3", r"unknown key 'n_epochs'; did you mean model\.n_epochs"),
        ("env: Pendulum-v1\nsteps: 300", r"use the key total_timesteps of the section learn"),
        ("env: Pendulum-v1\nplanner: {horizn: 3}", r"did you mean planner\.horizon"),
        ("env: Pendulum-v1\nlearn: {total_steps: 3}", r"did you mean learn\.total_timesteps"),
        ("env: Pendulum-v1\nqqqq: 3", "no known key is close"),
        ("env: Pendulum-v1\nmodel: {seed: 3}", r"model\.seed .* use the key seed"),
        ("env: Pendulum-v1\nmodel: {dynamics: 3}", r"MPPIGPS\(dynamics=\.\.\.\) in Python"),
        ("env: Pendulum-v1\nmodel: 3", "model must hold keys and values, got 3"),
        ("seed: 3", "no env"),
        ("just text", "must hold keys and values"),
        ("a: [", "is no YAML file"),
        ("env: Pendulum-v1\nn_envs: 0", "n_envs must be an int >= 1, got 0"),
        ("env: Pendulum-v1\nseed: true", "seed must be an int >= 0, got True"),
        ("env: Pendulum-v1\nminutes: 0", "training time must be > 0, got 0"),
        ("env: Pendulum-v1\ntensorboard: 1", "tensorboard must be true or false, got 1"),
        ("env: Pendulum-v1\nlearn: {total_timesteps: 0.5}", r"total_timesteps .* >= 1, got 0\.5"),
    ],
)
def test_mistakes_in_a_file_name_the_cure(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        _read(tmp_path, text)


def test_an_object_that_is_not_there_is_named():
    config = tiny.config(**{"model.policy_kwargs": {"activation_fn": {"object": "torch.nn.ReLu"}}})
    with pytest.raises(ValueError, match=r"'torch\.nn\.ReLu' cannot be imported"):
        config.model_arguments()


def test_settings_on_the_command_line_are_yaml():
    assert parse_setting("model.policy_kwargs={net_arch: [8, 8]}") == (
        "model.policy_kwargs",
        {"net_arch": [8, 8]},
    )
    for text in ("model.n_epochs", "model.n_epochs=["):
        with pytest.raises(ValueError, match="KEY=VALUE"):
            parse_setting(text)
