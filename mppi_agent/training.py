"""Train MPPIGPS, PPO or SAC for a given wall-clock, all by the same rules.

The clock starts before the model is built, so that setting up a planner counts as training. No
evaluation runs inside it: a learning curve comes from copies of the weights that are put aside on
the way, which takes milliseconds, and evaluated when training is over. MPPIGPS keeps the best of
its policies by evaluations of its own, on other resets, which are part of its time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from mppi_agent.baselines import baseline_for, make_baseline, policy_name
from mppi_agent.env_ids import make_env
from mppi_agent.evaluation import CurvePoint, evaluate_policy
from mppi_agent.gps import MPPIGPS
from mppi_agent.gps.callbacks import WallClockBudget
from mppi_agent.gps.presets import PRESETS as TRAINING_PRESETS
from mppi_agent.interfaces import Policy
from mppi_agent.planning import PRESETS as PLANNER_PRESETS
from mppi_agent.progress import Progress

__all__ = ["ALGOS", "NormalizedPolicy", "TrainingRun", "learning_curve", "load_policy", "train_for"]

ALGOS = ("mppigps", "ppo", "sac")
_UNLIMITED_STEPS = 10**12


@dataclass(frozen=True)
class Snapshot:
    """Hold the weights of a policy as they were at some time of its training.

    Attributes:
        seconds: Since training began.
        weights: State dict of the policy.
        obs_rms: Statistics of VecNormalize; None without it.
    """

    seconds: float
    weights: dict[str, Any]
    obs_rms: RunningMeanStd | dict[str, RunningMeanStd] | None


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Hold the outcome of a training.

    Attributes:
        model: As training left it.
        policy: Acts on raw observations.
        seconds: Wall-clock of the training, set-up included.
        env_steps: Real env steps.
        sim_steps: Env steps simulated beside them.
        settings: Where the hyper-parameters come from.
        was_interrupted: Whether Ctrl-C ended it.
        snapshots: Weights put aside on the way.
    """

    model: BaseAlgorithm
    policy: Policy
    seconds: float
    env_steps: int
    sim_steps: int
    settings: str
    was_interrupted: bool = False
    snapshots: list[Snapshot] = field(default_factory=list)


