"""Adapter for Gymnasium's toy text envs: a few numbers, not the whole transition table."""

from __future__ import annotations

from typing import Any

from mppi_agent.cloning.base import AttributeAdapter

__all__ = ["ToyTextAdapter"]

_ENVS = frozenset({"BlackjackEnv", "CliffWalkingEnv", "FrozenLakeEnv", "TaxiEnv"})


class ToyTextAdapter(AttributeAdapter):
    """Clone Blackjack, CliffWalking, FrozenLake and Taxi; copies share the tables.

    An edit of a table reaches the copies, too.
    """

    name = "toy_text"
    exclude = frozenset({"P", "desc", "initial_state_distrib", "locs"})

    def matches(self, env: Any) -> bool:
        """Say whether the env is one of Gymnasium's own, not a subclass with state of its own."""
        kind = type(env)
        return kind.__module__.startswith("gymnasium.envs.toy_text.") and kind.__name__ in _ENVS
