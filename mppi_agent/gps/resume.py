"""Exact resume: what a checkpoint holds beside the model, so that training goes on bit for bit.

    training env, engine, labels, random generators --capture--> ResumePoint --restore--> the same

A `ResumePoint` is taken between two steps of the training env and pickled at once. It fits one
env only; `check` refuses all others before anything is changed.
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import sub_env
from mppi_agent.dynamics.observations import agree
from mppi_agent.gps.dataset import LabelDataset
from mppi_agent.gps.engine import Engine
from mppi_agent.interfaces import EnvState, Observation

__all__ = ["ResumePoint", "write_file"]

_PROBE_SHARES = (0.25, 0.75, 0.5)  # of the action range, one step each
_NOT_STATE = frozenset({"venv", "class_attributes", "results_writer"})
_CURE = (
    "resume with what it was made with, or go on from its weights alone: "
    "MPPIGPS.load(path, env=env, custom_objects={'resume_point': None})"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumePoint:
    """Hold what training depends on beside the model's own attributes.

    Attributes:
        origin: What it was made with, by name.
        states: Of the training envs.
        probe: What a copy of the first one showed and paid for a few actions from there.
        episode_rewards: Of the unfinished episodes, for the log; None without `Monitor`.
        wrappers: Attributes of the VecEnv wrappers, outermost first.
        engine: State of everything that simulates.
        labels: The planner's.
        generators: States of the global random generators.
        attributes: Of the model; those that a load drops or a plain save leaves out.
    """

    origin: dict[str, Any]
    states: list[EnvState]
    probe: list[tuple[Observation, float]]
    episode_rewards: list[list[float]] | None
    wrappers: list[dict[str, Any]]
    engine: dict[str, Any]
    labels: LabelDataset
    generators: dict[str, Any]
    attributes: dict[str, Any]

    @classmethod
    def capture(
        cls, env: VecEnv, engine: Engine, labels: LabelDataset, attributes: dict[str, Any]
    ) -> ResumePoint:
        """Return the present state, parts of which still change: pickle it at once."""
        states = env.env_method("snapshot")
        return cls(
            origin=_origin(env),
            states=states,
            probe=_probe(sub_env(env), states[0]),
            episode_rewards=env.get_attr("rewards") if _is_monitored(env) else None,
            wrappers=[_state_of(wrapper) for wrapper in _wrappers(env)],
            engine=engine.state_dict(),
            labels=labels,
            generators=_generators(),
            attributes=attributes,
        )

    def check(self, env: VecEnv) -> None:
        """Refuse an env that training cannot go on in.

        Raises:
            ValueError: If it has another name, other wrappers, another MuJoCo, or behaves in
                another way.
        """
        for what, found in _origin(env).items():
            if self.origin[what] != found:
                made_with = f"{what} {self.origin[what]}, not {found}"
                raise ValueError(f"this checkpoint was made with {made_with}; {_CURE}")
        try:
            repeated = _probe(sub_env(env), self.states[0])
        except ValueError as error:
            raise ValueError(f"the env does not take the checkpoint's state; {_CURE}") from error
        if not agree(self.probe, repeated):
            raise ValueError(
                "the env has the checkpoint's name, but does something else for the same actions: "
                f"its parameters, model or wrappers were changed; {_CURE}"
            )

    def restore(self, env: VecEnv, make_engine: Callable[[], Engine]) -> Engine:
        """Put the training env and the global random generators back, and make the engine anew."""
        env.reset()  # a Monitor that saw no reset lets no step pass
        env.env_method("restore", self.engine["made_from"], indices=[0])
        engine = make_engine()
        engine.load_state_dict(self.engine)
        for i, state in enumerate(self.states):
            env.env_method("restore", state, indices=[i])
            if self.episode_rewards is not None and _is_monitored(env):
                rewards = self.episode_rewards[i]
                env.env_method("set_wrapper_attr", "rewards", rewards, indices=[i])
        for wrapper, attributes in zip(_wrappers(env), self.wrappers, strict=True):
            vars(wrapper).update(attributes)
        _set_generators(self.generators)
        return engine


def write_file(
    path: str | Path | io.BufferedIOBase, suffix: str, write: Callable[[io.BufferedIOBase], None]
) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of one.

    Args:
        path: Of the file; its folder is made. An open file is written to as it is.
        suffix: Added to a path that has none.
        write: Writes to the open file that it is called with.
    """
    if not isinstance(path, str | Path):
        write(path)
        return
    path = Path(path)
    if not path.suffix:
        path = path.with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # half a file is of no use, and a full disk wants room
        raise


def _origin(env: VecEnv) -> dict[str, Any]:
    cloneable = sub_env(env)
    base = cloneable.unwrapped
    name = type(base).__qualname__ if base.spec is None else base.spec.id
    uses_mujoco = cloneable.adapter.name == "mujoco"
    return {
        "env": name,
        "n_envs": env.num_envs,
        "VecEnv wrappers": [type(wrapper).__name__ for wrapper in _wrappers(env)],
        "MuJoCo": version("mujoco") if uses_mujoco else None,
    }


def _probe(cloneable: Cloneable, state: EnvState) -> list[tuple[Observation, float]]:
    """Return what a private copy shows and pays for a few fixed actions from `state`."""
    copy = cloneable.private_copy()
    copy.restore(state)
    outcomes = []
    for share in _PROBE_SHARES:
        _, reward, terminated, truncated, _ = copy.step(_action_at(copy.action_space, share))
        outcomes.append((copy.last_observation, float(reward)))
        if terminated or truncated:
            break
    copy.close()
    return outcomes


def _action_at(space: Any, share: float) -> np.ndarray:
    """Return the action at a share of the way through its space, in [0, 1]."""
    if isinstance(space, gym.spaces.Box):
        return (space.low + share * (space.high - space.low)).astype(space.dtype)
    counts = space.n if isinstance(space, gym.spaces.Discrete) else space.nvec
    return (space.start + np.rint(share * (counts - 1))).astype(space.dtype)


def _wrappers(env: VecEnv) -> Iterator[VecEnvWrapper]:
    while isinstance(env, VecEnvWrapper):
        yield env
        env = env.venv


def _state_of(wrapper: VecEnvWrapper) -> dict[str, Any]:
    return {name: value for name, value in vars(wrapper).items() if name not in _NOT_STATE}


def _is_monitored(env: VecEnv) -> bool:
    return all(env.env_is_wrapped(Monitor))


def _generators() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - what SB3 seeds is put back
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if th.cuda.is_available() else [],
    }


def _set_generators(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    th.set_rng_state(states["torch"])
    if len(states["cuda"]) == th.cuda.device_count():
        th.cuda.set_rng_state_all(states["cuda"])
