"""Classic controllers of the two swing-ups: pump energy, then balance by LQR.

They have the `predict` of Stable-Baselines3, as a planner or a policy has, so that they can be
evaluated, recorded or compared in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import mujoco
import numpy as np

from mppi_envs.base import TaskEnv
from mppi_envs.cart_pole import CartPoleSwingUpEnv
from mppi_envs.double_pendulum import DoublePendulumSwingUpEnv

__all__ = ["CartPoleController", "DoublePendulumController", "SwingUpController", "lqr_gain"]

_RICCATI_ITERATIONS = 2000


class SwingUpController(ABC):
    """Swing up, and balance from where LQR can.

    Args:
        env: The env that it is to act in; its model is read, perturbations included.

    Attributes:
        state_weights: LQR cost of squared positions and velocities, nq + nv numbers.
        control_weight: LQR cost of the squared control.
    """

    state_weights: ClassVar[tuple[float, ...]]
    control_weight: ClassVar[float]

    def __init__(self, env: TaskEnv) -> None:
        upright = np.zeros(env.model.nq)
        self._model = env.model
        self._gain = lqr_gain(env, upright, self.state_weights, self.control_weight)

    @abstractmethod
    def joint_state(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions, angles in (-pi, pi] from upright, and velocities."""

    @abstractmethod
    def can_balance(self, qpos: np.ndarray, qvel: np.ndarray) -> bool:
        """Say whether LQR will hold from here."""

    @abstractmethod
    def swing(self, qpos: np.ndarray, qvel: np.ndarray) -> float:
        """Return the control that pumps energy, not yet clipped."""

    def balance(self, qpos: np.ndarray, qvel: np.ndarray) -> float:
        """Return the control of the LQR, not yet clipped."""
        return -float(self._gain[0] @ np.concatenate((qpos, qvel)))

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the action for one observation, shape (1,)."""
        qpos, qvel = self.joint_state(observation)
        if self.can_balance(qpos, qvel):
            control = self.balance(qpos, qvel)
        else:
            control = self.swing(qpos, qvel)
        return np.array([np.clip(control, -1.0, 1.0)], dtype=np.float32)

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Return actions for one observation or for rows of them; there is no randomness."""
        if np.ndim(observation) == 1:
            return self.act(observation), state
        return np.stack([self.act(row) for row in observation]), state


