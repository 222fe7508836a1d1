"""Run the expert for one episode and watch it: live figures, a record per step, a video.

expert --plan--> watchers (before each step) --step--> watchers (after it)
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.budget import fit_expert
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import make_dynamics
from mppi_agent.evaluation import Evaluation, Watcher, evaluate_expert
from mppi_agent.expert import MPPIAgent
from mppi_agent.interfaces import Policy
from mppi_agent.media import headless, require_picture
from mppi_agent.plan_media import PlanFilm, draw_plan_trace
from mppi_agent.planning import MPPIConfig
from mppi_agent.progress import Progress

__all__ = ["PlanRun", "PlanTrace", "run_plan"]


@dataclass
class PlanTrace:
    """Record an episode of an expert that owns one env, step by step.

    Attributes:
        rewards: The env's own, as they came.
        milliseconds: Wall-clock of each plan.
        ess: Effective sample size of each plan.
        best_returns: Measured return of each plan over its horizon, and what it was verified over.
        nominal_returns: The same of what each plan began with.
        spread: 10 % and 90 % quantile of its samples' returns, those that did not diverge; NaN
            where plans are verified beyond the horizon.
        diverged: Samples of each plan that did.
    """

    rewards: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    ess: list[float] = field(default_factory=list)
    best_returns: list[float] = field(default_factory=list)
    nominal_returns: list[float] = field(default_factory=list)
    spread: list[tuple[float, float]] = field(default_factory=list)
    diverged: list[int] = field(default_factory=list)

    def planned(self, expert: MPPIAgent, seconds: float) -> None:
        """Take down a plan."""
        plan = expert.last_plan
        assert plan is not None
        returns = plan.returns[0]
        # What a plan was verified for beyond the horizon, its samples did not earn.
        sound = returns[np.isfinite(returns) & (expert.config.verify_steps == 0)]
        low, high = np.quantile(sound, [0.1, 0.9]) if sound.size else (np.nan, np.nan)
        self.milliseconds.append(1e3 * seconds)
        self.ess.append(float(plan.ess[0]))
        self.best_returns.append(float(plan.best_returns[0]))
        self.nominal_returns.append(float(plan.nominal_returns[0]))
        self.spread.append((float(low), float(high)))
        self.diverged.append(int(plan.diverged[0]))

    def stepped(self, reward: float) -> None:
        """Take down a reward."""
        self.rewards.append(reward)


@dataclass(frozen=True)
class PlanRun:
    """Hold an episode of the expert.

    Attributes:
        env_id: Where it acted.
        config: What it planned with.
        evaluation: Return, length and cost.
        trace: Each step.
        files: Paths of video and picture, by kind.
    """

    env_id: str
    config: MPPIConfig
    evaluation: Evaluation
    trace: PlanTrace
    files: dict[str, str]

    @property
    def ms_per_plan(self) -> float:
        """Median wall-clock of a plan, in milliseconds."""
        return float(np.median(self.trace.milliseconds))

    def as_dict(self) -> dict[str, Any]:
        """Return the figures in JSON types."""
        return {
            "env": self.env_id,
            **self.evaluation.as_dict(),
            "ms_per_plan": self.ms_per_plan,
            "num_samples": self.config.num_samples,
            "horizon": self.config.horizon,
            "iterations": self.config.iterations,
            "files": self.files,
        }

    def __str__(self) -> str:
        """Say it in a few lines."""
        evaluation, config = self.evaluation, self.config
        lines = [
            f"{self.env_id}: return {evaluation.mean:.1f} in {evaluation.lengths[0]} steps",
            f"{self.ms_per_plan:.1f} ms per plan, effective sample size {evaluation.ess:.1f} of "
            f"{config.num_samples}, {evaluation.sim_steps:,} simulated steps "
            f"(horizon {config.horizon}, {config.iterations} iterations)",
            *(f"{kind}: {path}" for kind, path in self.files.items()),
        ]
        return "\n".join(lines)


class _LiveFigures:
    """Show progress, return, effective sample size and planning time on one line."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._total = 0.0
        self._figures = ""

    def planned(self, expert: MPPIAgent, seconds: float) -> None:
        assert expert.last_plan is not None
        samples = expert.config.num_samples
        ess = expert.last_plan.ess[0]
        self._figures = f"ess {ess:.1f}/{samples}, {1e3 * seconds:.0f} ms per plan"

    def stepped(self, reward: float) -> None:
        self._total += reward
        self._bar.note(f"return {self._total:.1f}, {self._figures}")
        self._bar.advance()


