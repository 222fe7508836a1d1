"""The error that says why an env cannot be cloned, and what to do about it."""

from __future__ import annotations

from typing import Any

__all__ = ["CURES", "NotCloneableError"]

CURES = (
    "give the env methods get_state() -> state and set_state(state) that cover everything its next "
    "step depends on",
    "or write a StateAdapter and call register_adapter(adapter)",
    "or Cloneable(env, ReplayAdapter()), slow, if reset seed and actions decide all that it does",
    "or pass dynamics=... with a Dynamics that can simulate the env",
)


class NotCloneableError(ValueError):
    """Say which env cannot be cloned exactly, why, and what helps.

    Attributes:
        reason: What went wrong, without the name of the env and the cures.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = message if reason is None else reason

    @classmethod
    def for_env(cls, env: Any, reason: str) -> NotCloneableError:
        """Build the error.

        Args:
            env: The env or wrapper at fault.
            reason: What went wrong, naming the attribute or quantity.
        """
        said = f"{type(env).__name__} cannot be cloned exactly: {reason}"
        return cls(said if CURES[0] in said else "\n  ".join([said, *CURES]), reason)
