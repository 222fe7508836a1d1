"""Planner labels: which of the student's states to plan for, and which plans become labels.

The student's own actions from a state on are its closed-loop plan, since simulator and student are
deterministic: they are the nominal that MPPI must beat ("hindsight nominal"). Where the horizon is
longer than a round they are of the last few students in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_agent.dynamics.observations import stack_observations
from mppi_agent.expert import MPPIAgent
from mppi_agent.gps.dataset import LabelBatch, label_batch
from mppi_agent.interfaces import EnvState, Plan, Simulations
from mppi_agent.planning import ActionScaling, LeafValue, shift_nominal

__all__ = ["ExpertEpisodes", "LabelReport", "Labeler", "StudentStep", "expert_episodes"]

_SPARSE = 0.1  # share of steps that earn anything


@dataclass(frozen=True)
class StudentStep:
    """Hold one step of the student in the real env.

    Attributes:
        state: Before the step.
        action: What the student did, env units, shape (*action).
        terminated: Whether the env ended the episode with this step.
        truncated: Whether something else did, such as a time limit.
    """

    state: EnvState
    action: np.ndarray
    terminated: bool
    truncated: bool


@dataclass(frozen=True)
class LabelReport:
    """Hold the outcome of one labelling call, from identical states for planner and student.

    Attributes:
        labels: Accepted ones; None if there is none.
        num_states: States that were planned for.
        acceptance: Share of plans that measurably beat the student.
        gain: Mean of planner return minus student return over the horizon, reward units.
        student_return: Mean return of the student over the horizon, reward units.
        ess: Mean effective sample size.
        diverged: Samples that diverged.
        sim_steps: Env steps simulated.
    """

    labels: LabelBatch | None
    num_states: int
    acceptance: float
    gain: float
    student_return: float
    ess: float
    diverged: int
    sim_steps: int

    def figures(self) -> dict[str, float]:
        """Return what belongs in a log."""
        names = ("acceptance", "gain", "student_return", "ess", "diverged")
        return {name: float(getattr(self, name)) for name in names}


class Labeler:
    """Plan for a few of the student's recent states and keep what measurably beats it.

    Args:
        expert: Plans.
        num_envs: Real envs that the student acts in.
        margin: Least gain of a label, as a share of the spread of its samples' returns.
        memory_steps: Steps per env that candidates are drawn from.
    """

    def __init__(
        self, expert: MPPIAgent, num_envs: int, *, margin: float = 0.05, memory_steps: int = 0
    ) -> None:
        self._expert = expert
        self._scaling: ActionScaling = expert.scaling
        self._margin = margin
        length = max(memory_steps, 2 * expert.config.horizon)
        self._history: list[deque[StudentStep]] = [deque(maxlen=length) for _ in range(num_envs)]

    def record(self, env_index: int, step: StudentStep) -> None:
        """Remember a step of the student."""
        self._history[env_index].append(step)

    def forget(self) -> None:
        """Drop all recorded steps, as after a change of the env."""
        for history in self._history:
            history.clear()

    def latest_states(self) -> list[EnvState]:
        """Return the state before the latest step of each env that has taken one."""
        return [history[-1].state for history in self._history if history]

    def state_dict(self) -> dict[str, Any]:
        """Return the recorded steps; picklable."""
        return {"history": self._history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take recorded steps over."""
        self._history = state["history"]

    def label(
        self, num_states: int, rng: np.random.Generator, leaf_value: LeafValue | None
    ) -> LabelReport | None:
        """Plan for `num_states` of the recorded states; None while there are too few.

        Args:
            num_states: States to plan for, in one call.
            rng: Draws the states.
            leaf_value: Value where plans end.
        """
        candidates = self._candidates()
        if len(candidates) < num_states:
            return None
        # Evenly spread over time with a random phase: neighbours teach the same thing twice.
        stride = len(candidates) / num_states
        picks = (rng.random() * stride + stride * np.arange(num_states)).astype(int)
        chosen = [candidates[int(i)] for i in picks]
        steps = [self._history[env][i] for env, i in chosen]
        nominals = np.stack([self._hindsight(env, i) for env, i in chosen])
        plan = self._expert.label([s.state for s in steps], nominals, leaf_value=leaf_value)
        return self._report(steps, plan)

    def _report(self, steps: Sequence[StudentStep], plan: Plan) -> LabelReport:
        gains = plan.best_returns - plan.nominal_returns
        finite = np.isfinite(gains)
        gains = np.where(finite, gains, 0.0)
        spread = _spread(plan.returns)
        accepted = finite & (gains > self._margin * spread) & (gains > 0)
        labels = None
        if accepted.any():
            rows = np.flatnonzero(accepted)
            actions = self._scaling.to_env(plan.controls[rows, 0])
            scale = np.median(gains[rows])
            labels = label_batch(
                [steps[int(i)].state.observation for i in rows],
                list(actions),
                list(np.clip(gains[rows] / scale, 0.1, 3.0)),
            )
        return LabelReport(
            labels=labels,
            num_states=len(steps),
            acceptance=float(accepted.mean()),
            gain=float(gains.mean()),
            student_return=float(plan.nominal_returns[finite].mean()) if finite.any() else 0.0,
            ess=float(plan.ess.mean()),
            diverged=int(plan.diverged.sum()),
            sim_steps=plan.sim_steps,
        )

    def _candidates(self) -> list[tuple[int, int]]:
        """Return (env, index) of the steps whose next H actions are known."""
        horizon = self._expert.config.horizon
        found = []
        for env, history in enumerate(self._history):
            known = 0  # steps from here on until the episode or the record ends
            for i in range(len(history) - 1, -1, -1):
                # After a termination nothing is left to do; what a student cut short by a time
                # limit would have done is not known.
                if history[i].terminated:
                    known = horizon
                elif history[i].truncated:
                    known = 0
                else:
                    known += 1
                if known >= horizon:
                    found.append((env, i))
        return found[::-1]

    def _hindsight(self, env: int, index: int) -> np.ndarray:
        """Return the student's own next H actions, normalised; its last one fills up the end."""
        actions = []
        for i in range(index, index + self._expert.config.horizon):
            step = self._history[env][i]
            actions.append(step.action)
            if step.terminated:
                break
        actions += [actions[-1]] * (self._expert.config.horizon - len(actions))
        return self._scaling.to_normalised(np.stack(actions))


