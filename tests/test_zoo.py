"""MPPIGPS in the rl-baselines3-zoo: trained, looked at, continued and loaded as PPO is."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent import MPPIGPS, zoo

needs_zoo = pytest.mark.skipif(find_spec("rl_zoo3") is None, reason="needs rl_zoo3")
RUN = "logs/mppigps/Pendulum-v1_1"
TINY = (
    "--eval-episodes 1 --seed 1 -params num_simulations:8 simulation_steps:4 n_steps:8 "
    "expert_episodes:1 expert_steps:8 eval_episodes:1 label_states:1"
)


def call(arguments: str, directory: Path) -> str:
    """Run a command in a process of its own: the zoo changes gymnasium for all that share it."""
    done = subprocess.run(
        [sys.executable, "-m", "mppi_agent.zoo", *arguments.split()],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_zoo
@pytest.mark.slow
def test_the_zoo_trains_enjoys_and_goes_on_with_a_model_that_loads_anywhere(tmp_path):
    train = "train --algo mppigps --env Pendulum-v1 -n 32 --eval-freq 16"
    printed = call(f"{train} --save-replay-buffer {TINY}", tmp_path)
    assert "Eval num_timesteps=16" in printed and str(zoo.HYPERPARAMS) in printed
    enjoyed = call(
        "enjoy --algo mppigps --env Pendulum-v1 -f logs --no-render -n 200 --load-best", tmp_path
    )
    assert "Mean reward: -" in enjoyed

    model = MPPIGPS.load(tmp_path / RUN / "Pendulum-v1.zip", env="Pendulum-v1")
    assert model.num_timesteps == 32 and model.num_simulations == 8
    assert gym.make("Pendulum-v1").action_space.contains(model.predict(np.zeros(3, "f"))[0])

    printed = call(f"{train} -i {RUN}/Pendulum-v1.zip {TINY}", tmp_path)
    assert "Loading pretrained agent" in printed and "Loading replay buffer" in printed
    assert (tmp_path / "logs/mppigps/Pendulum-v1_2/Pendulum-v1.zip").exists()


@needs_zoo
@pytest.mark.slow
def test_schedules_several_envs_and_normalisation_of_the_zoo_work(tmp_path):
    arguments = f"train --algo mppigps --env Pendulum-v1 -n 32 --eval-freq -1 {TINY}"
    extra = "n_envs:2 normalize:True learning_rate:'lin_3e-4' clip_range:'lin_0.2'"
    call(f"{arguments} {extra}", tmp_path)
    model = MPPIGPS.load(tmp_path / RUN / "Pendulum-v1.zip")
    assert model.n_envs == 2 and model.clip_range(0.5) == 0.1 and model.lr_schedule(0.5) == 1.5e-4
    assert (tmp_path / RUN / "Pendulum-v1" / "vecnormalize.pkl").exists()
    enjoyed = call("enjoy --algo mppigps --env Pendulum-v1 -f logs --no-render -n 200", tmp_path)
    assert "Loading running average" in enjoyed and "Mean reward: -" in enjoyed


@needs_zoo
@pytest.mark.slow
def test_its_other_algorithms_keep_their_settings(tmp_path):
    printed = call("train --algo ppo --env CartPole-v1 -n 8 --eval-freq -1", tmp_path)
    assert str(zoo.HYPERPARAMS) not in printed
    assert (tmp_path / "logs/ppo/CartPole-v1_1/CartPole-v1.zip").exists()


def test_the_published_settings_are_of_envs_and_arguments_that_exist():
    yaml = pytest.importorskip("yaml")
    settings = yaml.safe_load(zoo.HYPERPARAMS.read_text())
    for env_id, entry in settings.items():
        assert env_id == "default" or env_id in gym.registry
        assert entry["n_timesteps"] >= 1000 and entry["env_wrapper"] == "mppi_agent.Cloneable"
        assert set(entry) == {"n_timesteps", "policy", "env_wrapper"}


def test_without_the_zoo_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("mppi_agent.zoo.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'mppi-agent\[zoo\]'"):
        zoo.main(["train", "--algo", "mppigps"])


@pytest.mark.parametrize("arguments", [[], ["fly"]])
def test_an_unknown_command_is_answered_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        zoo.main(arguments)
    assert caught.value.code == 2
    assert "{train,enjoy}" in capsys.readouterr().out
