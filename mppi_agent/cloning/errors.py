"""The error that says why an env cannot be cloned, and what to do about it."""

from __future__ import annotations

from typing import Any

__all__ = ["NotCloneableError"]

_CURES = (
    "Cures: (1) give the env methods get_state() -> state and set_state(state) that cover "
    "everything its next step depends on; (2) write a StateAdapter and call "
    "register_adapter(adapter); (3) pass dynamics=... with a Dynamics that can simulate the env."
)


class NotCloneableError(ValueError):
    """Say which env cannot be cloned exactly, why, and what helps."""

    @classmethod
    def for_env(cls, env: Any, reason: str) -> NotCloneableError:
        """Build the error.

        Args:
            env: The env or wrapper at fault.
            reason: What went wrong, naming the attribute or quantity.
        """
        return cls(f"{type(env).__name__} cannot be cloned exactly: {reason}\n{_CURES}")