def run_plan(
    env_id: str,
    config: MPPIConfig | None = None,
    *,
    seed: int = 0,
    policy: Policy | None = None,
    max_steps: int | None = None,
    num_samples: int | None = None,
    horizon: int | None = None,
    budget_ms: float | None = None,
    video: Path | None = None,
    plot: Path | None = None,
    track: str | None = None,
    show_progress: bool = False,
) -> PlanRun:
    """Run the expert for one episode.

    Args:
        env_id: What `gym.make` takes.
        config: Settings; None: the preset of the env.
        seed: Of the planner and of the reset.
        policy: Plans are deviations from what it does.
        max_steps: Cut the episode here; None runs it to its end, or for 1000 steps where the env
            has no time limit.
        num_samples: In place of what the settings say.
        horizon: The same.
        budget_ms: Fit the settings to this planning time per step, ms; see `fit_expert`.
        video: Where to write an mp4 with the sampled plans drawn in; None: none.
        plot: Where to write a picture of the figures over time; None: none.
        track: Name of the MuJoCo site or body whose paths are drawn; None: see `PathTracer`.
        show_progress: Whether to show a bar with live figures on stderr, if that is a terminal.

    Returns:
        What happened.

    Raises:
        ValueError: If the env or the settings cannot be planned with, or `max_steps` < 1.
        MediaError: If a video or picture cannot be made here, before the first plan.
    """
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps must be >= 1, got {max_steps}")
    if plot is not None:
        require_picture(plot)
    if video is not None:
        video.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if video is not None:
            stack.enter_context(headless())
        # An env of your own may not know the argument.
        made = gym.make(env_id) if video is None else gym.make(env_id, render_mode="rgb_array")
        env = Cloneable(made)
        stack.callback(env.close)
        dynamics = make_dynamics(env)
        stack.callback(dynamics.close)

        def make_expert(settings: MPPIConfig) -> MPPIAgent:
            return MPPIAgent(env, settings, seed=seed, policy=policy, dynamics=dynamics)

        config = config or MPPIConfig.for_env(env, role="alone" if policy is None else "on_top")
        config = config.resized(num_samples=num_samples, horizon=horizon)
        if budget_ms is not None:
            env.reset(seed=seed)
            config = fit_expert(make_expert, config, budget_ms)
        expert = make_expert(config)
        stack.callback(expert.close)
        trace = PlanTrace()
        total = _most_steps(env, max_steps)
        bar = Progress("plan", total, "steps", is_shown=show_progress and total < sys.maxsize)
        watchers: list[Watcher] = [trace, _LiveFigures(stack.enter_context(bar))]
        if video is not None:
            watchers.append(stack.enter_context(PlanFilm(expert, video, track=track)))
        evaluation = evaluate_expert(expert, [seed], max_steps=max_steps, watchers=watchers)
    files = {} if video is None else {"video": str(video)}
    if plot is not None:
        draw_plan_trace(trace, plot, title=f"{env_id}, seed {seed}", budget_ms=budget_ms)
        files["plot"] = str(plot)
    return PlanRun(env_id, config, evaluation, trace, files)


def _most_steps(env: gym.Env, max_steps: int | None) -> int:
    limits = (max_steps, env.spec.max_episode_steps if env.spec is not None else None)
    return min((limit for limit in limits if limit is not None), default=sys.maxsize)
