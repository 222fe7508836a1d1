"""Compare MPPIGPS with its expert, PPO and SAC at equal wall-clock on the same cores.

    train one after the other --> evaluate all on the same held-out seeds --> table, curve, video

Training times are equal; what training cost beyond real env steps stands in the table. Planning is
slow, so the two rows that plan while they act get fewer episodes, on the first of the same seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mppi_agent.env_ids import make_env
from mppi_agent.evaluation import (
    CurvePoint,
    Evaluation,
    evaluate_expert,
    evaluate_policy,
    held_out_seeds,
)
from mppi_agent.expert import MPPIAgent
from mppi_agent.gps import MPPIGPS
from mppi_agent.machine import describe_machine
from mppi_agent.media import MediaError, draw_learning_curves, record_video
from mppi_agent.progress import Progress
from mppi_agent.training import ALGOS, TrainingRun, learning_curve, train_for

__all__ = ["Comparison", "Row", "compare"]

_LABELS = {"mppigps": "MPPIGPS", "ppo": "PPO", "sac": "SAC"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one line of the table.

    Attributes:
        algorithm: As shown.
        settings: Where the hyper-parameters come from.
        evaluation: On the held-out seeds.
        env_steps: Real env steps of the training.
        sim_steps: Env steps simulated beside them: in training, or by planning while evaluated.
        training_seconds: Wall-clock; 0 for the bare expert.
    """

    algorithm: str
    settings: str
    evaluation: Evaluation
    env_steps: int
    sim_steps: int
    training_seconds: float


