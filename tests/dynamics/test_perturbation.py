"""Perturbed models against closed forms of a cart and a block, and against plain loops."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics, make_dynamics
from mppi_agent.dynamics.perturbation import (
    Perturbation,
    make_ensemble,
    perturbed_dynamics,
)
from tests.gps.toy_envs import make_target

DT_S = 0.01
MASS, GEAR, DAMPING, FRICTION = 2.0, 3.0, 0.5, 0.2
XML = f"""
<mujoco>
  <option timestep="{DT_S}"/>
  <worldbody>
    <geom type="plane" size="9 9 1" friction="{FRICTION}"/>
    <body pos="0 5 1">
      <joint name="cart" type="slide" axis="1 0 0" damping="{DAMPING}"/>
      <geom type="sphere" size=".1" mass="{MASS}" contype="0" conaffinity="0"/>
    </body>
    <body pos="0 0 .1">
      <joint type="slide" axis="1 0 0"/>
      <joint type="slide" axis="0 0 1"/>
      <geom type="box" size=".1 .1 .1" mass="1" friction="{FRICTION}"/>
    </body>
  </worldbody>
  <actuator><{{actuator}}/></actuator>
</mujoco>
"""
MOTOR = f'motor joint="cart" gear="{GEAR}"'


class CartAndBlock(gym.Env):
    """A cart with a motor, and a block that slides over the floor until friction stops it."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), dtype=np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), dtype=np.float64)

    def __init__(self, actuator: str = MOTOR) -> None:
        self.model = mujoco.MjModel.from_xml_string(XML.format(actuator=actuator))
        self.data = mujoco.MjData(self.model)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qvel[:] = [0.5, 1.0, 0.0]
        return self.data.qvel.copy(), {}

    def step(self, action):
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data)
        return self.data.qvel.copy(), 0.0, False, False, {}


def make(actuator: str = MOTOR) -> Cloneable:
    env = Cloneable(CartAndBlock(actuator))
    env.reset(seed=0)
    return env


def speeds(perturbation: Perturbation, steps: int = 20) -> np.ndarray:
    """Return velocities after each step under full throttle, shape (steps, 3)."""
    env = make()
    dynamics = perturbed_dynamics(env, perturbation, num_workers=1)
    actions = np.ones((1, 1, steps, 1))
    return dynamics.rollout([env.snapshot()], actions, keep_observations=True).observations[0, 0]


@pytest.mark.parametrize(
    "perturbation",
    [
        Perturbation(),
        Perturbation(mass=1.7),
        Perturbation(gain=0.4),
        Perturbation(damping=3.0),
        Perturbation(mass=0.6, gain=2.0, damping=0.0),
    ],
)
def test_mass_gain_and_damping_have_the_closed_form_of_a_cart(perturbation):
    mass, damping = MASS * perturbation.mass, DAMPING * perturbation.damping
    speed = 0.5
    for found in speeds(perturbation)[:, 0]:
        # MuJoCo's Euler integrator treats damping implicitly.
        force = GEAR * perturbation.gain - damping * speed
        speed += DT_S * force / (mass + DT_S * damping)
        assert found == pytest.approx(speed, rel=1e-9)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_a_servo_becomes_stiffer_and_keeps_its_aim(gain):
    env = make('position joint="cart" kp="40" kv="20"')
    dynamics = perturbed_dynamics(env, Perturbation(gain=gain), num_workers=1)
    actions = np.full((1, 1, 400, 1), 0.7)
    batch = dynamics.rollout([env.snapshot()], actions, keep_observations=True)
    position, speed = 0.0, 0.5
    for found in batch.observations[0, 0, :, 0]:
        force = gain * (40 * (0.7 - position) - 20 * speed) - DAMPING * speed
        speed += DT_S * force / (MASS + DT_S * DAMPING)
        position += DT_S * speed
        assert found == pytest.approx(speed, rel=1e-9, abs=1e-12)
    assert position == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_friction_slows_the_block_by_coulombs_law(factor):
    lost = 1.0 - speeds(Perturbation(friction=factor))[-1, 1]
    assert lost == pytest.approx(factor * FRICTION * 9.81 * 20 * DT_S, rel=0.1)


