"""Classic control with discrete actions against `env.step`: every end, wall and limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rollout_cases import assert_agree, make

from mppi_agent.dynamics import EnvStepDynamics, VectorDynamics
from mppi_agent.dynamics.tasks import vector_task_of
from mppi_agent.interfaces import EnvState

CASES = [
    ("CartPole-v1", {}, {}, [(2.3, 2.0, 0.0, 0.0), (0.0, 0.0, -0.2, -1.0), (-2.3, -2, 0.0, 0.0)]),
    ("CartPole-v1", {"sutton_barto_reward": True}, {"force_mag": 6.0, "tau": 0.03}, []),
    ("CartPole-v1", {}, {"kinematics_integrator": "semi-implicit euler", "length": 0.8}, []),
    ("MountainCar-v0", {}, {}, [(-1.15, -0.07), (0.45, 0.03), (-0.3, 0.07)]),
    ("MountainCar-v0", {"goal_velocity": 0.03}, {"force": 0.002}, [(0.4, 0.05), (0.49, 0.01)]),
    ("Acrobot-v1", {}, {}, [(2.5, 0.5, 3.0, -2.0), (3.1, -3.1, -12.5, 28.0)]),
    ("Acrobot-v1", {}, {"LINK_MASS_2": 1.4, "LINK_COM_POS_1": 0.4, "dt": 0.1}, [(3, 0, 0, 0)]),
]


def states_of(env: Any, points: list[tuple[float, ...]]) -> list[EnvState]:
    """Return two states after a reset and those at `points`."""
    states = EnvStepDynamics(env).initial_states(2, np.random.default_rng(1))
    for point in points:
        is_tuple = isinstance(env.unwrapped.state, tuple)
        env.unwrapped.state = point if is_tuple else np.array(point, dtype=np.float64)
        states.append(env.snapshot())
    return states


@pytest.mark.parametrize(("env_id", "kwargs", "changes", "points"), CASES)
def test_task_is_what_the_env_itself_does(env_id, kwargs, changes, points):
    env = make(env_id, **kwargs)
    for name, value in changes.items():
        setattr(env.unwrapped, name, value)
    states = states_of(env, points)
    num_actions, rng = env.action_space.n, np.random.default_rng(0)
    held = np.repeat(rng.integers(num_actions, size=(len(states), 6, 8)), 10, axis=2)
    constant = np.broadcast_to(np.arange(num_actions)[:, None], (len(states), num_actions, 80))
    actions = np.concatenate([held, constant], axis=1)
    checked = EnvStepDynamics(env).rollout(states, actions, keep_observations=True)
    driven = VectorDynamics(env).rollout(states, actions, keep_observations=True)
    assert_agree(driven, checked, rtol=1e-5, atol=1e-5)  # observations are float32
    np.testing.assert_array_equal(driven.rewards, checked.rewards)
    assert checked.terminated.any() and not checked.diverged.any()


@pytest.mark.parametrize("change", [{"torque_noise_max": 0.1}, {"book_or_nips": "nips"}])
def test_variants_of_acrobot_step_themselves(change):
    env = make("Acrobot-v1").unwrapped
    for name, value in change.items():
        setattr(env, name, value)
    assert vector_task_of(env) is None
