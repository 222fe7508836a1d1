"""Pictures of planning: figures over an episode, and videos with the sampled plans drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from mppi_agent.cloning import Cloneable, find_cloneable
from mppi_agent.expert import MPPIAgent
from mppi_agent.interfaces import EnvState
from mppi_agent.media import VideoFile, new_figure, render_frame
from mppi_agent.planning import ActionScaling

if TYPE_CHECKING:
    from mppi_agent.plan_run import PlanTrace

__all__ = ["PathTracer", "PlanFilm", "draw_plan_trace"]

_NUM_PATHS = 24
_MOST_SEGMENTS = 600  # of the 1000 geoms that Gymnasium's renderer has room for
_LOW, _HIGH, _BEST = np.array([0.25, 0.35, 0.75]), np.array([1.0, 0.65, 0.1]), (0.1, 0.9, 0.3, 1.0)


class PathTracer:
    """Find out where a point of a MuJoCo model goes under given plans.

    Args:
        env: A MuJoCo env; only read.
        scaling: What controls mean as its actions.
        track: Name of a site or body. None: the body that the first plans traced move
            farthest.

    Raises:
        ValueError: If the env has no MuJoCo model, or the model no such site or body.
    """

    def __init__(self, env: Cloneable, scaling: ActionScaling, track: str | None = None) -> None:
        self._copy = env.private_copy()
        self._base: Any = self._copy.unwrapped
        self._scaling = scaling
        if not hasattr(self._base, "model"):
            raise ValueError(f"paths can be drawn in MuJoCo envs only, got {env}")
        self._field, self._index = "xpos", -1
        if track is not None:
            self._field, self._index = _find(self._base.model, track)

    def trace(self, state: EnvState, plans: np.ndarray) -> list[np.ndarray]:
        """Return the positions along plans.

        Args:
            state: Where all begin.
            plans: Normalised controls, shape (N, H, nu).

        Returns:
            For each plan positions in metres, before and after each step until the episode ends,
            shape (steps + 1, 3).
        """
        paths = [self._follow(state, self._scaling.to_env(plan)) for plan in plans]
        if self._index < 0:
            self._index = _most_moved(paths)
        return [path[:, self._index] for path in paths]

    def close(self) -> None:
        """Close the private copy."""
        self._copy.close()

    def _follow(self, state: EnvState, actions: np.ndarray) -> np.ndarray:
        """Return the positions of all bodies or sites, shape (steps + 1, n, 3)."""
        self._copy.restore(state)
        mujoco.mj_kinematics(self._base.model, self._base.data)
        seen = [getattr(self._base.data, self._field).copy()]
        for action in actions:
            _, _, terminated, _, _ = self._copy.step(action)
            seen.append(getattr(self._base.data, self._field).copy())
            if terminated or self._copy.has_diverged():
                break
        return np.stack(seen)


class PlanFilm:
    """Film an expert in an env that renders `rgb_array`; use it as a context manager.

    Each frame shows the state that a plan starts from. In MuJoCo envs it also shows where samples
    of the plan lead, from low (blue) to high score (orange), and the plan itself (green).

    Args:
        expert: Owns the env.
        path: Of the video.
        track: See `PathTracer`.

    Raises:
        ValueError: If `track` names nothing.
        MediaError: If the env cannot be rendered here or imageio is missing.
    """

    def __init__(self, expert: MPPIAgent, path: Path, *, track: str | None = None) -> None:
        self._env: Any = expert.env
        cloneable = find_cloneable(self._env)
        self._tracer: PathTracer | None = None
        if track is not None or hasattr(cloneable.unwrapped, "mujoco_renderer"):
            self._tracer = PathTracer(cloneable, expert.scaling, track)
        self._file = VideoFile(path, float(self._env.metadata.get("render_fps") or 30))

    def __enter__(self) -> PlanFilm:
        """Render once, so that what cannot be rendered fails before anything is planned."""
        self._env.reset(seed=0)
        render_frame(self._env)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()
        if self._tracer is not None:
            self._tracer.close()

    def planned(self, expert: MPPIAgent, seconds: float) -> None:
        """Add a frame."""
        plan = expert.last_plan
        assert plan is not None
        if self._tracer is not None:
            order = np.argsort(plan.scores[0], kind="stable")
            shown = order[np.linspace(0, len(order) - 1, min(_NUM_PATHS, len(order))).astype(int)]
            plans = np.concatenate([plan.samples[0, shown], plan.controls])
            paths = self._tracer.trace(find_cloneable(self._env).snapshot(), plans)
            _draw_paths(self._env.unwrapped.mujoco_renderer.viewer, paths)
        self._file.append(render_frame(self._env))

    def stepped(self, reward: float) -> None:
        """Do nothing: the next frame comes with the next plan."""


def draw_plan_trace(
    trace: PlanTrace, path: Path, *, title: str, budget_ms: float | None = None
) -> None:
    """Draw reward, returns of the plans, effective sample size and planning time over an episode.

    Args:
        trace: Of one episode.
        path: Of the picture; the suffix sets the format.
        title: Above all.
        budget_ms: Drawn beside the planning time; None leaves it out.

    Raises:
        MediaError: If matplotlib is missing.
    """
    figure = new_figure((8.0, 8.4))
    reward, planned, ess, clock = figure.subplots(4, 1, sharex=True)
    steps = np.arange(len(trace.rewards))
    reward.plot(steps, trace.rewards, color="#0071bc", linewidth=0.9)
    reward.set_ylabel("reward", color="#0071bc")
    total = reward.twinx()
    total.plot(steps, np.cumsum(trace.rewards), color="#c1272d")
    total.set_ylabel("return so far", color="#c1272d")
    low, high = np.array(trace.spread).T
    planned.fill_between(steps, low, high, color="#bbbbbb", label="samples, 10 to 90 %")
    planned.plot(steps, trace.nominal_returns, color="#0071bc", linewidth=0.9, label="nominal")
    planned.plot(steps, trace.best_returns, color="#c1272d", linewidth=0.9, label="plan")
    planned.set_ylabel("return over the horizon")
    planned.legend(frameon=False, fontsize="small", ncols=3)
    ess.plot(steps, trace.ess, color="#3f8f4f", linewidth=0.9, label="effective sample size")
    ess.set_ylabel("samples")
    ess.set_ylim(0, 1.2 * max([*trace.ess, *trace.diverged]))
    if any(trace.diverged):
        ess.plot(steps, trace.diverged, color="#444444", linewidth=0.9, label="diverged")
    ess.legend(frameon=False, fontsize="small", ncols=2)
    clock.plot(steps, trace.milliseconds, color="#444444", linewidth=0.9)
    if budget_ms is not None:
        clock.axhline(budget_ms, color="#c1272d", linestyle="--", label="budget")
        clock.legend(frameon=False, fontsize="small")
    clock.set_ylabel("ms per plan")
    clock.set_ylim(bottom=0)
    clock.set_xlabel("step")
    for axes in (reward, planned, ess, clock):
        axes.grid(alpha=0.25)
        axes.spines[["top"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path)


def _find(model: mujoco.MjModel, name: str) -> tuple[str, int]:
    """Return the field of positions and the row of a site or body."""
    kinds = {"site_xpos": mujoco.mjtObj.mjOBJ_SITE, "xpos": mujoco.mjtObj.mjOBJ_BODY}
    for field, kind in kinds.items():
        index = mujoco.mj_name2id(model, kind, name)
        if index >= 0:
            return field, index
    known = [model.site(i).name for i in range(model.nsite)]
    known += [model.body(i).name for i in range(1, model.nbody)]
    raise ValueError(
        f"track={name!r} is no site or body; there are {', '.join(filter(None, known))}"
    )


def _most_moved(paths: Sequence[np.ndarray]) -> int:
    """Return which of the bodies ends farthest from its start, of paths (steps + 1, n, 3)."""
    moves = np.stack([path[-1] - path[0] for path in paths])  # (N, n, 3)
    return int(np.square(moves).sum(axis=(0, 2)).argmax())


def _draw_paths(viewer: Any, paths: Sequence[np.ndarray]) -> None:
    """Add paths to the next frame: from low to high score, the plan itself last."""
    longest = max(len(path) for path in paths)
    stride = -(-len(paths) * (longest - 1) // _MOST_SEGMENTS)
    radius = 0.002 * float(viewer.model.stat.extent)
    for rank, path in enumerate(paths):
        is_plan = rank == len(paths) - 1
        share = rank / max(len(paths) - 2, 1)
        rgba = _BEST if is_plan else (*(_LOW + share * (_HIGH - _LOW)), 0.35 + 0.4 * share)
        points = path[:: 1 if is_plan else stride]
        for start, end in pairwise(points):
            viewer.add_marker(**_segment(start, end, radius * (2.0 if is_plan else 1.0), rgba))


def _segment(start: np.ndarray, end: np.ndarray, radius: float, rgba: Any) -> dict[str, Any]:
    """Return the geom of a thin capsule between two points."""
    along = end - start
    length = float(np.linalg.norm(along))
    quaternion, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_quatZ2Vec(quaternion, along / length if length > 0 else np.array([0.0, 0.0, 1.0]))
    mujoco.mju_quat2Mat(matrix, quaternion)
    return {
        "type": mujoco.mjtGeom.mjGEOM_CAPSULE,
        "pos": 0.5 * (start + end),
        "size": np.array([radius, 0.5 * length, 0.0]),
        "mat": matrix,
        "rgba": np.array(rgba),
    }
