"""The command line: what it prints, returns and refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import gymnasium as gym
import pytest
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from mppi_agent.cli import main

COMMANDS = ["train", "eval", "plan", "compare", "check"]  # those that take an env
HELPED = [*COMMANDS, "export", "plot", "bench"]


def _error(capsys):
    """Return the one line that an error prints."""
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if "mppi-agent: error:" in line]
    assert len(lines) == 1 and "Traceback" not in captured.err
    return lines[0]


@pytest.mark.parametrize("command", HELPED)
def test_help_shows_examples_of_the_command(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"mppi-agent {command} " in capsys.readouterr().out.partition("examples:")[2]


@pytest.mark.parametrize("command", [*COMMANDS])
def test_unknown_env_is_one_line_with_close_matches(command, capsys):
    arguments = [command, "model.zip", "--env"] if command == "eval" else [command]
    assert main([*arguments, "Pendulm-v1"]) == 2
    assert "did you mean Pendulum-v1" in _error(capsys)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("HalfCheetah-v9", "did you mean HalfCheetah-v5"),
        ("pendulum", "did you mean Pendulum-v1"),
        ("no_such_package:Thing-v0", "cannot be imported"),
        ("qqqqqqqq", "no registered id is close"),
    ],
)
def test_wrong_env_ids_get_a_hint(env_id, message, capsys):
    assert main(["check", env_id]) == 2
    assert message in _error(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "Pendulum-v1", "--minutes", "0"], "training time must be > 0"),
        (["compare", "Pendulum-v1", "--algos", "dqn"], "algos must be some of"),
        (["plan", "Pendulum-v1", "--num-samples", "1"], "num_samples=1 must be"),
        (["eval", "missing.zip", "--env", "Pendulum-v1"], "missing.zip"),
        (["export", "missing.zip", "--onnx", "policy.onnx"], "missing.zip"),
        (["export", "model.zip"], "name a file to write: --onnx FILE"),
        (["train", "Blackjack-v1", "--minutes", "0.02"], "FlattenObservation"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in _error(capsys)


def test_a_file_that_is_no_model_is_refused(capsys, tmp_path):
    path = tmp_path / "model.zip"
    path.write_text("not a zip file")
    assert main(["eval", str(path), "--env", "Pendulum-v1"]) == 2
    assert str(path) in _error(capsys)


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="training time must be > 0"):
        main(["train", "Pendulum-v1", "--minutes", "0", "--debug"])


def test_check_reports_an_exactly_cloneable_env(capsys):
    assert main(["check", "Pendulum-v1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["exact"] is True and result["mismatches"] == []
    assert result["verdict"] == "bit-exact" and result["steps_per_second"] > 0
    assert main(["check", "Pendulum-v1"]) == 0
    assert result["backend"] in capsys.readouterr().out


def test_check_says_where_nothing_plans(capsys):
    gym.register(
        "Bits-v0",
        lambda: gym.wrappers.TransformAction(
            gym.make("CartPole-v1"), lambda action: int(action[0]), gym.spaces.MultiBinary(1)
        ),
    )
    try:
        assert main(["check", "Bits-v0"]) == 1
    finally:
        del gym.registry["Bits-v0"]
    assert "no plans: action_space=MultiBinary(1) is not supported" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["check", "plan"])
def test_an_env_that_prints_leaves_the_json_alone(command, capsys, monkeypatch):
    def step(self, action):
        print("hello from the env")
        return original(self, action)

    original = PendulumEnv.step
    monkeypatch.setattr(PendulumEnv, "step", step)
    steps = [] if command == "check" else ["--steps", "2"]
    assert main([command, "Pendulum-v1", "--json", *steps]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["env"] == "Pendulum-v1" and "hello" in captured.err


def test_what_is_no_number_is_null_in_json(capsys, monkeypatch):
    def step(self, action):
        observation, _, *rest = original(self, action)
        return observation, float("nan"), *rest

    original = PendulumEnv.step
    monkeypatch.setattr(PendulumEnv, "step", step)
    with pytest.warns(UserWarning):
        assert main(["plan", "Pendulum-v1", "--json", "--steps", "2"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert found["mean_return"] is None and found["returns"] == [None]


def test_a_negative_seed_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["plan", "Pendulum-v1", "--seed", "-1"])
    assert caught.value.code == 2
    assert "--seed: must be >= 0, got -1" in capsys.readouterr().err


def test_plan_prints_return_time_and_effective_sample_size(capsys):
    arguments = ["plan", "Pendulum-v1", "--steps", "5", "--num-samples", "8"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "in 5 steps" in printed and "ms per plan" in printed and "of 8" in printed
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["lengths"] == [5] and result["ms_per_plan"] > 0 and 1 <= result["ess"] <= 8


def test_a_trained_policy_can_be_evaluated_and_can_seed_plans(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "new" / "model.zip"
    arguments = ["train", "Pendulum-v1", "--minutes", "0.05", "--out", str(path), "--json"]
    assert main(arguments) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["model"] == str(path) and path.exists() and trained["status"] == "finished"
    assert trained["training_seconds"] >= 3.0

    assert main(["eval", str(path), "--env", "Pendulum-v1", "--episodes", "3", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["seeds"] == [100_000, 100_001, 100_002] and len(evaluated["returns"]) == 3

    assert main(["plan", "Pendulum-v1", "--steps", "3", "--policy", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lengths"] == [3]

    exported = tmp_path / "policy.pt"
    assert main(["export", str(path), "--torchscript", str(exported), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torchscript"] == str(exported)
    assert torch.jit.load(exported)(torch.zeros(2, 3)).shape == (2, 1)

    assert main(["eval", str(path), "--env", "HalfCheetah-v5"]) == 2
    assert "trained with the observation_space" in _error(capsys)


def test_a_result_in_json_is_all_that_stdout_holds(capsys, tmp_path):
    arguments = ["compare", "Pendulum-v1", "--minutes", "0.02", "--algos", "ppo", "--json"]
    arguments += ["--episodes", "2", "--expert-episodes", "0"]
    arguments += ["--curve-points", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["algorithm"] for row in result["rows"]] == ["PPO"]
    assert main([argument for argument in arguments if argument != "--json"]) == 0
    printed = capsys.readouterr().out
    assert "mean return" in printed and str(tmp_path / "learning_curve.png") in printed


def test_envs_that_show_a_dict_are_learnt_in(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env_id = "mppi_envs:mppi_envs/MultiTaskArmDict-v0"
    assert main(["train", env_id, "--minutes", "0.02", "--out", "arm.zip"]) == 0
    assert main(["eval", "arm.zip", "--env", env_id, "--episodes", "2"]) == 0


def test_an_env_in_the_present_folder_is_found(tmp_path):
    (tmp_path / "my_cart.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "gym.register('MyPendulum-v0', PendulumEnv, max_episode_steps=20)\n"
    )
    env_id = "my_cart:MyPendulum-v0"
    # -P: the folder is not on the path by itself, as it is for `python -m`.
    as_installed = "import sys; from mppi_agent.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", as_installed, "plan", env_id, "--steps", "1", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["env"] == env_id
