"""Adapter of last resort: a true copy of all attributes of a pure-Python env.

`copy.deepcopy(env)` would rebuild an EzPickle env from its constructor arguments; this copies the
live attributes. Envs that keep state outside Python (Box2D, sockets) are refused.
"""

from __future__ import annotations

from typing import Any

from mppi_agent.cloning.base import AttributeAdapter

__all__ = ["DeepcopyAdapter"]


class DeepcopyAdapter(AttributeAdapter):
    """Clone any env whose attributes can be copied; refuse the others with a clear error."""

    name = "deepcopy"

    def matches(self, env: Any) -> bool:
        """Try to capture the env.

        Raises:
            NotCloneableError: If an attribute cannot be copied.
        """
        self.capture(env)
        return True