class NormalizedPolicy:
    """Act on raw observations with a model that was trained behind VecNormalize.

    Args:
        model: The trained model.
        normalizer: Its VecNormalize; its statistics are read, never updated.
    """

    def __init__(self, model: BaseAlgorithm, normalizer: VecNormalize) -> None:
        self._model, self._normalizer = model, normalizer

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Return one action per observation, and the recurrent state."""
        normalized = self._normalizer.normalize_obs(observation)
        return self._model.predict(normalized, state, episode_start, deterministic)


def train_for(
    algo: str,
    env_id: str,
    seconds: float,
    *,
    seed: int = 0,
    device: str = "auto",
    verbose: int = 0,
    num_snapshots: int = 0,
    show_progress: bool = False,
) -> TrainingRun:
    """Train one algorithm on one env for a wall-clock.

    Args:
        algo: One of `ALGOS`.
        env_id: Of a Gymnasium env.
        seconds: Wall-clock to train for, > 0; overrun by at most one update of the algorithm, and
            by the last evaluation of an MPPIGPS model.
        seed: Of the algorithm and its envs.
        device: As Stable-Baselines3 takes it.
        verbose: As Stable-Baselines3 takes it.
        num_snapshots: Copies of the weights to put aside, evenly spaced over the wall-clock.
        show_progress: Whether to draw a bar on stderr.

    Returns:
        The trained model and what it cost. Ctrl-C ends the training, not the program.

    Raises:
        ValueError: If an argument is out of range or the algorithm cannot serve the env.
    """
    if algo not in ALGOS:
        raise ValueError(f"algo must be one of {', '.join(ALGOS)}; got {algo!r}")
    if not seconds > 0:
        raise ValueError(f"the training time must be > 0, got {seconds} s")
    started = time.perf_counter()
    model = _make_model(algo, env_id, seed=seed, device=device, verbose=verbose)
    was_interrupted = False
    with Progress(f"train {algo}", seconds, "s", is_shown=show_progress) as progress:
        recorder = _Recorder(started, seconds, num_snapshots, progress)
        left = max(seconds - (time.perf_counter() - started), 1e-3)
        try:
            model.learn(_UNLIMITED_STEPS, callback=[recorder, WallClockBudget(left)])
        except KeyboardInterrupt:
            was_interrupted = True
        spent = time.perf_counter() - started
    if num_snapshots:
        recorder.snapshots.append(_take_snapshot(model, spent))
    normalizer = model.get_vec_normalize_env()
    return TrainingRun(
        model=model,
        policy=model if normalizer is None else NormalizedPolicy(model, normalizer),
        seconds=spent,
        env_steps=model.num_timesteps,
        sim_steps=model.num_sim_steps if isinstance(model, MPPIGPS) else 0,
        settings=_settings_of(algo, env_id),
        was_interrupted=was_interrupted,
        snapshots=recorder.snapshots,
    )


def learning_curve(
    run: TrainingRun, env_id: str, seeds: Sequence[int], *, show_progress: bool = False
) -> list[CurvePoint]:
    """Evaluate the weights that a training put aside.

    The weights in place before the call are in place after it.

    Args:
        run: Trained with `num_snapshots` > 0.
        env_id: Env to evaluate on.
        seeds: One reset seed per episode, the same for each point.
        show_progress: Whether to draw a bar on stderr.

    Returns:
        One point per copy of the weights, in time order.
    """
    final = _take_snapshot(run.model, run.seconds)
    points = []
    with Progress("learning curve", len(run.snapshots), "points", is_shown=show_progress) as bar:
        for snapshot in run.snapshots:
            _put_back(run.model, snapshot)
            mean_return = evaluate_policy(run.policy, env_id, seeds).mean
            points.append(CurvePoint(snapshot.seconds, mean_return))
            bar.advance()
    _put_back(run.model, final)
    return points


def load_policy(path: Path, env_id: str, *, device: str = "auto") -> MPPIGPS:
    """Load a saved policy and check that it fits an env.

    Args:
        path: Of a file that `MPPIGPS.save` wrote.
        env_id: The env that it is to act in.
        device: As Stable-Baselines3 takes it.

    Raises:
        ValueError: If the file is no saved model or its spaces are not those of the env.
        FileNotFoundError: If there is no such file.
    """
    model = MPPIGPS.load(path, device=device)
    env = BaseAlgorithm._wrap_env(make_env(env_id), verbose=0)  # as models see images
    try:
        for name in ("observation_space", "action_space"):
            wanted, found = getattr(model, name), getattr(env, name)
            if wanted != found:
                raise ValueError(
                    f"{path} was trained with the {name} {wanted}, but {env_id} has {found}; "
                    "name the env that it was trained on"
                )
    finally:
        env.close()
    return model


class _Recorder(BaseCallback):
    """Put weights aside and move the progress bar."""

    def __init__(
        self, started: float, seconds: float, num_snapshots: int, progress: Progress
    ) -> None:
        super().__init__()
        self.snapshots: list[Snapshot] = []
        self._started, self._seconds, self._progress = started, seconds, progress
        self._interval = seconds / num_snapshots if num_snapshots else float("inf")
        self._next_snapshot = self._interval

    def _on_training_start(self) -> None:
        if self._next_snapshot < float("inf"):
            self._put_aside(self._elapsed())

    def _on_step(self) -> bool:
        elapsed = self._elapsed()
        self._progress.reach(elapsed)
        if self._next_snapshot <= elapsed < self._seconds:
            self._put_aside(elapsed)
        return True

    def _put_aside(self, elapsed: float) -> None:
        self.snapshots.append(_take_snapshot(self.model, elapsed))
        # An update that took longer than an interval is not caught up with copies of one policy.
        self._next_snapshot = (elapsed // self._interval + 1) * self._interval

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started


def _make_model(algo: str, env_id: str, *, seed: int, device: str, verbose: int) -> BaseAlgorithm:
    if algo != "mppigps":
        return make_baseline(algo, env_id, seed=seed, device=device, verbose=verbose)
    env = make_env(env_id)
    policy = policy_name(env.observation_space)
    env.close()
    return MPPIGPS(policy, env_id, seed=seed, device=device, verbose=verbose)


def _settings_of(algo: str, env_id: str) -> str:
    """Say where the hyper-parameters come from; "preset": MPPIGPS or its planner knows the env."""
    if algo != "mppigps":
        return baseline_for(algo, env_id).source
    name = env_id.rpartition(":")[2]
    return "preset" if name in TRAINING_PRESETS or name in PLANNER_PRESETS else "defaults"


def _take_snapshot(model: BaseAlgorithm, seconds: float) -> Snapshot:
    weights = {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for name, value in model.policy.state_dict().items()
    }
    normalizer = model.get_vec_normalize_env()
    if normalizer is None or not normalizer.norm_obs:
        return Snapshot(seconds, weights, None)
    statistics = normalizer.obs_rms
    if isinstance(statistics, dict):
        copied: Any = {key: rms.copy() for key, rms in statistics.items()}
    else:
        copied = statistics.copy()
    return Snapshot(seconds, weights, copied)


def _put_back(model: BaseAlgorithm, snapshot: Snapshot) -> None:
    model.policy.load_state_dict(snapshot.weights)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None and snapshot.obs_rms is not None:
        normalizer.obs_rms = snapshot.obs_rms  # type: ignore[assignment]
