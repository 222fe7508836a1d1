"""The measurement of planning: what it reports, and that it measures the same work."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.bench import BarePhysics, Recording, alternate, bench_planner, ratio
from mppi_agent.cli import main
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import MujocoBatchDynamics


def test_functions_take_turns_and_the_first_turn_warms_up():
    turns = []

    def take(name, seconds):
        turns.append(name)
        return next(seconds)

    a, b = iter([9.0, 1.0, 4.0]), iter([9.0, 2.0, 2.0])
    seconds = alternate({"a": lambda: take("a", a), "b": lambda: take("b", b)}, repeats=2)
    assert turns == ["a", "b"] * 3
    np.testing.assert_array_equal(seconds["a"], [1.0, 4.0])
    assert ratio(seconds["a"], seconds["b"]) == 1.25  # median of 0.5 and 2


def test_bare_physics_ends_in_the_states_of_the_rollouts():
    env = Cloneable(gym.make("InvertedPendulum-v5"))
    env.reset(seed=0)
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    recording = Recording(dynamics)
    actions = np.random.default_rng(0).uniform(-3, 3, (1, 4, 15, 1)).astype(np.float32)
    batch = recording.rollout([env.snapshot()], actions)
    assert recording.sim_steps == batch.lengths.sum() < 60
    bare = BarePhysics(env, 4, num_threads=1)
    physics = np.repeat([env.snapshot().physics], 4, axis=0)
    assert bare.seconds(physics, actions[0], batch.lengths[0]) > 0
    # This env shows positions and velocities, and a rollout that ended is not stepped on.
    state = bare.state[:, 1:5]
    np.testing.assert_array_equal(state, batch.final_observations[0])


@pytest.mark.parametrize(
    ("env_id", "backend", "first_part"),
    [
        ("InvertedPendulum-v5", "MujocoBatchDynamics", "physics"),
        ("Pendulum-v1", "VectorDynamics", "rollouts"),
    ],
)
def test_the_command_reports_parts_and_ratios(env_id, backend, first_part, capsys):
    arguments = ["bench", "planner", env_id, "--num-samples", "8", "--horizon", "5"]
    arguments += ["--threads", "1", "--repeats", "1"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["backend"], result["num_samples"], result["horizon"]) == (backend, 8, 5)
    assert first_part in result["parts_ms"] and "sampling and weights" in result["parts_ms"]
    assert min(result["parts_ms"].values()) > 0 and result["env_step_over_rollout"] > 0
    assert (result["plan_over_physics"] is None) == (backend == "VectorDynamics")
    assert main(arguments) == 0
    assert "ms per plan" in capsys.readouterr().out


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="repeats must be >= 1, got 0"):
        bench_planner("Pendulum-v1", repeats=0)
