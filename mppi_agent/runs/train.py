"""Begin a run in a new folder, or go on with one as if it had not stopped.

RunConfig --> model, folder --> session
folder --> RunConfig, checkpoint --> model --> session
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from mppi_agent.cloning import Cloneable
from mppi_agent.env_ids import make_env
from mppi_agent.gps import MPPIGPS
from mppi_agent.runs.config import RunConfig
from mppi_agent.runs.folder import RunFolder
from mppi_agent.runs.session import Console, RunResult, Session

__all__ = ["resume", "train"]

_MAY_CHANGE = ("minutes", "eval_freq", "checkpoint_freq", "tensorboard", "learn")


def train(
    config: RunConfig,
    root: Path = Path("runs"),
    *,
    console: Console | None = None,
    out: Path | None = None,
) -> RunResult:
    """Train in a new run folder.

    Args:
        config: What to do.
        root: Folder of all runs.
        console: What is shown meanwhile; None: nothing.
        out: Gets the trained model, beside the run folder.

    Returns:
        What came of it; Ctrl-C ends the training, not the program.

    Raises:
        ValueError: If a setting is out of range, or the env cannot be trained in; no folder is made
            then.
        OSError: If the disk is full; the last checkpoint is whole then.
    """
    started, console = time.perf_counter(), console or Console()
    _check_tensorboard(config)
    model = MPPIGPS(env=_training_env(config), **config.model_arguments())
    folder = RunFolder.create(root, config.env)
    folder.write_config(config)
    console.report(f"run {folder.path}")
    session = Session(folder, config, model, started, console, out)
    return session.run()


def resume(
    path: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
    console: Console | None = None,
    out: Path | None = None,
) -> RunResult:
    """Go on with a run as if it had not stopped.

    The same weights come out, bit for bit, as from a run without the break, unless a wall-clock
    limits it.

    Args:
        path: Folder of the run, or one of its checkpoints.
        changes: New values of settings that may change, as for `RunConfig.read`: how long, how
            often to evaluate and to save.
        device: As Stable-Baselines3 takes it; None: as the run was asked to.
        console: As for `train`.
        out: As for `train`.

    Returns:
        What came of it.

    Raises:
        ValueError: If there is no checkpoint, it does not fit, the run is complete, or a setting
            must not change.
        OSError: If the disk is full; the last checkpoint is whole then.
    """
    started, console = time.perf_counter(), console or Console()
    folder = RunFolder.find(path)
    checkpoint = folder.checkpoint if path.is_dir() else path
    if not checkpoint.exists():
        raise ValueError(
            f"{folder.path} has no checkpoint, it ended before the first one: train anew with "
            f"--config {folder.config_file}"
        )
    old = folder.read_config()
    config = old.changed(changes or {})
    _check_changes(old, config)
    _check_tensorboard(config)
    device = device or config.model.get("device", "auto")
    model = MPPIGPS.load(checkpoint, env=_training_env(config), device=device)
    if model.num_timesteps and model.resume_point is None:
        raise ValueError(
            f"{checkpoint} is a trained model, not a checkpoint that training could go on from; "
            f"name the run, {folder.path}"
        )
    session = Session(folder, config, model, started, console, out)
    session.check_is_incomplete()
    folder.write_config(config)
    console.report(f"run {folder.path}, from step {model.num_timesteps:,}")
    return session.run()


def _training_env(config: RunConfig) -> VecEnv:
    make_env(config.env).close()  # with an error that names close matches
    return make_vec_env(config.env, config.n_envs, seed=config.seed, wrapper_class=Cloneable)


def _check_changes(old: RunConfig, new: RunConfig) -> None:
    """Refuse changes that training cannot go on with."""
    for one in fields(RunConfig):
        before, now = getattr(old, one.name), getattr(new, one.name)
        if one.name not in _MAY_CHANGE and before != now:
            raise ValueError(
                f"{one.name} must stay {before!r} in a run that goes on, got {now!r}; "
                "train anew without --resume"
            )


def _check_tensorboard(config: RunConfig) -> None:
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard: true needs the package tensorboard; install the extra: "
            "pip install 'mppi-agent[tensorboard]'"
        )
