"""Changes of a model that ask how much a planner or a policy depends on it."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

__all__ = ["Perturbation"]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Say how an env differs from its nominal self.

    Attributes:
        mass: Factor on all masses and inertias, > 0.
        friction: Factor on contact friction, joint friction and joint damping, >= 0.
        actuator_gain: Factor on what every actuator makes of its control, >= 0.
        action_delay: Control steps until an action takes effect, >= 0.
        observation_noise: Std of the noise on every observed number, in that number's unit, >= 0.
    """

    mass: float = 1.0
    friction: float = 1.0
    actuator_gain: float = 1.0
    action_delay: int = 0
    observation_noise: float = 0.0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: If a field is out of its range.
        """
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise ValueError(f"{name} must be a number, got {value!r}")
            if not np.isfinite(value) or value < 0 or (name == "mass" and value == 0):
                wanted = "> 0" if name == "mass" else ">= 0"
                raise ValueError(f"{name} must be finite and {wanted}, got {value!r}")
        if self.action_delay != int(self.action_delay):
            raise ValueError(
                f"action_delay counts control steps and must be an int, got {self.action_delay!r}"
            )

    def build_model(self, path: str, frame_skip: int) -> mujoco.MjModel:
        """Compile a model file with this perturbation applied.

        Args:
            path: Of the MJCF file.
            frame_skip: Physics steps per control step, the unit of `action_delay`.
        """
        spec = mujoco.MjSpec.from_file(path)
        if self.action_delay:
            # The delay lives in the physics, and so in its state: clones and batches have it too.
            # Half a step less than the delay keeps rounding from choosing the wrong sample.
            num_steps = int(self.action_delay) * frame_skip
            for actuator in spec.actuators:
                actuator.delay = (num_steps - 0.5) * spec.option.timestep
                actuator.nsample = num_steps + 1
        model = spec.compile()
        model.body_mass *= self.mass
        model.body_inertia *= self.mass
        model.geom_friction *= self.friction
        model.dof_damping *= self.friction
        model.dof_frictionloss *= self.friction
        model.actuator_gainprm[:, 0] *= self.actuator_gain
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model
