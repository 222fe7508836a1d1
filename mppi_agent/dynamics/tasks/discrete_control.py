"""Classic control with discrete actions as array operations: CartPole, MountainCar, Acrobot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_agent.interfaces import VectorTask

__all__ = ["Acrobot", "CartPole", "DiscreteMountainCar", "acrobot", "cart_pole", "mountain_car"]


@dataclass(frozen=True, kw_only=True)
class CartPole:
    """Balance a pole on a cart that is pushed left (0) or right (1).

    Attributes:
        gravity: Metres per second squared.
        pole_mass: Kilograms.
        total_mass: Of pole and cart, kilograms.
        half_length: Of the pole, metres.
        moment: Pole mass times half length, as the env keeps it.
        force: Newtons.
        dt_s: Seconds per step.
        is_explicit: Whether positions move with the speeds from before the step.
        position_limit: Metres; beyond it the episode ends.
        angle_limit: Radians; beyond it the episode ends.
        rewards: Of a step that goes on, and of the one that ends the episode.
    """

    gravity: float
    pole_mass: float
    total_mass: float
    half_length: float
    moment: float
    force: float
    dt_s: float
    is_explicit: bool
    position_limit: float
    angle_limit: float
    rewards: tuple[float, float]

    def step(
        self, physics: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Advance by one env step; see `VectorTask.step`."""
        positions, speeds = physics[:, 0::2], physics[:, 1::2]  # each of cart and pole
        angle, angular_speed = physics[:, 2], physics[:, 3]
        cosine, sine = np.cos(angle), np.sin(angle)
        force = np.where(actions == 1, self.force, -self.force)
        push = (force + self.moment * np.square(angular_speed) * sine) / self.total_mass
        inertia = 4.0 / 3.0 - self.pole_mass * np.square(cosine) / self.total_mass
        turn = (self.gravity * sine - cosine * push) / (self.half_length * inertia)
        accelerations = np.stack(
            (push - self.moment * turn * cosine / self.total_mass, turn), axis=1
        )
        new_speeds = speeds + self.dt_s * accelerations
        new_positions = positions + self.dt_s * (speeds if self.is_explicit else new_speeds)
        limits = (self.position_limit, self.angle_limit)
        terminated = np.any(np.abs(new_positions) > limits, axis=1)
        physics = np.stack((new_positions, new_speeds), axis=2).reshape(-1, 4)
        rewards = np.where(terminated, self.rewards[1], self.rewards[0])
        return physics, physics.astype(np.float32), rewards, terminated