@dataclass(kw_only=True)
class Comparison:
    """Hold the outcome of a comparison.

    Attributes:
        env_id: The task.
        minutes: Training wall-clock of each algorithm.
        seed: Training seed.
        rows: One per algorithm, then those that plan.
        curves: Learning curve of each algorithm, by its label.
        files: Paths of what was written, by kind.
        notes: What a reader of the table should know.
    """

    env_id: str
    minutes: float
    seed: int
    rows: list[Row] = field(default_factory=list)
    curves: dict[str, list[CurvePoint]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return the rows as aligned text."""
        head = [
            "algorithm",
            "mean return",
            "± std",
            "min",
            "episodes",
            "env steps",
            "simulated",
            "train s",
            "settings",
        ]
        cells = [head, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
        lines = ["  ".join(_align(line, widths)).rstrip() for line in cells]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON types, every single return included."""
        return {
            "env": self.env_id,
            "minutes": self.minutes,
            "seed": self.seed,
            "rows": [_row_as_dict(row) for row in self.rows],
            "curves": {
                name: [asdict(point) for point in points] for name, points in self.curves.items()
            },
            "files": self.files,
            "notes": self.notes,
            "machine": describe_machine(),
        }


def compare(
    env_id: str,
    minutes: float,
    *,
    algos: Sequence[str] = ALGOS,
    seed: int = 0,
    episodes: int = 100,
    expert_episodes: int = 3,
    curve_points: int = 12,
    curve_episodes: int = 10,
    video_seconds: float = 20.0,
    out_dir: Path = Path("runs/compare"),
    device: str = "auto",
    report: Callable[[str], None] = lambda line: None,
    show_progress: bool = False,
) -> Comparison:
    """Train, evaluate, draw and record.

    Args:
        env_id: Of a Gymnasium env.
        minutes: Training wall-clock of each algorithm, > 0.
        algos: Some of `mppi_agent.training.ALGOS`, trained in this order.
        seed: Training seed of each algorithm.
        episodes: Held-out episodes for each learned policy.
        expert_episodes: Held-out episodes for the rows that plan; 0 leaves them out.
        curve_points: Points of each learning curve; 0 leaves the picture out.
        curve_episodes: Held-out episodes for each point.
        video_seconds: Length of the video; 0 leaves it out.
        out_dir: Where results, model, picture and video go; made if missing.
        device: As Stable-Baselines3 takes it.
        report: Gets a line on what is going on now.
        show_progress: Whether to draw bars on stderr.

    Returns:
        Rows, curves and the paths of what was written.

    Raises:
        ValueError: If an argument is out of range, before anything is trained.
    """
    make_env(env_id).close()
    _check_arguments(algos, minutes, expert_episodes, curve_points, curve_episodes)
    seeds = held_out_seeds(episodes)
    out_dir.mkdir(parents=True, exist_ok=True)
    result = Comparison(env_id=env_id, minutes=minutes, seed=seed)
    student: MPPIGPS | None = None
    for algo in dict.fromkeys(algos):
        report(f"training {_LABELS[algo]} for {minutes:g} min")
        try:
            run = train_for(
                algo,
                env_id,
                60 * minutes,
                seed=seed,
                device=device,
                num_snapshots=curve_points,
                show_progress=show_progress,
            )
        except ValueError as error:
            if algo == "mppigps":
                raise
            result.notes.append(f"{_LABELS[algo]} left out: {error}")
            continue
        if run.was_interrupted:
            raise KeyboardInterrupt
        if isinstance(run.model, MPPIGPS):
            student = run.model
            student.save(out_dir / "model.zip")
            result.files["model"] = str(out_dir / "model.zip")
        _add_policy(result, run, _LABELS[algo], seeds)
        _save(result, out_dir)  # whatever comes next, this is not lost
        if curve_points:
            points = learning_curve(
                run, env_id, held_out_seeds(curve_episodes), show_progress=show_progress
            )
            result.curves[_LABELS[algo]] = points
            _save(result, out_dir)
        if run.model is not student:
            run.model.get_env().close()  # type: ignore[union-attr]
    if expert_episodes:
        report(f"running the expert for {expert_episodes} episodes")
        expert_seeds = held_out_seeds(expert_episodes)
        _add_planners(result, student, expert_seeds, seed=seed, show_progress=show_progress)
        _save(result, out_dir)
    _write_files(result, student, out_dir, video_seconds)
    return result


def _check_arguments(
    algos: Sequence[str],
    minutes: float,
    expert_episodes: int,
    curve_points: int,
    curve_episodes: int,
) -> None:
    unknown = [algo for algo in algos if algo not in ALGOS]
    if unknown or not algos:
        raise ValueError(f"algos must be some of {', '.join(ALGOS)}; got {list(algos)}")
    if not minutes > 0:
        raise ValueError(f"minutes must be > 0, got {minutes}")
    if min(expert_episodes, curve_points) < 0 or curve_episodes < 1:
        raise ValueError(
            "expert_episodes and curve_points must be >= 0 and curve_episodes > 0, "
            f"got {expert_episodes}, {curve_points} and {curve_episodes}"
        )


def _write_files(
    result: Comparison, student: MPPIGPS | None, out_dir: Path, video_seconds: float
) -> None:
    """Write picture and video, as far as there are any, and the results anew, which name them."""
    if result.curves:
        _draw(result, out_dir / "learning_curve.png")
    if student is not None and video_seconds:
        _record(result, student, out_dir / "policy.mp4", video_seconds)
    _save(result, out_dir)


def _save(result: Comparison, out_dir: Path) -> None:
    path = out_dir / "results.json"
    result.files["results"] = str(path)
    path.write_text(json.dumps(result.as_dict(), indent=2) + "\n")


def _add_policy(result: Comparison, run: TrainingRun, label: str, seeds: Sequence[int]) -> None:
    """Evaluate what a training gave."""
    row = Row(
        algorithm=label,
        settings=run.settings,
        evaluation=evaluate_policy(run.policy, result.env_id, seeds),
        env_steps=run.env_steps,
        sim_steps=run.sim_steps,
        training_seconds=run.seconds,
    )
    result.rows.append(row)


def _add_planners(
    result: Comparison,
    student: MPPIGPS | None,
    seeds: Sequence[int],
    *,
    seed: int,
    show_progress: bool,
) -> None:
    """Add the rows that plan while they act, and what the student does on the same seeds."""
    experts: dict[str, MPPIGPS | None] = {"MPPI expert": None}
    if student is not None:
        experts["planner + policy"] = student
    for label, policy in experts.items():
        expert = MPPIAgent(result.env_id, seed=seed, policy=policy)
        total = len(seeds) * (expert.env.spec.max_episode_steps or 0)
        with Progress(label, total, "steps", is_shown=show_progress and total > 0) as bar:
            evaluation = evaluate_expert(expert, seeds, on_step=bar.advance)
        result.rows.append(
            Row(
                algorithm=label,
                settings=f"{evaluation.ms_per_step:.1f} ms per action",
                evaluation=evaluation,
                env_steps=0,
                sim_steps=evaluation.sim_steps,
                training_seconds=0.0,
            )
        )
    result.notes.append(
        "simulated: env steps simulated beside the real ones, in training; "
        "for the rows that plan, while they were evaluated"
    )
    for row in result.rows:
        if row.algorithm == "MPPIGPS":
            same = row.evaluation.returns[: len(seeds)]
            which = f"the {len(seeds)}" if len(same) == len(seeds) else f"{len(same)} of the"
            result.notes.append(
                f"on {which} seeds of the rows that plan, MPPIGPS alone returns {same.mean():.1f}"
            )


def _draw(result: Comparison, path: Path) -> None:
    """Draw the learning curves; if that cannot be, a note says why."""
    # It is evaluated on fewer seeds than the curves, which a picture must say.
    experts = [
        (f"{row.algorithm}, {len(row.evaluation.seeds)} episodes", row.evaluation.mean)
        for row in result.rows
        if row.algorithm == "MPPI expert"
    ]
    try:
        draw_learning_curves(
            result.curves,
            path,
            title=f"{result.env_id}, seed {result.seed}",
            reference=experts[0] if experts else None,
        )
        result.files["picture"] = str(path)
    except MediaError as error:
        result.notes.append(f"picture skipped: {error}")


def _record(result: Comparison, student: MPPIGPS, path: Path, seconds: float) -> None:
    """Record the student; if that cannot be, a note says why."""
    seed = held_out_seeds(1)[0]
    try:
        record_video(student, result.env_id, path, seconds=seconds, seed=seed)
        result.files["video"] = str(path)
    except MediaError as error:
        result.notes.append(f"video skipped: {error}")


def _cells(row: Row) -> list[str]:
    evaluation = row.evaluation
    return [
        row.algorithm,
        f"{evaluation.mean:.1f}",
        f"{evaluation.std:.1f}",
        f"{evaluation.min:.1f}",
        str(len(evaluation.returns)),
        f"{row.env_steps:,}" if row.env_steps else "-",
        f"{row.sim_steps:,}" if row.sim_steps else "-",
        f"{row.training_seconds:.1f}" if row.training_seconds else "-",
        row.settings,
    ]


def _align(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Pad names to the left and numbers to the right."""
    last = len(line) - 1
    return [
        cell.ljust(width) if column in (0, last) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]


def _row_as_dict(row: Row) -> dict[str, Any]:
    return {
        "algorithm": row.algorithm,
        "settings": row.settings,
        "env_steps": row.env_steps,
        "training_seconds": row.training_seconds,
        **row.evaluation.as_dict(),
        "sim_steps": row.sim_steps,
    }
