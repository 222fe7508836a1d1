"""Models of an env that are wrong on purpose: heavier, weaker, slower to react, or half blind.

env, Perturbation --> a copy of the env with a model of its own --make_dynamics--> Dynamics
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import Cloneable, pack, unpack
from mppi_agent.dynamics import EnsembleDynamics, make_dynamics
from mppi_agent.dynamics.rollout import validate_actions, validate_rollout
from mppi_agent.interfaces import (
    Dynamics,
    EnvState,
    RolloutBatch,
    Simulations,
    StepBatch,
)

__all__ = ["ImperfectDynamics", "Perturbation", "make_ensemble", "perturbed_dynamics"]

_FACTORS = ("mass", "friction", "damping", "gain")


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Say how a model differs from the env; all defaults: not at all.

    Attributes:
        mass: Factor of the mass and inertia of every body of a MuJoCo model, > 0.
        friction: Factor of every contact friction of a MuJoCo model, >= 0.
        damping: Factor of every joint damping of a MuJoCo model, >= 0.
        gain: Factor of every actuator force of a MuJoCo model, >= 0.
        delay: Control steps by which actions arrive late, >= 0.
        observation_noise: Standard deviation of noise on what a policy sees, in the units of the
            observation, >= 0. Plans are made on states and do not meet it.

    Raises:
        ValueError: If a number is out of range.
    """

    mass: float = 1.0
    friction: float = 1.0
    damping: float = 1.0
    gain: float = 1.0
    delay: int = 0
    observation_noise: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0) or (field.name == "mass" and value == 0):
                bound = "> 0" if field.name == "mass" else ">= 0"
                raise ValueError(f"{field.name} must be {bound} and finite, got {value}")
        if self.delay != int(self.delay):
            raise ValueError(f"delay must be a whole number of control steps, got {self.delay}")

    @property
    def changes_model(self) -> bool:
        """Whether it needs a MuJoCo model of its own."""
        return any(getattr(self, name) != 1.0 for name in _FACTORS)


def make_ensemble(
    env: Cloneable,
    perturbations: Sequence[Perturbation],
    *,
    tail: float = 1.0,
    discount: float = 1.0,
    num_workers: int | None = None,
) -> EnsembleDynamics:
    """Return one `Dynamics` of several perturbed models.

    Args:
        env: The env; only read.
        perturbations: Of each member; `Perturbation()` is the env itself.
        tail: See `EnsembleDynamics`.
        discount: See `EnsembleDynamics`.
        num_workers: Threads or processes of each member; None: one per core.

    Raises:
        ValueError: If the env has no MuJoCo model that could be perturbed as asked.
    """
    members: list[Dynamics] = []
    try:
        for index, perturbation in enumerate(perturbations):
            members.append(
                perturbed_dynamics(env, perturbation, num_workers=num_workers, seed=index)
            )
        return EnsembleDynamics(members, tail=tail, discount=discount)
    except BaseException:
        for member in members:
            member.close()
        raise


def perturbed_dynamics(
    env: Cloneable, perturbation: Perturbation, *, num_workers: int | None = None, seed: int = 0
) -> Dynamics:
    """Return a backend that simulates a perturbed model of an env.

    It takes and returns states of the env itself: a plan can be tried on both.

    Args:
        env: The env; only read.
        perturbation: How the model differs.
        num_workers: Threads or processes; None: one per core.
        seed: Of the noise on observations.

    Raises:
        ValueError: If the model is to be changed and the env has no MuJoCo model.
    """
    if perturbation.changes_model:
        env = unpack(pack(env))  # a private copy would share the model
        _perturb_model(env.unwrapped, perturbation)
    dynamics = make_dynamics(env, num_workers=num_workers)
    if perturbation.delay or perturbation.observation_noise:
        return ImperfectDynamics(
            dynamics, perturbation.delay, perturbation.observation_noise, seed=seed
        )
    return dynamics


