"""Models of an env that are wrong on purpose: heavier, weaker, slower to react, or half blind.

env, Perturbation --> a copy of the env with a model of its own --make_dynamics--> Dynamics
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mppi_agent.cloning import Cloneable, pack, unpack
from mppi_agent.dynamics import EnsembleDynamics, make_dynamics
from mppi_agent.dynamics.imperfect import ImperfectDynamics
from mppi_agent.interfaces import Dynamics

__all__ = ["Perturbation", "make_ensemble", "perturbed_dynamics"]

_FACTORS = {  # and the fields of a MuJoCo model that each scales
    "mass": ("body_mass", "body_inertia"),
    "friction": ("geom_friction", "pair_friction"),
    "damping": ("dof_damping",),
    # A servo is gain and bias together: force = gain * control + bias(position, velocity).
    "gain": ("actuator_gainprm", "actuator_biasprm"),
}


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
        if not isinstance(self.delay, int | np.integer):
            raise ValueError(f"delay must be a whole number of control steps, got {self.delay!r}")

    @property
    def model_factors(self) -> dict[str, float]:
        """The fields of a MuJoCo model that it scales, and by how much."""
        factors = {name: getattr(self, name) for name in _FACTORS}
        return {
            field: factor
            for name, factor in factors.items()
            if factor != 1.0
            for field in _FACTORS[name]
        }


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
        ValueError: If the model is to be changed, and the env has no MuJoCo model, or states that
            hold fields of it.
    """
    if perturbation.model_factors:
        held = sorted({*getattr(env.adapter, "model_fields", ())} & {*perturbation.model_factors})
        if held:
            raise ValueError(
                f"states of this env hold {', '.join(held)} of its model, so that each would "
                "undo the perturbation; perturb it in its own reset, or leave these out of "
                "model_fields"
            )
        env = unpack(pack(env))  # a private copy would share the model
        _perturb_model(env.unwrapped, perturbation)
    dynamics = make_dynamics(env, num_workers=num_workers)
    if perturbation.delay or perturbation.observation_noise:
        return ImperfectDynamics(
            dynamics, perturbation.delay, perturbation.observation_noise, seed=seed
        )
    return dynamics


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
    for field, factor in perturbation.model_factors.items():
        getattr(model, field)[:] *= factor
    mujoco.mj_setConst(model, mujoco.MjData(model))
