"""Classic control as array operations: Pendulum and MountainCarContinuous."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_agent.interfaces import VectorTask

__all__ = ["MountainCar", "Pendulum", "mountain_car_continuous", "pendulum"]


@dataclass(frozen=True, kw_only=True)
class Pendulum:
    """Swing a pendulum up with a torque that is too weak to lift it at once.

    Attributes:
        max_speed: Radians per second.
        max_torque: Newton metres.
        dt_s: Seconds per step.
        gravity: Metres per second squared.
        mass: Kilograms.
        length: Metres.
    """

    max_speed: float
    max_torque: float
    dt_s: float
    gravity: float
    mass: float
    length: float

    def step(
        self, physics: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Advance by one env step; see `VectorTask.step`."""
        angle, speed = physics.T
        torque = np.clip(actions[:, 0], -self.max_torque, self.max_torque)
        upright_angle = (angle + np.pi) % (2 * np.pi) - np.pi
        rewards = -(upright_angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
        pull = 3 * self.gravity / (2 * self.length) * np.sin(angle)
        push = 3.0 / (self.mass * self.length**2) * torque
        speed = np.clip(speed + (pull + push) * self.dt_s, -self.max_speed, self.max_speed)
        angle = angle + speed * self.dt_s
        observations = np.stack((np.cos(angle), np.sin(angle), speed), axis=1)
        return (
            np.stack((angle, speed), axis=1),
            observations.astype(np.float32),
            rewards,
            np.zeros(len(rewards), dtype=bool),
        )


@dataclass(frozen=True, kw_only=True)
class MountainCar:
    """Drive out of a valley with an engine that is too weak to do it in one go.

    The env keeps its state in float32 from the first step on, and so does this.

    Attributes:
        power: Acceleration at full throttle, per step squared.
        max_speed: Per step.
        position_range: Where the walls are.
        goal_position: From here on the episode ends.
        goal_speed: Needed at the goal.
    """

    power: float
    max_speed: float
    position_range: tuple[float, float]
    goal_position: float
    goal_speed: float

    def step(
        self, physics: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Advance by one env step; see `VectorTask.step`."""
        position, speed = physics.T.astype(np.float32)
        throttle = np.clip(actions[:, 0], -1.0, 1.0)
        slope = (0.0025 * np.cos((3 * position).astype(np.float64))).astype(np.float32)
        speed = np.clip(speed + (throttle * self.power - slope), -self.max_speed, self.max_speed)
        low, high = self.position_range
        position = np.clip(position + speed, low, high)
        speed = np.where((position == np.float32(low)) & (speed < 0), 0, speed)
        terminated = (position >= self.goal_position) & (speed >= self.goal_speed)
        rewards = 100.0 * terminated - 0.1 * np.square(actions[:, 0], dtype=np.float64)
        observations = np.stack((position, speed), axis=1).astype(np.float32)
        return observations.astype(np.float64), observations, rewards, terminated


def pendulum(env: Any) -> VectorTask:
    """Build the task of Pendulum-v1 from the env's own constants."""
    return Pendulum(
        max_speed=env.max_speed,
        max_torque=env.max_torque,
        dt_s=env.dt,
        gravity=env.g,
        mass=env.m,
        length=env.l,
    )


def mountain_car_continuous(env: Any) -> VectorTask:
    """Build the task of MountainCarContinuous-v0 from the env's own constants."""
    return MountainCar(
        power=env.power,
        max_speed=env.max_speed,
        position_range=(env.min_position, env.max_position),
        goal_position=env.goal_position,
        goal_speed=env.goal_velocity,
    )