class ImperfectDynamics:
    """Put an actuator that is late and a sensor that is noisy around a simulator.

    The first action after a restore acts at once and is held until the next one arrives: what was
    under way before is not part of a state.

    Args:
        dynamics: Simulates; closed with this one.
        delay: Control steps by which actions arrive late.
        observation_noise: Standard deviation; on observations of closed-loop simulations only.
        seed: Of that noise.
    """

    def __init__(
        self, dynamics: Dynamics, delay: int, observation_noise: float, *, seed: int = 0
    ) -> None:
        self._dynamics = dynamics
        self._delay = delay
        self._noise_std = observation_noise
        self._seeds = np.random.SeedSequence(seed)
        self.observation_space = dynamics.observation_space
        self.action_space = dynamics.action_space
        self.max_episode_steps = dynamics.max_episode_steps

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution."""
        return self._dynamics.initial_states(num, rng)

    def simulations(self, num: int) -> ImperfectSimulations:
        """Return `num` simulations, each set of them with noise of its own."""
        rng = np.random.default_rng(self._seeds.spawn(1)[0])
        simulations = self._dynamics.simulations(num)
        return ImperfectSimulations(
            simulations, self.action_space, self._delay, self._noise_std, rng
        )

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out open loop with late actions; see `Dynamics.rollout`."""
        actions = validate_rollout(states, actions, self.action_space)
        acting = np.maximum(np.arange(actions.shape[2]) - self._delay, 0)
        return self._dynamics.rollout(
            states, actions[:, :, acting], keep_observations=keep_observations
        )

    def close(self) -> None:
        """Close what simulates."""
        self._dynamics.close()


class ImperfectSimulations:
    """Run N simulations whose actions arrive late and whose observations are noisy.

    Args:
        simulations: Run the env.
        action_space: Of the env.
        delay: Control steps.
        noise_std: Of the observations.
        rng: Draws the noise.
    """

    def __init__(
        self,
        simulations: Simulations,
        action_space: gym.Space,
        delay: int,
        noise_std: float,
        rng: np.random.Generator,
    ) -> None:
        self.num = simulations.num
        self._simulations = simulations
        self._action_space = action_space
        self._delay = delay
        self._noise_std = noise_std
        self._rng = rng
        self._under_way: list[list[np.ndarray]] = [[] for _ in range(self.num)]

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        self._simulations.restore(states, indices)
        for index in self._resolve(indices):
            self._under_way[index] = []

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        chosen = self._resolve(indices)
        asked = validate_actions(actions, self._action_space, 1, num=len(chosen))
        step = self._simulations.step(self._delayed(asked, chosen), indices)
        noisy = self._with_noise(step.observations)
        return StepBatch(noisy, step.rewards, step.terminated, step.diverged)

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        return self._simulations.snapshot(indices)

    def close(self) -> None:
        """Free the simulations."""
        self._simulations.close()

    def _resolve(self, indices: np.ndarray | None) -> list[int]:
        return list(range(self.num)) if indices is None else indices.tolist()

    def _delayed(self, actions: np.ndarray, indices: list[int]) -> np.ndarray:
        """Put the actions into the queues and return those that arrive now."""
        arriving = actions.copy()
        for place, index in enumerate(indices):
            queue = self._under_way[index]
            queue.extend([actions[place].copy()] * (1 if queue else self._delay + 1))
            arriving[place] = queue.pop(0)
        return arriving

    def _with_noise(self, observations: Any) -> Any:
        if isinstance(observations, dict):
            return {key: self._with_noise(part) for key, part in observations.items()}
        if not self._noise_std or observations.dtype.kind != "f":
            return observations
        noise = self._noise_std * self._rng.standard_normal(observations.shape)
        return (observations + noise).astype(observations.dtype)


def _perturb_model(env: Any, perturbation: Perturbation) -> None:
    """Scale the fields of a MuJoCo model in place, and what MuJoCo derives from them."""
    model: Any = getattr(env, "model", None)
    if type(model).__name__ != "MjModel":
        asked = [name for name in _FACTORS if getattr(perturbation, name) != 1.0]
        raise ValueError(
            f"{', '.join(asked)} can be perturbed in a MuJoCo model only, and "
            f"{type(env).__name__} has none; delay and observation_noise work with any env, or "
            "pass perturbed envs of your own to EnsembleDynamics"
        )
    import mujoco

    linear = (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE)
    if perturbation.gain != 1.0 and not np.isin(model.actuator_gaintype, linear).all():
        raise ValueError(
            f"gain={perturbation.gain} can be applied to motors and servos only; "
            f"{type(env).__name__} has muscles or actuators of its own kind"
        )
    model.body_mass[:] *= perturbation.mass
    model.body_inertia[:] *= perturbation.mass
    model.geom_friction[:] *= perturbation.friction
    model.pair_friction[:] *= perturbation.friction
    model.dof_damping[:] *= perturbation.damping
    # A servo is gain and bias together: force = gain * control + bias(position, velocity).
    model.actuator_gainprm[:] *= perturbation.gain
    model.actuator_biasprm[:] *= perturbation.gain
    mujoco.mj_setConst(model, mujoco.MjData(model))
