"""Make the env that a user named, with close matches when the name is wrong."""

from __future__ import annotations

import difflib
from importlib import import_module

import gymnasium as gym

__all__ = ["make_env", "require_env_id"]


def require_env_id(env_id: str) -> None:
    """Check that an env id is registered.

    Args:
        env_id: What `gym.make` takes: `Name-v0`, `namespace/Name-v0` or `package:Name-v0`, where
            `package` is imported first.

    Raises:
        ValueError: If no env goes by this id; the message names close matches.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            import_module(module)
        except ImportError as error:
            raise ValueError(
                f"env id {env_id!r} wants the package {module!r}, which cannot be imported: {error}"
            ) from error
    try:
        gym.spec(name)
    except gym.error.Error:
        matches = _close_matches(name)
        hint = f"did you mean {', '.join(matches)}?" if matches else "no registered id is close"
        raise ValueError(
            f"no env is registered as {env_id!r}; {hint} "
            "(an env of another package is written package:Name-v0)"
        ) from None


def make_env(env_id: str) -> gym.Env:
    """Make an env as `gym.make` does, with errors that name the cure.

    Args:
        env_id: As for `require_env_id`.

    Raises:
        ValueError: If no env goes by this id, or a package that it needs is missing.
    """
    require_env_id(env_id)
    try:
        return gym.make(env_id)
    except gym.error.Error as error:
        raise ValueError(f"{env_id} cannot be made here: {error}") from error


def _close_matches(name: str) -> list[str]:
    """Return up to three registered ids, newest version first among equals."""
    folded = {env_id.lower(): env_id for env_id in gym.registry}
    close = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.6)
    stem = name.lower().rpartition("-v")[0] or name.lower()
    same_name = [key for key in folded if key.rpartition("-v")[0] == stem]
    same_name.sort(key=lambda key: int(key.rpartition("-v")[2]), reverse=True)
    return [folded[key] for key in dict.fromkeys([*same_name, *close])][:3]
