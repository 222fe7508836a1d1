"""What a run is asked to do: read from YAML, overridden by the command line, checked, written.

Sections `model`, `planner` and `learn` hold arguments of `MPPIGPS`, `MPPIConfig` and
`MPPIGPS.learn`. An object that YAML cannot hold is written `{object: package.name}`, or
`{call: package.name, argument: value}` where it is made by a call.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from mppi_agent.baselines import policy_name
from mppi_agent.env_ids import make_env
from mppi_agent.gps import MPPIGPS
from mppi_agent.planning import MPPIConfig

__all__ = ["DEFAULT_MINUTES", "RunConfig", "parse_setting"]

DEFAULT_MINUTES = 5.0
_UNLIMITED_STEPS = 10**12
_SECTIONS = ("model", "planner", "learn")
# Arguments that a run sets itself, and where they are given instead.
_ELSEWHERE = {
    "steps": "the key total_timesteps of the section learn",
    "device": "the key device of the section model",
    "model.env": "the key env",
    "model.seed": "the key seed",
    "model.planner": "the section planner",
    "model.tensorboard_log": "the key tensorboard",
    "model.dynamics": "MPPIGPS(dynamics=...) in Python",
    "model._init_setup_model": "nothing",
    "learn.callback": "MPPIGPS.learn(callback=...) in Python",
    "learn.tb_log_name": "the name of the run folder",
    "learn.reset_num_timesteps": "--resume",
    "learn.progress_bar": "nothing, it is shown by itself",
}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Hold everything that a run depends on, in types that YAML knows.

    Attributes:
        env: Id of the training env.
        seed: Of everything random, >= 0.
        n_envs: Training envs side by side, >= 1.
        minutes: Wall-clock of the training, set-up included, > 0; None: no limit. Beside
            `learn.total_timesteps` the first of the two ends it; without either it is 5.
        eval_freq: Real env steps from one evaluation to the next, >= 0; 0: none.
        eval_episodes: Episodes of each, >= 1.
        checkpoint_freq: Real env steps from one checkpoint to the next, >= 1.
        tensorboard: Whether the log is written for TensorBoard, too.
        model: Arguments of `MPPIGPS`.
        planner: Fields of `MPPIConfig` that differ from the env's preset.
        learn: Arguments of `MPPIGPS.learn`.
    """

    env: str
    seed: int = 0
    n_envs: int = 1
    minutes: float | None = None
    eval_freq: int = 1000
    eval_episodes: int = 10
    checkpoint_freq: int = 1000
    tensorboard: bool = False
    model: Mapping[str, Any] = field(default_factory=dict)
    planner: Mapping[str, Any] = field(default_factory=dict)
    learn: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: Naming the field, what was wanted and what came.
        """
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an int >= {least}, got {value!r}")
        if self.minutes is not None and not (_is_number(self.minutes) and self.minutes > 0):
            raise ValueError(f"minutes: the training time must be > 0, got {self.minutes!r}")
        if not isinstance(self.tensorboard, bool):
            raise ValueError(f"tensorboard must be true or false, got {self.tensorboard!r}")
        steps = self.learn.get("total_timesteps", 1)
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"learn.total_timesteps must be an int >= 1, got {steps!r}")

    @classmethod
    def read(cls, path: Path | None, changes: Mapping[str, Any] | None = None) -> RunConfig:
        """Read a file and change it.

        Args:
            path: YAML; None begins with nothing.
            changes: Values by key, `section.key` within a section; they beat the file.

        Raises:
            ValueError: If the file is no YAML mapping, a key is unknown, or a value out of range.
            FileNotFoundError: If there is no such file.
        """
        return cls._from(_load(path) if path is not None else {}, changes or {}, path)

    def changed(self, changes: Mapping[str, Any]) -> RunConfig:
        """Return a copy with other values, given as for `read`."""
        return self._from(asdict(self), changes, None)

    @classmethod
    def _from(
        cls, values: Mapping[str, Any], changes: Mapping[str, Any], path: Path | None
    ) -> RunConfig:
        flat = {**_flatten(values, path), **changes}
        _check_keys(flat, path)
        if flat.get("env") is None:
            raise ValueError("no env: name one on the command line, or by the key env in the file")
        if flat.get("minutes") is None and "learn.total_timesteps" not in flat:
            flat["minutes"] = DEFAULT_MINUTES
        steps = flat.get("learn.total_timesteps")
        if isinstance(steps, float) and steps.is_integer():
            flat["learn.total_timesteps"] = int(steps)  # written as 1e6
        nested: dict[str, Any] = {name: {} for name in _SECTIONS}
        for key, value in flat.items():
            section, _, name = key.rpartition(".")
            (nested[section] if section else nested)[name] = value
        return cls(**nested)

    def dump(self) -> str:
        """Return YAML that `read` makes the same settings from."""
        return yaml.safe_dump(asdict(self), sort_keys=False)

    @property
    def total_timesteps(self) -> int:
        """Real env steps after which training ends, if the wall-clock does not end it before."""
        return int(self.learn.get("total_timesteps", _UNLIMITED_STEPS))

    def model_arguments(self) -> dict[str, Any]:
        """Return the arguments of `MPPIGPS` but its env, objects made."""
        arguments: dict[str, Any] = _build(self.model)
        if "policy" not in arguments:
            env = make_env(self.env)
            arguments = {"policy": policy_name(env.observation_space), **arguments}
            env.close()
        if self.planner:
            preset = MPPIConfig.for_env(self.env, role="label")
            arguments["planner"] = replace(preset, **_build(self.planner))
        return {**arguments, "seed": self.seed}

    def learn_arguments(self) -> dict[str, Any]:
        """Return the arguments of `learn` but the number of steps, objects made."""
        return {key: _build(value) for key, value in self.learn.items() if key != "total_timesteps"}


_LEAST = {"seed": 0, "n_envs": 1, "eval_freq": 0, "eval_episodes": 1, "checkpoint_freq": 1}


class _Loader(yaml.SafeLoader):
    """Reads 3e-4 as a number, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_setting(text: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`, the value written as in YAML.

    Raises:
        ValueError: If it is none of these.
    """
    key, sign, value = text.partition("=")
    try:
        if sign:
            return key.strip(), yaml.load(value, _Loader)
    except yaml.YAMLError:
        pass
    raise ValueError(f"a setting is written KEY=VALUE, for example model.n_epochs=3; got {text!r}")


def _load(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold keys and values, such as `env: Pendulum-v1`")
    return values


def _flatten(values: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """Return values by `section.key`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key not in _SECTIONS:
            flat[str(key)] = value
        elif isinstance(value, dict):
            flat.update({f"{key}.{name}": inner for name, inner in value.items()})
        elif value is not None:
            raise ValueError(f"{_in(path)}{key} must hold keys and values, got {value!r}")
    return flat


def _check_keys(flat: Mapping[str, Any], path: Path | None) -> None:
    """Refuse what nothing would read."""
    known = _known_keys()
    for key in flat:
        if key in _ELSEWHERE:
            raise ValueError(f"{_in(path)}{key} is no setting of a run; use {_ELSEWHERE[key]}")
        if key not in known:
            close = _close_keys(key, known)
            hint = f"did you mean {', '.join(close)}?" if close else "no known key is close"
            raise ValueError(f"{_in(path)}unknown key {key!r}; {hint}")


def _known_keys() -> list[str]:
    constructor, learn = inspect.signature(MPPIGPS), inspect.signature(MPPIGPS.learn)
    names = [
        *(one.name for one in fields(RunConfig) if one.name not in _SECTIONS),
        *(f"model.{name}" for name in constructor.parameters),
        *(f"planner.{one.name}" for one in fields(MPPIConfig)),
        *(f"learn.{name}" for name in learn.parameters if name != "self"),
    ]
    return [name for name in names if name not in _ELSEWHERE]


def _close_keys(key: str, known: list[str]) -> list[str]:
    """Return up to three keys, those of other sections included."""
    name = key.rpartition(".")[2]
    by_name: dict[str, list[str]] = {}
    for one in known:
        by_name.setdefault(one.rpartition(".")[2], []).append(one)
    close = difflib.get_close_matches(name, by_name, n=3, cutoff=0.6)
    return [one for match in close for one in by_name[match]][:3]


def _build(value: Any) -> Any:
    """Return a value with its objects made."""
    if isinstance(value, list):
        return [_build(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    built = {key: _build(one) for key, one in value.items() if key not in ("object", "call")}
    if "object" in value and not built:
        return _locate(value["object"])
    if "call" in value:
        return _locate(value["call"])(**built)
    return built


def _locate(name: Any) -> Any:
    try:
        return pkgutil.resolve_name(str(name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{name!r} cannot be imported ({error}); write an object as package.module.name, for "
            "example torch.nn.ReLU"
        ) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in(path: Path | None) -> str:
    return f"{path}: " if path is not None else ""
