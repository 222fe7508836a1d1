"""Adapter for gymnasium-robotics: Fetch, Shadow hand, Adroit hand, mazes, kitchen."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from mppi_agent.cloning.mujoco import DERIVED_FIELDS, MujocoAdapter

__all__ = ["RoboticsAdapter"]

# What Adroit, the mazes and Fetch's rendering write into their models during an episode.
_MODEL_FIELDS = ("body_pos", "body_quat", "site_pos")


class RoboticsAdapter(MujocoAdapter):
    """Clone the envs of gymnasium-robotics and their subclasses.

    Goals are attributes, mocap bodies part of the MuJoCo state. Each copy has a model of its own.
    Mazes and the kitchen hold a second env, with a random generator of its own.
    """

    name = "robotics"
    exclude = MujocoAdapter.exclude | {"_model_names", "maze", "tmp_xml_file_path"}

    def __init__(
        self,
        fields: tuple[str, ...] = DERIVED_FIELDS,
        model_fields: tuple[str, ...] = _MODEL_FIELDS,
    ) -> None:
        """Choose what is kept beside the integration state; see `MujocoAdapter`."""
        super().__init__(fields, model_fields)

    def matches(self, env: Any) -> bool:
        """Say whether the env is of gymnasium-robotics and of the MuJoCo bindings in use now."""
        is_family = any(k.__module__.startswith("gymnasium_robotics.") for k in type(env).__mro__)
        return is_family and super().matches(env)

    def inner_parts(self, env: Any) -> dict[str, Any]:
        """Name the env inside a maze or a kitchen."""
        return {name: part for name, part in env.__dict__.items() if isinstance(part, gym.Env)}
