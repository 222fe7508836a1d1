"""Planner settings as a file: what `mppi-agent tune` writes and `--preset` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mppi_agent.planning import noise
from mppi_agent.planning.config import MPPIConfig

__all__ = ["load_preset", "preset_line", "save_preset", "settings_of"]


def settings_of(config: MPPIConfig) -> dict[str, Any]:
    """Return the settings that differ from the defaults, in JSON types.

    Raises:
        ValueError: If one of them is a function other than an interpolation of `planning.noise`.
    """
    default = MPPIConfig()
    changed = {
        field.name: value
        for field in fields(config)
        if (value := getattr(config, field.name)) != getattr(default, field.name)
    }
    return {name: _plain(name, value) for name, value in changed.items()}


def save_preset(
    config: MPPIConfig, path: Path, *, env_id: str, measured: Mapping[str, Any] | None = None
) -> None:
    """Write settings, beside what was measured with them, as JSON.

    Args:
        config: Settings; only what differs from the defaults is written.
        path: Of the file; its folder is made.
        env_id: What they are for.
        measured: Figures in JSON types.

    Raises:
        ValueError: As `settings_of`.
    """
    content = {"env": env_id, "settings": settings_of(config), "measured": dict(measured or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def load_preset(path: Path) -> MPPIConfig:
    """Read settings that `save_preset` wrote.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds something else, or settings that do not exist or fit.
    """
    try:
        settings = json.loads(path.read_text())["settings"]
        values = {name: _value(name, value) for name, value in settings.items()}
        return MPPIConfig(**values)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no preset: {error}; write one with `mppi-agent tune ENV --out {path}`"
        ) from error


def preset_line(env_id: str, config: MPPIConfig, measured: str) -> str:
    """Return the settings as they stand in `planning/presets.py`, the measurement above them."""
    values = ", ".join(f'"{name}": {value!r}' for name, value in settings_of(config).items())
    return f'# {measured}\n"{env_id.rpartition(":")[2]}": {{{values}}},'


def _plain(name: str, value: Any) -> Any:
    if callable(value):
        function = getattr(value, "__name__", "")
        if getattr(noise, function, None) is not value:
            raise ValueError(f"{name}={value!r} cannot be written to a file; use a number")
        return function
    return value.item() if hasattr(value, "item") else value


def _value(name: str, value: Any) -> Any:
    is_function = callable(getattr(MPPIConfig, name, None))
    return getattr(noise, value) if is_function else value