@dataclass(frozen=True)
class ExpertEpisodes:
    """Hold what the expert did from some states, all episodes in one row.

    Attributes:
        states: Before each step.
        labels: What it did there, env units.
        rewards: What each step earned, shape (len(states),).
        sim_steps: Env steps simulated.
    """

    states: list[EnvState]
    labels: LabelBatch
    rewards: np.ndarray
    sim_steps: int

    @property
    def is_sparse(self) -> bool:
        """Whether fewer than a tenth of the steps earned or cost anything."""
        return bool(np.mean(self.rewards != 0) < _SPARSE)


def expert_episodes(
    expert: MPPIAgent,
    simulations: Simulations,
    states: Sequence[EnvState],
    num_steps: int,
    should_stop: Callable[[], bool],
) -> ExpertEpisodes:
    """Let the expert act from some states at once and record what it does.

    It follows each plan for a fifth of the horizon before it plans anew: simulations are exact,
    so the plan does not go stale at once.

    Args:
        expert: Plans.
        simulations: One per state.
        states: Where the episodes begin.
        num_steps: Longest episode.
        should_stop: Asked between plans.
    """
    stride = max(1, expert.config.horizon // 5)
    simulations.restore(states)
    running = np.arange(len(states))
    nominals = expert.cold_start(len(states))
    visited: list[EnvState] = []
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    sim_steps = 0
    for start in range(0, num_steps, stride):
        here = simulations.snapshot(running)
        plan = expert.label(here, nominals[running])
        nominals[running] = shift_nominal(plan.controls, stride)
        sim_steps += plan.sim_steps
        controls = {int(i): plan.controls[row] for row, i in enumerate(running)}
        for h in range(min(stride, num_steps - start)):
            here = simulations.snapshot(running)
            taken = expert.scaling.to_env(np.stack([controls[int(i)][h] for i in running]))
            visited.extend(here)
            actions.extend(taken)
            step = simulations.step(taken, running)
            rewards.extend(step.rewards)
            sim_steps += len(running)
            running = running[~step.ended]
            if not len(running):
                break
        if not len(running) or should_stop():
            break
    labels = LabelBatch(
        stack_observations([state.observation for state in visited]),
        np.stack(actions),
        np.ones(len(actions)),
    )
    return ExpertEpisodes(visited, labels, np.asarray(rewards), sim_steps)


def _spread(returns: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each row's finite returns, shape (S,)."""
    masked = np.ma.masked_invalid(returns)
    return np.asarray(masked.std(axis=1).filled(0.0))