def test_the_env_and_its_other_copies_keep_their_model():
    env = make()
    before = env.unwrapped.model.body_mass.copy()
    perturbed_dynamics(env, Perturbation(mass=5.0), num_workers=1)
    np.testing.assert_array_equal(env.unwrapped.model.body_mass, before)
    nominal = EnvStepDynamics(env).rollout([env.snapshot()], np.ones((1, 1, 20, 1)))
    np.testing.assert_array_equal(speeds(Perturbation())[-1], nominal.final_observations[0, 0])


def test_a_known_task_stays_on_its_fast_backend_and_equals_an_env_with_that_model():
    env = Cloneable(gym.make("HalfCheetah-v5"))
    env.reset(seed=0)
    dynamics = perturbed_dynamics(env, Perturbation(mass=1.3, friction=0.7), num_workers=1)
    assert isinstance(dynamics, MujocoBatchDynamics)
    by_hand = gym.make("HalfCheetah-v5")
    model = by_hand.unwrapped.model
    model.body_mass[:] *= 1.3
    model.body_inertia[:] *= 1.3
    model.geom_friction[:] *= 0.7
    mujoco.mj_setConst(model, mujoco.MjData(model))
    oracle = Cloneable(by_hand)
    oracle.reset(seed=0)
    states = [env.snapshot()]
    actions = np.random.default_rng(0).uniform(-1, 1, (1, 3, 30, 6))
    ours = dynamics.rollout(states, actions, keep_observations=True)
    theirs = EnvStepDynamics(oracle).rollout(states, actions, keep_observations=True)
    np.testing.assert_array_equal(ours.observations, theirs.observations)
    np.testing.assert_allclose(ours.rewards, theirs.rewards, atol=1e-9)
    nominal = make_dynamics(env, num_workers=1).rollout(states, actions)
    assert abs(nominal.rewards - ours.rewards).max() > 0.1


def test_an_ensemble_shows_how_robust_a_plan_is():
    env = make_target()
    perturbations = [Perturbation(), Perturbation(delay=2), Perturbation(delay=4)]
    ensemble = make_ensemble(env, perturbations, tail=0.3, num_workers=1)
    steady = np.full((1, 1, 6, 1), 1.0)
    waving = 1.5 + np.array([0.0, 1.0, 0.0, -1.0, 0.0, 1.0]).reshape(1, 1, 6, 1)
    returns = ensemble.returns([env.snapshot()], np.concatenate([steady, waving], axis=1))
    assert returns.shape == (3, 1, 2)
    np.testing.assert_array_equal(returns[:, 0, 0], returns[0, 0, 0])
    assert len(np.unique(returns[:, 0, 1])) > 1
    ensemble.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mass": 0.0}, "mass must be > 0 and finite, got 0.0"),
        ({"friction": -1.0}, "friction must be >= 0 and finite, got -1.0"),
        ({"gain": float("nan")}, "gain must be >= 0"),
        ({"delay": 1.5}, "delay must be a whole number"),
        ({"delay": 1.0}, "delay must be a whole number of control steps, got 1.0"),
        ({"observation_noise": -0.1}, "observation_noise must be >= 0"),
    ],
)
def test_bad_perturbations_are_refused(arguments: dict[str, Any], message):
    with pytest.raises(ValueError, match=message):
        Perturbation(**arguments)


def test_what_a_model_lacks_cannot_be_perturbed():
    with pytest.raises(ValueError, match="mass, gain can be perturbed in a MuJoCo model only"):
        make_ensemble(make_target(), [Perturbation(), Perturbation(mass=2.0, gain=2.0)])
    muscle = make('muscle joint="cart" lengthrange="0 1"')
    with pytest.raises(ValueError, match="motors and servos only; CartAndBlock has muscles"):
        perturbed_dynamics(muscle, Perturbation(gain=2.0))
