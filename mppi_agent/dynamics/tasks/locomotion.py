"""Planar locomotion tasks: reward for forward speed, less control cost, plus being healthy.

Serves HalfCheetah, Swimmer, Hopper and Walker2d. Everything is read from qpos and qvel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_agent.interfaces import BatchTask

__all__ = ["Health", "Locomotion", "half_cheetah", "hopper", "swimmer", "walker2d"]

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Health:
    """Hold the open ranges that a body must stay in.

    Attributes:
        reward: Paid for each step that ends healthy.
        ends_episode: Whether an unhealthy step terminates.
        z_range: Of the torso's height, metres (qpos[1]).
        angle_range: Of the torso's pitch, radians (qpos[2]).
        state_range: Of every entry of (qpos[2:], qvel); None where the env has no such test.
    """

    reward: float
    ends_episode: bool
    z_range: Range
    angle_range: Range
    state_range: Range | None = None

    def is_healthy(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Say which of N simulations are healthy, shape (N,)."""
        healthy = _inside(qpos[:, 1], self.z_range) & _inside(qpos[:, 2], self.angle_range)
        if self.state_range is not None:
            healthy &= _inside(qpos[:, 2:], self.state_range).all(axis=1)
            healthy &= _inside(qvel, self.state_range).all(axis=1)
        return healthy


@dataclass(frozen=True, kw_only=True)
class Locomotion:
    """Pay for the speed of the root along x.

    Attributes:
        dt_s: Seconds per control step.
        forward_weight: Reward per metre per second.
        control_weight: Cost of the squared action.
        skipped_positions: Leading qpos entries that the observation leaves out.
        velocity_limit: Observed velocities are clipped to +-this; None: not clipped.
        health: None for a body that cannot fall.
    """

    dt_s: float
    forward_weight: float
    control_weight: float
    skipped_positions: int
    velocity_limit: float | None = None
    health: Health | None = None
    before_fields: tuple[str, ...] = ("qpos",)
    after_fields: tuple[str, ...] = ("qpos", "qvel")

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return positions and velocities, shape (N, nq - skipped + nv)."""
        velocity = after["qvel"]
        if self.velocity_limit is not None:
            velocity = np.clip(velocity, -self.velocity_limit, self.velocity_limit)
        return np.concatenate((after["qpos"][:, self.skipped_positions :], velocity), axis=1)

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return forward speed and health less control cost, shape (N,)."""
        speed = (after["qpos"][:, 0] - before["qpos"][:, 0]) / self.dt_s
        rewards = self.forward_weight * speed
        if self.health is not None:
            rewards = rewards + self.health.reward * self._healthy(after)
        return rewards - self.control_weight * np.square(actions).sum(axis=1)

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return True where the body is unhealthy and that ends the episode, shape (N,)."""
        if self.health is None or not self.health.ends_episode:
            return np.zeros(len(after["qpos"]), dtype=bool)
        return ~self._healthy(after)

    def _healthy(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        assert self.health is not None
        return self.health.is_healthy(after["qpos"], after["qvel"])


def half_cheetah(env: Any) -> BatchTask:
    """Build the task of HalfCheetah-v5 from the env's own weights."""
    return _runner(env, skipped_positions=1)


def swimmer(env: Any) -> BatchTask:
    """Build the task of Swimmer-v5 from the env's own weights."""
    return _runner(env, skipped_positions=2)


def hopper(env: Any) -> BatchTask:
    """Build the task of Hopper-v5 from the env's own weights."""
    health = _health(env, state_range=env._healthy_state_range)
    return _runner(env, skipped_positions=1, velocity_limit=10.0, health=health)


def walker2d(env: Any) -> BatchTask:
    """Build the task of Walker2d-v5 from the env's own weights."""
    return _runner(env, skipped_positions=1, velocity_limit=10.0, health=_health(env))


def _runner(
    env: Any,
    *,
    skipped_positions: int,
    velocity_limit: float | None = None,
    health: Health | None = None,
) -> Locomotion:
    hides_position = env._exclude_current_positions_from_observation
    return Locomotion(
        dt_s=env.dt,
        forward_weight=env._forward_reward_weight,
        control_weight=env._ctrl_cost_weight,
        skipped_positions=skipped_positions if hides_position else 0,
        velocity_limit=velocity_limit,
        health=health,
    )


def _health(env: Any, state_range: Range | None = None) -> Health:
    return Health(
        reward=env._healthy_reward,
        ends_episode=env._terminate_when_unhealthy,
        z_range=env._healthy_z_range,
        angle_range=env._healthy_angle_range,
        state_range=state_range,
    )


def _inside(values: np.ndarray, bounds: Range) -> np.ndarray:
    return (bounds[0] < values) & (values < bounds[1])
