"""Evaluate a trained policy, alone or beside another one on the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mppi_agent.env_ids import make_env
from mppi_agent.evaluation import (
    FIRST_HELD_OUT_SEED,
    Evaluation,
    evaluate_expert,
    evaluate_policy,
    held_out_seeds,
)
from mppi_agent.expert import MPPIAgent
from mppi_agent.gps import MPPIGPS
from mppi_agent.intervals import PairedDifference, paired_difference
from mppi_agent.media import record_video
from mppi_agent.progress import Progress
from mppi_agent.runs.folder import RunFolder
from mppi_agent.training import load_policy

__all__ = ["EvaluationReport", "evaluate_model"]

_PLANNERS = ("expert", "planner")


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Hold what an evaluation found.

    Attributes:
        env: Id of the env.
        model: File of the policy.
        evaluation: Of the policy.
        other: What it is paired with; None: nothing.
        other_evaluation: Of that, on the same seeds.
        difference: Of the policy's returns over those of the other.
        video: File of the video; None: none.
    """

    env: str
    model: Path
    evaluation: Evaluation
    other: str | None = None
    other_evaluation: Evaluation | None = None
    difference: PairedDifference | None = None
    video: Path | None = None

    def __str__(self) -> str:
        """Say it in a few lines."""
        lines = [f"{self.env}: {self.evaluation}"]
        if self.other is not None:
            lines += [f"{self.other}: {self.other_evaluation}", f"difference: {self.difference}"]
        if self.video is not None:
            lines.append(f"video: {self.video}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        result = {"env": self.env, "model": str(self.model), **self.evaluation.as_dict()}
        if self.other_evaluation is not None and self.difference is not None:
            result["paired_with"] = {"name": self.other, **self.other_evaluation.as_dict()}
            result["difference"] = self.difference.as_dict()
        if self.video is not None:
            result["video"] = str(self.video)
        return result


def evaluate_model(
    path: Path,
    env_id: str | None = None,
    *,
    episodes: int = 100,
    first_seed: int = FIRST_HELD_OUT_SEED,
    paired_with: str | None = None,
    video: Path | None = None,
    device: str = "auto",
    show_progress: bool = False,
) -> EvaluationReport:
    """Run a trained policy on held-out seeds.

    Args:
        path: Of a saved model, or of a run, whose trained model is taken.
        env_id: Env to act in; None: that of the run.
        episodes: One per seed, >= 1; at least 2 for a pair.
        first_seed: Reset seed of the first episode; the others follow it.
        paired_with: Path of another model, "expert" (the planner alone) or "planner" (it plans on
            top of the policy); None: nothing.
        video: Gets a recording of the policy; None: none.
        device: As Stable-Baselines3 takes it.
        show_progress: Whether to draw bars on stderr.

    Returns:
        Returns of every episode, and the paired difference.

    Raises:
        ValueError: If the file is no model of that env, or an argument is out of range.
        FileNotFoundError: If there is no such file.
        MediaError: If the video cannot be recorded here.
    """
    model_file, env_id = _model_and_env(path, env_id)
    seeds = held_out_seeds(episodes, first=first_seed)
    if paired_with is not None and episodes < 2:
        raise ValueError(f"a paired comparison needs at least 2 episodes, got {episodes}")
    policy = load_policy(model_file, env_id, device=device)
    opponent = _opponent(paired_with, policy, env_id, first_seed, device)
    if video is not None:
        video.parent.mkdir(parents=True, exist_ok=True)
        record_video(policy, env_id, video, seed=first_seed)
    evaluation = _evaluate("policy", policy, env_id, seeds, show_progress)
    other = difference = None
    if opponent is not None:
        other = _evaluate(str(paired_with), opponent, env_id, seeds, show_progress)
        difference = paired_difference(evaluation, other)
    return EvaluationReport(
        env=env_id,
        model=model_file,
        evaluation=evaluation,
        other=paired_with,
        other_evaluation=other,
        difference=difference,
        video=video,
    )


def _model_and_env(path: Path, env_id: str | None) -> tuple[Path, str]:
    """Return the model's file, and the env that it was trained on where none is named."""
    model_file = path
    if path.is_dir():
        model_file = RunFolder.find(path).model
        if not model_file.exists():
            raise ValueError(
                f"{path} holds no trained model yet; finish it with "
                f"mppi-agent train --resume {path}, or name its checkpoint"
            )
    if env_id is None:
        folder = RunFolder(model_file.parent)
        if not folder.config_file.exists():
            raise ValueError(f"{path} does not say which env it was trained on; name it by --env")
        env_id = folder.read_config().env
        make_env(env_id).close()
    return model_file, env_id


def _opponent(
    name: str | None, policy: MPPIGPS, env_id: str, seed: int, device: str
) -> MPPIGPS | MPPIAgent | None:
    if name is None:
        return None
    if name in _PLANNERS:
        return MPPIAgent(env_id, seed=seed, policy=policy if name == "planner" else None)
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(
            f"--paired-with {name} is no file; name a saved model, expert or planner"
        )
    return load_policy(_model_and_env(path, env_id)[0], env_id, device=device)


def _evaluate(
    label: str,
    actor: MPPIGPS | MPPIAgent,
    env_id: str,
    seeds: Sequence[int],
    show_progress: bool,
) -> Evaluation:
    with Progress(label, len(seeds), "episodes", is_shown=show_progress) as bar:
        if isinstance(actor, MPPIAgent):
            return evaluate_expert(actor, seeds, on_episode=bar.advance)
        return evaluate_policy(actor, env_id, seeds, on_episode=bar.advance)