class CartPoleController(SwingUpController):
    """Pump the pole's energy with the cart while it stays near the centre.

    Source: Astrom and Furuta 2000, "Swinging up a pendulum by energy control".
    """

    state_weights = (1.0, 10.0, 0.1, 1.0)
    control_weight = 1.0
    pump_gain = 8.0  # metres per second squared per joule and radian per second
    centre_gains = (4.0, 2.0)  # newtons per metre, and per metre per second
    catch_angle = 0.4  # radians
    catch_speed = 3.0  # radians per second

    def __init__(self, env: CartPoleSwingUpEnv) -> None:
        super().__init__(env)
        pole = env.model.body("pole").id
        self._weight = env.model.body_mass[pole] * -env.model.opt.gravity[2]
        self._reach = env.model.body_ipos[pole][2]
        about_centre = env.model.body_inertia[pole][0]
        self._inertia = about_centre + env.model.body_mass[pole] * self._reach**2
        self._total_mass = env.model.body_subtreemass[env.model.body("cart").id]
        self._strength = env.model.actuator_gear[0, 0] * env.model.actuator_gainprm[0, 0]

    def joint_state(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return cart position and pole angle, and their speeds."""
        position, cosine, sine, *speeds = observation
        return np.array((position, np.arctan2(sine, cosine))), np.array(speeds)

    def can_balance(self, qpos: np.ndarray, qvel: np.ndarray) -> bool:
        """Say whether the pole is nearly upright and slow."""
        return abs(qpos[1]) < self.catch_angle and abs(qvel[1]) < self.catch_speed

    def swing(self, qpos: np.ndarray, qvel: np.ndarray) -> float:
        """Accelerate the cart so that the pole's energy approaches that of standing."""
        (position, angle), (speed, turn) = qpos, qvel
        missing = self._weight * self._reach * (1 - np.cos(angle)) - self._inertia * turn**2 / 2
        acceleration = -self.pump_gain * missing * turn * np.cos(angle)
        spring, damper = self.centre_gains
        force = self._total_mass * acceleration - spring * position - damper * speed
        return force / self._strength


class DoublePendulumController(SwingUpController):
    """Pump energy through the shoulder while it is missing, and keep the elbow from trailing.

    Source: Fantoni, Lozano and Spong 2000, "Energy based control of the Pendubot", for the pumping;
    the terms of the elbow were found by random search.
    """

    state_weights = (10.0, 10.0, 1.0, 1.0)
    control_weight = 10.0
    pump_gain = 0.8  # controls per missing joule and radian per second of the shoulder
    elbow_gains = (1.0, 0.25)  # controls per radian, and per radian per second
    catch_angle = 0.7  # radians, of each joint
    catch_control = 2.2  # what LQR may ask for; 1 is what the motor has

    def __init__(self, env: DoublePendulumSwingUpEnv) -> None:
        super().__init__(env)
        self._data = mujoco.MjData(env.model)
        self._standing_energy = self._energy(np.zeros(2), np.zeros(2))

    def joint_state(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return both angles and their speeds."""
        return np.arctan2(observation[2:4], observation[:2]), observation[4:]

    def can_balance(self, qpos: np.ndarray, qvel: np.ndarray) -> bool:
        """Say whether both links are nearly upright and LQR asks for little."""
        is_near = np.abs(qpos).max() < self.catch_angle
        return bool(is_near and abs(self.balance(qpos, qvel)) < self.catch_control)

    def swing(self, qpos: np.ndarray, qvel: np.ndarray) -> float:
        """Push the shoulder the way it turns, as long as energy is missing."""
        missing = self._standing_energy - self._energy(qpos, qvel)
        stiffness, damping = self.elbow_gains
        return self.pump_gain * missing * qvel[0] + stiffness * qpos[1] + damping * qvel[1]

    def _energy(self, qpos: np.ndarray, qvel: np.ndarray) -> float:
        self._data.qpos[:], self._data.qvel[:] = qpos, qvel
        mujoco.mj_fwdPosition(self._model, self._data)
        mujoco.mj_fwdVelocity(self._model, self._data)
        mujoco.mj_energyPos(self._model, self._data)
        mujoco.mj_energyVel(self._model, self._data)
        return float(self._data.energy.sum())


def lqr_gain(
    env: TaskEnv, qpos: np.ndarray, state_weights: Sequence[float], control_weight: float
) -> np.ndarray:
    """Return the gain that balances at an equilibrium without control.

    Args:
        env: Its model is linearised, one control step at a time.
        qpos: Equilibrium, shape (nq,), of a model with nq = nv.
        state_weights: Cost of squared positions and velocities, shape (nq + nv,).
        control_weight: Cost of squared controls, > 0.

    Returns:
        Shape (nu, nq + nv); the control is minus its product with the state's deviation.
    """
    model, data = env.model, mujoco.MjData(env.model)
    data.qpos[:] = qpos
    size = 2 * model.nv
    step_a, step_b = np.zeros((size, size)), np.zeros((size, model.nu))
    mujoco.mjd_transitionFD(model, data, 1e-6, True, step_a, step_b, None, None)
    a, b = np.eye(size), np.zeros((size, model.nu))
    for _ in range(env.frame_skip):
        a, b = step_a @ a, step_a @ b + step_b
    cost = values = np.diag(state_weights)
    for _ in range(_RICCATI_ITERATIONS):
        gain = np.linalg.solve(
            control_weight * np.eye(model.nu) + b.T @ values @ b, b.T @ values @ a
        )
        values = cost + a.T @ values @ (a - b @ gain)
    return gain