@dataclass(frozen=True, kw_only=True)
class DiscreteMountainCar:
    """Drive out of a valley backwards (0), in neutral (1) or forwards (2), each step at a cost.

    Attributes:
        force: Of the engine, per step squared.
        gravity: Per step squared.
        max_speed: Per step.
        position_range: Where the walls are.
        goal_position: From here on the episode ends.
        goal_speed: Needed at the goal.
    """

    force: float
    gravity: float
    max_speed: float
    position_range: tuple[float, float]
    goal_position: float
    goal_speed: float

    def step(
        self, physics: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Advance by one env step; see `VectorTask.step`."""
        position, speed = physics.T
        speed = speed + ((actions - 1) * self.force - np.cos(3 * position) * self.gravity)
        speed = np.clip(speed, -self.max_speed, self.max_speed)
        low, high = self.position_range
        position = np.clip(position + speed, low, high)
        speed = np.where((position == low) & (speed < 0), 0.0, speed)
        terminated = (position >= self.goal_position) & (speed >= self.goal_speed)
        physics = np.stack((position, speed), axis=1)
        return physics, physics.astype(np.float32), np.full(len(physics), -1.0), terminated


@dataclass(frozen=True, kw_only=True)
class Acrobot:
    """Swing the tip of two links above a line with a motor in the joint between them.

    Attributes:
        masses: Of the links, kilograms.
        length: Of the first link, metres.
        centres: From a link's joint to its centre of mass, metres.
        inertia: Of each link, kilogram square metres.
        max_speeds: Of the joints, radians per second.
        torques: By action, newton metres.
        dt_s: Seconds per step.
    """

    masses: tuple[float, float]
    length: float
    centres: tuple[float, float]
    inertia: float
    max_speeds: tuple[float, float]
    torques: tuple[float, ...]
    dt_s: float

    def step(
        self, physics: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Advance by one env step of fourth-order Runge-Kutta; see `VectorTask.step`."""
        torque = np.asarray(self.torques)[actions]
        half = 0.5 * self.dt_s
        k1 = self._derivative(physics, torque)
        k2 = self._derivative(physics + half * k1, torque)
        k3 = self._derivative(physics + half * k2, torque)
        k4 = self._derivative(physics + self.dt_s * k3, torque)
        physics = physics + self.dt_s / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles = (physics[:, :2] + np.pi) % (2 * np.pi) - np.pi
        speeds = np.clip(physics[:, 2:], np.negative(self.max_speeds), self.max_speeds)
        first, second = angles.T
        terminated = -np.cos(first) - np.cos(second + first) > 1.0
        circle = (np.cos(first), np.sin(first), np.cos(second), np.sin(second))
        observations = np.column_stack((*circle, speeds)).astype(np.float32)
        rewards = np.where(terminated, 0.0, -1.0)
        return np.column_stack((angles, speeds)), observations, rewards, terminated

    def _derivative(self, physics: np.ndarray, torque: np.ndarray) -> np.ndarray:
        """Return the speeds and accelerations of both joints, shape (N, 4).

        Source: Sutton and Barto 2018, "Reinforcement Learning", section 11.3 of the first edition.
        """
        angle1, angle2, speed1, speed2 = physics.T
        (m1, m2), (c1, c2), length, gravity = self.masses, self.centres, self.length, 9.8
        cosine, sine = np.cos(angle2), np.sin(angle2)
        d1 = m1 * c1**2 + m2 * (length**2 + c2**2 + 2 * length * c2 * cosine) + 2 * self.inertia
        d2 = m2 * (c2**2 + length * c2 * cosine) + self.inertia
        phi2 = m2 * c2 * gravity * np.sin(angle1 + angle2)
        phi1 = (
            -m2 * length * c2 * sine * (speed2**2 + 2 * speed2 * speed1)
            + (m1 * c1 + m2 * length) * gravity * np.sin(angle1)
            + phi2
        )
        drive = torque + d2 / d1 * phi1 - m2 * length * c2 * speed1**2 * sine - phi2
        turn2 = drive / (m2 * c2**2 + self.inertia - d2**2 / d1)
        turn1 = -(d2 * turn2 + phi1) / d1
        return np.stack((speed1, speed2, turn1, turn2), axis=1)


def cart_pole(env: Any) -> VectorTask:
    """Build the task of CartPole from the env's own constants."""
    return CartPole(
        gravity=env.gravity,
        pole_mass=env.masspole,
        total_mass=env.total_mass,
        half_length=env.length,
        moment=env.polemass_length,
        force=env.force_mag,
        dt_s=env.tau,
        is_explicit=env.kinematics_integrator == "euler",
        position_limit=env.x_threshold,
        angle_limit=env.theta_threshold_radians,
        rewards=(0.0, -1.0) if env._sutton_barto_reward else (1.0, 1.0),
    )


def mountain_car(env: Any) -> VectorTask:
    """Build the task of MountainCar-v0 from the env's own constants."""
    return DiscreteMountainCar(
        force=env.force,
        gravity=env.gravity,
        max_speed=env.max_speed,
        position_range=(env.min_position, env.max_position),
        goal_position=env.goal_position,
        goal_speed=env.goal_velocity,
    )


def acrobot(env: Any) -> VectorTask | None:
    """Build the task of Acrobot-v1 from the env's own constants; None for its variants."""
    if env.torque_noise_max > 0 or env.book_or_nips != "book":
        return None
    return Acrobot(
        masses=(env.LINK_MASS_1, env.LINK_MASS_2),
        length=env.LINK_LENGTH_1,
        centres=(env.LINK_COM_POS_1, env.LINK_COM_POS_2),
        inertia=env.LINK_MOI,
        max_speeds=(env.MAX_VEL_1, env.MAX_VEL_2),
        torques=tuple(env.AVAIL_TORQUE),
        dt_s=env.dt,
    )
