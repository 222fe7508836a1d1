"""Common ground of the envs: a MuJoCo model and a task that is written once.

A `Task` computes observation, reward, end and success for N simulations at once. `TaskEnv.step` is
the case N = 1, and `batch_task()` hands the same object to whoever simulates many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from mppi_envs.perturbation import Perturbation

__all__ = ["Camera", "Fields", "Task", "TaskEnv", "render_metadata"]

Fields = Mapping[str, np.ndarray]
"""MjData fields by name, each with leading axis N."""

_ASSETS = Path(__file__).parent / "assets"
_RENDER_MODES = ["human", "rgb_array", "depth_array"]


class Camera(NamedTuple):
    """Say from where pictures are drawn, in MuJoCo's terms.

    Attributes:
        distance: From the point looked at, metres.
        elevation: Degrees; negative looks down.
        lookat: Point looked at, metres.
        azimuth: Degrees; 90 has x to the right and y away from the viewer.
    """

    distance: float
    elevation: float
    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    azimuth: float = 90.0


class Task(ABC):
    """Compute what an env returns, for N simulations at once.

    Attributes:
        before_fields: MjData fields that `rewards` reads as they were before the step. Only
            fields that belong to the simulator's state are of use.
        after_fields: MjData fields that are read after the step.
    """

    before_fields: tuple[str, ...] = ()
    after_fields: tuple[str, ...] = ("qpos", "qvel")

    @abstractmethod
    def observations(self, after: Fields) -> Any:
        """Return observations, shape (N, *obs), or a dict of such arrays."""

    @abstractmethod
    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return rewards, shape (N,), for actions of shape (N, nu) in [-1, 1]."""

    @abstractmethod
    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the task is fulfilled in this very state, shape (N,)."""

    def terminated(self, after: Fields) -> np.ndarray:
        """Return True where the episode ended; unless overridden only time ends it, shape (N,)."""
        return np.zeros(len(after["qpos"]), dtype=bool)


class TaskEnv(MujocoEnv, ABC):
    """Run one `Task` on one MuJoCo model.

    `info["is_success"]` says after each step whether the task is fulfilled now; the one of an
    episode's last step, which Stable-Baselines3 logs, counts for the episode.

    Args:
        mass: Factor on all masses and inertias.
        friction: Factor on contact friction, joint friction and joint damping.
        actuator_gain: Factor on the strength of all motors.
        action_delay: Control steps until an action takes effect.
        observation_noise: Std of the noise on every observed number, drawn from the env's own
            random generator.
        render_mode: "human", "rgb_array", "depth_array" or None.
        width: Of the picture, pixels.
        height: Of the picture, pixels.

    Raises:
        ValueError: If an argument is out of range.
        FileNotFoundError: If the model file is missing.

    Attributes:
        asset: Name of the model file, set by each env.
        substeps: Physics steps per control step, set by each env.
        camera: Point of view of pictures, set by each env.
    """

    asset: ClassVar[str]
    substeps: ClassVar[int]
    camera: ClassVar[Camera]

    def __init__(
        self,
        *,
        mass: float = 1.0,
        friction: float = 1.0,
        actuator_gain: float = 1.0,
        action_delay: int = 0,
        observation_noise: float = 0.0,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode must be one of {self.metadata['render_modes']} or None, "
                f"got {render_mode!r}"
            )
        self.perturbation = Perturbation(
            mass=mass,
            friction=friction,
            actuator_gain=actuator_gain,
            action_delay=action_delay,
            observation_noise=observation_noise,
        )
        super().__init__(
            str(_asset_path(self.asset)),
            self.substeps,
            observation_space=None,
            render_mode=render_mode,
            width=width,
            height=height,
            default_camera_config=self.camera._asdict(),
        )
        self._task = self._make_task()
        mujoco.mj_forward(self.model, self.data)
        self.observation_space = _space_of(self._task.observations(self._fields_after()))

    @abstractmethod
    def _make_task(self) -> Task:
        """Build the task; the model is there already."""

    @abstractmethod
    def _place(self, rng: np.random.Generator) -> None:
        """Write the start of an episode into `data`, which holds the model's own pose."""

    def batch_task(self) -> Task | None:
        """Return the task for N simulations at once.

        Returns:
            What `step` itself uses; None with observation noise, which is drawn one episode at a
            time, so that only `step` is right then.
        """
        return None if self.perturbation.observation_noise else self._task

    def reset_model(self) -> Any:
        """Place the bodies and return the first observation."""
        self._place(self.np_random)
        mujoco.mj_forward(self.model, self.data)
        return self._observe(self._fields_after())

    def step(  # type: ignore[override]  # MujocoEnv names narrower types
        self, action: np.ndarray
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance by one control step.

        Args:
            action: Shape (nu,), in [-1, 1].
        """
        action = np.asarray(action, dtype=np.float32)
        before = self._fields(self._task.before_fields)
        self.do_simulation(action, self.frame_skip)
        after = self._fields_after()
        if self.render_mode == "human":
            self.render()
        return (
            self._observe(after),
            float(self._task.rewards(before, after, action[None])[0]),
            bool(self._task.terminated(after)[0]),
            False,
            {"is_success": bool(self._task.successes(after)[0])},
        )

    def _observe(self, after: Fields) -> Any:
        observation = _first(self._task.observations(after))
        noise_std = self.perturbation.observation_noise
        if not noise_std:
            return observation
        if isinstance(observation, dict):
            return {name: self._noisy(part, noise_std) for name, part in observation.items()}
        return self._noisy(observation, noise_std)

    def _noisy(self, values: np.ndarray, noise_std: float) -> np.ndarray:
        return values + noise_std * self.np_random.standard_normal(values.shape)

    def _fields_after(self) -> Fields:
        return self._fields(self._task.after_fields)

    def _fields(self, names: tuple[str, ...]) -> Fields:
        return {name: np.array(getattr(self.data, name))[None] for name in names}

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = self.perturbation.build_model(self.fullpath, self.substeps)
        model.vis.global_.offwidth = self.width
        model.vis.global_.offheight = self.height
        return model, mujoco.MjData(model)


def render_metadata(fps: int) -> dict[str, Any]:
    """Return what Gymnasium wants to know about rendering, at `fps` control steps per second."""
    return {"render_modes": list(_RENDER_MODES), "render_fps": fps}


def _asset_path(name: str) -> Path:
    path = _ASSETS / name
    if not path.is_file():
        present = ", ".join(sorted(file.name for file in _ASSETS.glob("*.xml"))) or "none"
        raise FileNotFoundError(
            f"model file {name!r} is missing in {_ASSETS} (there: {present}); "
            "install mppi-agent again, its XML files are part of the package"
        )
    return path


def _space_of(observations: Any) -> gym.Space:
    """Return the unbounded space of observations with leading axis N."""
    if isinstance(observations, dict):
        return gym.spaces.Dict({name: _space_of(part) for name, part in observations.items()})
    return gym.spaces.Box(-np.inf, np.inf, observations.shape[1:], observations.dtype)


def _first(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {name: part[0] for name, part in observations.items()}
    return observations[0]
