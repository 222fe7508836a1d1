"""Bodies on legs that move in space: Ant, Humanoid and HumanoidStandup.

Rewards and observations count the forces of contacts (`cfrc_ext`); a task built without both does
not ask for them, and simulates faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_agent.interfaces import BatchTask

__all__ = ["Ant", "Humanoid", "HumanoidStandup", "ant", "humanoid", "humanoid_standup"]

Range = tuple[float, float]

NUM_ROOT_DOFS = 6  # of the free joint, which no actuator drives


@dataclass(frozen=True, kw_only=True)
class Ant:
    """Pay for the speed of one body along x and for a sound height, less action and contact.

    Attributes:
        dt_s: Seconds per control step.
        main_body: Id of the body whose speed counts.
        forward_weight: Reward per metre per second.
        control_weight: Cost of the squared action.
        contact_weight: Cost of the squared contact forces.
        contact_range: Contact forces are clipped to it.
        healthy_reward: Paid for each step that ends healthy.
        ends_episode: Whether an unhealthy step terminates.
        z_range: Closed range of the root's height, metres.
        skipped_positions: Leading qpos entries that the observation leaves out.
        shows_contact: Whether the observation holds the contact forces.
    """

    dt_s: float
    main_body: int
    forward_weight: float
    control_weight: float
    contact_weight: float
    contact_range: Range
    healthy_reward: float
    ends_episode: bool
    z_range: Range
    skipped_positions: int
    shows_contact: bool
    before_fields: tuple[str, ...] = ("xpos",)

    @property
    def after_fields(self) -> tuple[str, ...]:
        """MjData fields that are read after the step."""
        feels_contact = self.shows_contact or self.contact_weight
        return ("qpos", "qvel", "xpos", *(("cfrc_ext",) if feels_contact else ()))

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return positions, velocities and clipped contact forces, shape (N, *)."""
        parts = [after["qpos"][:, self.skipped_positions :], after["qvel"]]
        if self.shows_contact:
            parts.append(_flat_bodies(self._contact_forces(after)))
        return np.concatenate(parts, axis=1)

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return forward speed and health less the costs of action and contact, shape (N,)."""
        start, end = (fields["xpos"][:, self.main_body, 0] for fields in (before, after))
        forward = (end - start) / self.dt_s * self.forward_weight
        cost = self.control_weight * np.square(actions).sum(axis=1)
        if self.contact_weight:
            contact = np.square(self._contact_forces(after)).sum(axis=(1, 2))
            cost = cost + self.contact_weight * contact
        return forward + self._healthy(after) * self.healthy_reward - cost

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return True where the body is unhealthy and that ends the episode, shape (N,)."""
        return ~self._healthy(after) & self.ends_episode

    def _healthy(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        low, high = self.z_range
        height = after["qpos"][:, 2]
        finite = np.isfinite(after["qpos"]).all(axis=1) & np.isfinite(after["qvel"]).all(axis=1)
        return finite & (low <= height) & (height <= high)

    def _contact_forces(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.clip(after["cfrc_ext"], *self.contact_range)


@dataclass(frozen=True, kw_only=True)
class HumanoidView:
    """Choose what the observation of a humanoid holds.

    Attributes:
        skipped_positions: Leading qpos entries that are left out.
        fields: Names, in order, of the MjData fields that follow positions and velocities.
    """

    skipped_positions: int
    fields: tuple[str, ...]

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return positions, velocities and the chosen fields, shape (N, *)."""
        parts = [after["qpos"][:, self.skipped_positions :], after["qvel"]]
        for name in self.fields:
            field = after[name]
            is_per_dof = name == "qfrc_actuator"
            parts.append(field[:, NUM_ROOT_DOFS:] if is_per_dof else _flat_bodies(field))
        return np.concatenate(parts, axis=1)

    def after_fields(self, *others: str) -> tuple[str, ...]:
        """Return the MjData fields of the observation and `others`, each once."""
        return tuple(dict.fromkeys(("qpos", "qvel", *others, *self.fields)))


@dataclass(frozen=True, kw_only=True)
class ContactCost:
    """Charge for the squared forces of contacts.

    Attributes:
        weight: Cost of the squared forces.
        cost_range: The cost is clipped to it.
    """

    weight: float
    cost_range: Range

    @property
    def fields(self) -> tuple[str, ...]:
        """MjData fields that the cost is read from."""
        return ("cfrc_ext",) if self.weight else ()

    def of(self, after: Mapping[str, np.ndarray]) -> np.ndarray | float:
        """Return the cost, shape (N,), or of all alike."""
        forces = np.square(after["cfrc_ext"]).sum(axis=(1, 2)) if self.weight else 0.0
        return np.clip(self.weight * forces, *self.cost_range)


@dataclass(frozen=True, kw_only=True)
class Humanoid:
    """Pay for the speed of the centre of mass along x and for a sound height, less the costs.

    Attributes:
        dt_s: Seconds per control step.
        body_mass: Kilograms, shape (nbody,).
        forward_weight: Reward per metre per second.
        control_weight: Cost of the squared action.
        contact: Cost of contacts.
        healthy_reward: Paid for each step that ends healthy.
        ends_episode: Whether an unhealthy step terminates.
        z_range: Open range of the root's height, metres.
        view: What is observed.
    """

    dt_s: float
    body_mass: np.ndarray
    forward_weight: float
    control_weight: float
    contact: ContactCost
    healthy_reward: float
    ends_episode: bool
    z_range: Range
    view: HumanoidView
    before_fields: tuple[str, ...] = ("xipos",)

    @property
    def after_fields(self) -> tuple[str, ...]:
        """MjData fields that are read after the step."""
        return self.view.after_fields("xipos", *self.contact.fields)

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return positions, velocities and the chosen fields, shape (N, *)."""
        return self.view.observations(after)

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return forward speed and health less the costs of action and contact, shape (N,)."""
        speed = (self._centre_x(after) - self._centre_x(before)) / self.dt_s
        healthy = self._healthy(after) * self.healthy_reward
        control = self.control_weight * np.square(actions, dtype=np.float64).sum(axis=1)
        return self.forward_weight * speed + healthy - (control + self.contact.of(after))

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return True where the body is unhealthy and that ends the episode, shape (N,)."""
        return ~self._healthy(after) & self.ends_episode

    def _healthy(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        low, high = self.z_range
        height = after["qpos"][:, 2]
        return (low < height) & (height < high)

    def _centre_x(self, fields: Mapping[str, np.ndarray]) -> np.ndarray:
        moments = fields["xipos"][:, :, 0] * self.body_mass
        return moments.sum(axis=1) / self.body_mass.sum()


@dataclass(frozen=True, kw_only=True)
class HumanoidStandup:
    """Pay for the height of the root, less the costs of action and contact.

    Gymnasium takes a weight for the height and does not use it; neither does this.

    Attributes:
        timestep_s: Seconds per physics step of the true model; the height is divided by it.
        control_weight: Cost of the squared action.
        contact: Cost of contacts.
        view: What is observed.
    """

    timestep_s: float
    control_weight: float
    contact: ContactCost
    view: HumanoidView
    before_fields: tuple[str, ...] = ()

    @property
    def after_fields(self) -> tuple[str, ...]:
        """MjData fields that are read after the step."""
        return self.view.after_fields(*self.contact.fields)

    def observations(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return positions, velocities and the chosen fields, shape (N, *)."""
        return self.view.observations(after)

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return height less the costs of action and contact, plus 1, shape (N,)."""
        height = after["qpos"][:, 2] / self.timestep_s
        control = self.control_weight * np.square(actions, dtype=np.float64).sum(axis=1)
        return height - control - self.contact.of(after) + 1

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return False: the episode ends by its time limit only, shape (N,)."""
        return np.zeros(len(after["qpos"]), dtype=bool)


def ant(env: Any) -> BatchTask:
    """Build the task of Ant-v5 from the env's own weights."""
    return Ant(
        dt_s=env.dt,
        main_body=env.model.body(env._main_body).id,
        forward_weight=env._forward_reward_weight,
        control_weight=env._ctrl_cost_weight,
        contact_weight=env._contact_cost_weight,
        contact_range=env._contact_force_range,
        healthy_reward=env._healthy_reward,
        ends_episode=env._terminate_when_unhealthy,
        z_range=env._healthy_z_range,
        skipped_positions=2 * env._exclude_current_positions_from_observation,
        shows_contact=env._include_cfrc_ext_in_observation,
    )


def humanoid(env: Any) -> BatchTask:
    """Build the task of Humanoid-v5 from the env's own weights."""
    return Humanoid(
        dt_s=env.dt,
        body_mass=env.model.body_mass.copy(),
        forward_weight=env._forward_reward_weight,
        control_weight=env._ctrl_cost_weight,
        contact=ContactCost(weight=env._contact_cost_weight, cost_range=env._contact_cost_range),
        healthy_reward=env._healthy_reward,
        ends_episode=env._terminate_when_unhealthy,
        z_range=env._healthy_z_range,
        view=_humanoid_view(env),
    )


def humanoid_standup(env: Any) -> BatchTask:
    """Build the task of HumanoidStandup-v5 from the env's own weights."""
    return HumanoidStandup(
        timestep_s=env.model.opt.timestep,
        control_weight=env._ctrl_cost_weight,
        contact=ContactCost(weight=env._impact_cost_weight, cost_range=env._impact_cost_range),
        view=_humanoid_view(env),
    )


def _humanoid_view(env: Any) -> HumanoidView:
    included = {
        "cinert": env._include_cinert_in_observation,
        "cvel": env._include_cvel_in_observation,
        "qfrc_actuator": env._include_qfrc_actuator_in_observation,
        "cfrc_ext": env._include_cfrc_ext_in_observation,
    }
    return HumanoidView(
        skipped_positions=2 * env._exclude_current_positions_from_observation,
        fields=tuple(name for name, is_shown in included.items() if is_shown is True),
    )


def _flat_bodies(field: np.ndarray) -> np.ndarray:
    """Return a per-body field without the world, shape (N, *)."""
    return field[:, 1:].reshape(len(field), -1)
