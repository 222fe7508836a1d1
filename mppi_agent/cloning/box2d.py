"""Adapter for Gymnasium's Box2D envs: replay, from a world without leftovers."""

from __future__ import annotations

from typing import Any

from mppi_agent.cloning.replay import ReplayAdapter

__all__ = ["Box2DAdapter"]


class Box2DAdapter(ReplayAdapter):
    """Clone LunarLander, BipedalWalker and CarRacing by replay.

    BipedalWalker keeps one world for all its episodes, and what an episode leaves there changes
    the next one a little. It gets a new world before each reset, as LunarLander makes for itself.
    """

    name = "box2d replay"

    def matches(self, env: Any) -> bool:
        """Say whether the env is one of Gymnasium's Box2D envs."""
        return _is_of(env, "gymnasium.envs.box2d.")

    def before_reset(self, env: Any) -> None:
        """Replace the world of a BipedalWalker."""
        if _is_of(env, "gymnasium.envs.box2d.bipedal_walker"):
            env._destroy()  # bodies must leave the world that they were made in
            env.world = type(env.world)()


def _is_of(env: Any, module: str) -> bool:
    return any(kind.__module__.startswith(module) for kind in type(env).__mro__)
