"""Iterative LQR: plans improved by derivatives of the simulator, where it is smooth.

controls (H, nu) --simulate--> path --finite differences--> slopes, curvature --backwards--> gains
--simulate a few step lengths, closed loop--> better controls
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mppi_agent.interfaces import Coordinates, Dynamics, EnvState
from mppi_agent.planning.actions import ActionScaling
from mppi_agent.planning.config import MPPIConfig

__all__ = ["IterativeLQR", "most_env_steps"]

_STEP_LENGTHS = np.array([1.0, 0.6, 0.3, 0.1, 0.03, 0.0])
_OFFSET = 1e-3  # of finite differences: physics units (m, rad, m/s, rad/s), half-ranges of controls
_LEAST_GAIN = 1e-3  # of a step, as a share of the return's magnitude: less, and no more follow
_MOST_SIMULATIONS = 512  # at once: where each is a copy of the env, more would take long to make
_LARGEST = 1e100  # number whose derivatives are taken
_LEAST_CURVATURE = 1e-3  # per control, as a share of the rewards' own

_Choose = Callable[[int, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Runs:
    """Hold N rollouts from one state.

    Attributes:
        controls: As they were done, 0 after the end, shape (N, H, nu).
        returns: Discounted, -inf where the physics broke, shape (N,).
        states: Before each step, and after the last, of the first run while it goes on.
    """

    controls: np.ndarray
    returns: np.ndarray
    states: list[EnvState]


@dataclass(frozen=True)
class _Expansion:
    """Hold derivatives along L steps, in N = n + nu numbers: coordinates, then controls.

    Attributes:
        slopes: Of the coordinates after each step, shape (L, n, N).
        reached: Physics after each step, shape (L, p).
        gradient: Of its reward, shape (L, N).
        curvature: Of its reward, negative semidefinite, shape (L, N, N).
    """

    slopes: np.ndarray
    reached: np.ndarray
    gradient: np.ndarray
    curvature: np.ndarray


class IterativeLQR:
    """Improve sequences of controls where the env is smooth, unstable ones too.

    One step simulates the plan, then each of its control steps from 1 + 2 N + N (N - 1) / 2
    displaced states and controls, N = n + nu coordinates and controls: a share of what sampling
    takes for a pendulum or an arm, far more for a humanoid. A plan that ends the episode is first
    made anew by one such model around the state it starts in, where nothing falls yet. Contacts to
    come are not seen, and what the env's reward keeps from before a step is held fixed; so what
    comes out is only ever a proposal that is measured like the others.

    Source: Li and Todorov 2004, "Iterative linear quadratic regulator design"; the bounds on
        controls by clamping, see Tassa et al. 2014, "Control-limited differential dynamic
        programming", section III B.
    """

    def __init__(
        self,
        config: MPPIConfig,
        dynamics: Dynamics,
        scaling: ActionScaling,
        coordinates: Coordinates,
    ) -> None:
        """Bind to a simulator.

        Args:
            config: Of the planner: `horizon`, `discount` and `lqr_steps`, how often a plan is
                improved at most; no more once a step gains less than a thousandth, nor more than
                `budget_steps` leaves beside the samples: where not even one along the plan fits, it
                is the model around the start alone.
            dynamics: The model; the caller closes it.
            scaling: What controls mean as actions of the env.
            coordinates: In which derivatives of its physics are taken.
        """
        self._scaling = scaling
        self._coordinates = coordinates
        self._horizon = config.horizon
        self._discount = config.discount
        self._steps = config.lqr_steps
        self._follows_path = True
        self._offsets = _second_order_offsets(coordinates.size + scaling.action_dims)
        if config.budget_steps is not None:
            left = config.budget_steps - replace(config, budget_steps=None).steps_per_plan
            once = most_env_steps(coordinates, scaling.action_dims, config.horizon)
            self._follows_path = left >= once
            runs = config.horizon * (1 + len(_STEP_LENGTHS))
            around_start = int(left >= len(self._offsets) + runs)
            self._steps = min(self._steps, left // once if self._follows_path else around_start)
        num = min(config.horizon * len(self._offsets), _MOST_SIMULATIONS)
        self._simulations = dynamics.simulations(num)

    def improve(self, states: Sequence[EnvState], controls: np.ndarray) -> tuple[np.ndarray, int]:
        """Return better controls from S states, shape (S, H, nu), and the env steps simulated.

        Args:
            states: S start states.
            controls: To improve on, in [-1, 1], shape (S, H, nu); where no step length gains, they
                come back as they are.
        """
        improved, sim_steps = controls.copy(), 0
        with np.errstate(over="ignore", invalid="ignore"):  # what grows too large is not chosen
            for state, plan in zip(states, improved, strict=True):
                for _ in range(self._steps):
                    better, goes_on, steps = self._step(state, plan)
                    plan[...] = better
                    sim_steps += steps
                    if not goes_on:
                        break
        return improved, sim_steps

    def close(self) -> None:
        """Free the simulations."""
        self._simulations.close()

    def _step(self, start: EnvState, plan: np.ndarray) -> tuple[np.ndarray, bool, int]:
        """Return the best plan, whether to go on from it, and the env steps simulated."""
        nominal, sim_steps = self._run(start, 1, lambda t, physics, running: plan[t][None])
        length = len(nominal.states) - 1
        makers = []
        if length < self._horizon or not self._follows_path:
            makers.append(lambda: self._around_start(start, plan))
        if self._follows_path:
            makers.append(lambda: self._around_path(nominal.states, plan))
        before = nominal.returns[0]
        for make in makers:
            react, steps = make()
            sim_steps += steps
            if react is None:
                continue
            tried, steps = self._run(start, len(_STEP_LENGTHS), react)
            sim_steps += steps
            best = tried.returns.argmax()
            gain = tried.returns[best] - before
            if gain > 0:
                return tried.controls[best], gain > _LEAST_GAIN * abs(before), sim_steps
        return plan, False, sim_steps

    def _around_path(
        self, states: Sequence[EnvState], plan: np.ndarray
    ) -> tuple[_Choose | None, int]:
        """Return what follows the path of a plan and improves it, and the env steps it took."""
        length = len(states) - 1
        if not length:
            return None, 0
        expansion = self._expand(states[:-1], plan[:length])
        if expansion is None:
            return None, length * len(self._offsets)
        # Where the plan ends the episode, its last reward stands for those that it loses: the fall
        # itself has no slope.
        weights = np.ones(length)
        weights[-1] += self._horizon - length
        changes, gains = self._backwards(expansion, weights, plan=plan)
        path = [state.physics for state in states]

        def react(t: int, physics: np.ndarray, running: np.ndarray) -> np.ndarray:
            t = min(t, length - 1)  # what was done last goes on where the plan did not
            strayed = self._coordinates.differences(physics, path[t])
            change = _STEP_LENGTHS[running, None] * changes[t] + strayed @ gains[t].T
            return self._scaling.snap(plan[t] + change)

        return react, length * len(self._offsets)

    def _around_start(self, start: EnvState, plan: np.ndarray) -> tuple[_Choose | None, int]:
        """Return what would be best if all were as around the start, and the env steps it took.

        A plan that falls says little about how not to; the start is not falling yet.
        """
        here = self._expand([start], plan[:1])
        if here is None:
            return None, len(self._offsets)
        always = _Expansion(
            *(np.repeat(part, self._horizon, axis=0) for part in vars(here).values())
        )
        drift = self._coordinates.differences(here.reached, start.physics)[0]
        changes, gains = self._backwards(always, np.ones(self._horizon), drift=drift)

        def react(t: int, physics: np.ndarray, running: np.ndarray) -> np.ndarray:
            strayed = self._coordinates.differences(physics, start.physics)
            change = changes[t] + strayed @ gains[t].T
            return self._scaling.snap(plan[0] + _STEP_LENGTHS[running, None] * change)

        return react, len(self._offsets)

    def _run(self, start: EnvState, num: int, choose: _Choose) -> tuple[_Runs, int]:
        """Roll out `num` simulations from a state; return them and the env steps.

        Args:
            start: Where they begin.
            num: How many.
            choose: Maps the step, the physics of those that still run, shape (n, p), and which
                they are, shape (n,), to their controls, shape (n, nu).
        """
        running = np.arange(num)
        self._simulations.restore([start] * num, running)
        controls = np.zeros((num, self._horizon, self._scaling.action_dims))
        returns = np.zeros(num)
        now, path, sim_steps = [start] * num, [start], 0
        for t in range(self._horizon):
            chosen = choose(t, np.stack([state.physics for state in now]), running)
            chosen = np.nan_to_num(chosen)  # of derivatives that grew beyond all bounds
            controls[running, t] = chosen
            batch = self._simulations.step(self._scaling.to_env(chosen), running)
            sim_steps += len(running)
            rewards = np.where(batch.diverged, -np.inf, batch.rewards)
            returns[running] += self._discount**t * rewards
            running = running[~batch.ended]
            if not len(running):
                break
            now = self._simulations.snapshot(running)
            if running[0] == 0:
                path.append(now[0])
        return _Runs(controls, returns, path), sim_steps

    def _expand(self, states: Sequence[EnvState], controls: np.ndarray) -> _Expansion | None:
        """Return derivatives at L states and controls; None where the physics breaks nearby."""
        coordinates, offsets = self._coordinates, self._offsets
        size, total = coordinates.size, coordinates.size + controls.shape[1]
        # At its bound a control could be moved to one side only.
        centre = np.clip(controls, _OFFSET - 1.0, 1.0 - _OFFSET)
        displaced = [
            replace(state, physics=physics)
            for state in states
            for physics in coordinates.displaced(state.physics, offsets[:, :size])
        ]
        moved = (centre[:, None] + offsets[:, size:]).reshape(-1, controls.shape[1])
        after, rewards = [], []
        for first in range(0, len(displaced), self._simulations.num):
            part = displaced[first : first + self._simulations.num]
            everyone = np.arange(len(part))
            self._simulations.restore(part, everyone)
            actions = self._scaling.to_env(moved[first : first + len(part)])
            batch = self._simulations.step(actions, everyone)
            if batch.diverged.any():
                return None
            after += [state.physics for state in self._simulations.snapshot(everyone)]
            rewards.append(batch.rewards)
        outcomes = np.reshape(after, (len(states), len(offsets), -1))
        paid = np.reshape(np.concatenate(rewards), (len(states), -1))
        if not ((np.abs(outcomes) < _LARGEST).all() and (np.abs(paid) < _LARGEST).all()):
            return None
        ends = np.stack([coordinates.differences(row[1:], row[0]) for row in outcomes])
        up, down = ends[:, :total], ends[:, total : 2 * total]
        slopes = (up - down).swapaxes(1, 2) / (2 * _OFFSET)
        return _Expansion(slopes, outcomes[:, 0], *_second_order(paid, total))

    def _backwards(
        self,
        expansion: _Expansion,
        weights: np.ndarray,
        *,
        plan: np.ndarray | None = None,
        drift: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what to change, shape (L, nu), and gains on what strays, shape (L, nu, n).

        Args:
            expansion: Along L steps.
            weights: Of their rewards, shape (L,).
            plan: Whose controls, changed, keep to their bounds; None: they are clipped when done.
            drift: Where a step leads from what the expansion is around, shape (n,); None: to what
                the next one is around.
        """
        length, size, total = expansion.slopes.shape
        changes = np.zeros((length, total - size))
        gains = np.zeros((length, total - size, size))
        # Without any curvature a step goes from bound to bound, and the lengths decide.
        typical = np.abs(np.linalg.eigvalsh(expansion.curvature)).max() or 1.0
        floor = _LEAST_CURVATURE * typical * np.eye(total - size)
        slope, curvature = np.zeros(size), np.zeros((size, size))  # of the value
        for t in range(length - 1, -1, -1):
            map_ = expansion.slopes[t]
            if drift is not None:
                slope = slope + curvature @ drift
            q = weights[t] * expansion.gradient[t] + self._discount * map_.T @ slope
            hessian = weights[t] * expansion.curvature[t]
            hessian += self._discount * map_.T @ curvature @ map_
            q_x, q_u = q[:size], q[size:]
            q_xx, q_xu = hessian[:size, :size], hessian[:size, size:]
            q_uu = hessian[size:, size:] - floor
            try:
                solved = -np.linalg.solve(q_uu, np.column_stack([q_u, q_xu.T]))
            except np.linalg.LinAlgError:  # singular by rounding: what follows cannot be told
                break
            change, gain = solved[:, 0], solved[:, 1:]
            if plan is not None:
                is_free = np.abs(plan[t] + change) < 1.0
                change = np.clip(plan[t] + change, -1.0, 1.0) - plan[t]
                gain = np.where(is_free[:, None], gain, 0.0)
            changes[t], gains[t] = change, gain
            slope = q_x + gain.T @ (q_uu @ change + q_u) + q_xu @ change
            curvature = q_xx + gain.T @ q_uu @ gain + gain.T @ q_xu.T + q_xu @ gain
            curvature = (curvature + curvature.T) / 2
        return changes, gains


def most_env_steps(coordinates: Coordinates, action_dims: int, horizon: int) -> int:
    """Return the most env steps that improving a plan once simulates."""
    displaced = len(_second_order_offsets(coordinates.size + action_dims))
    return horizon * (1 + displaced + 2 * len(_STEP_LENGTHS))


def _second_order_offsets(total: int) -> np.ndarray:
    """Return none, each up, each down, each pair up: shape (M, N)."""
    single = _OFFSET * np.eye(total)
    first, second = np.tril_indices(total, -1)
    return np.concatenate([np.zeros((1, total)), single, -single, single[first] + single[second]])


def _second_order(rewards: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Return gradients (L, N) and curvature (L, N, N) of rewards (L, M) at the offsets."""
    here, up, down, pairs = np.split(rewards, [1, 1 + total, 1 + 2 * total], axis=1)
    curvature = np.zeros((len(rewards), total, total))
    first, second = np.tril_indices(total, -1)
    mixed = (pairs - up[:, first] - up[:, second] + here) / _OFFSET**2
    curvature[:, first, second] = curvature[:, second, first] = mixed
    every = np.arange(total)
    curvature[:, every, every] = (up + down - 2 * here) / _OFFSET**2
    values, vectors = np.linalg.eigh(curvature)
    concave = (vectors * np.minimum(values, 0.0)[:, None]) @ vectors.swapaxes(1, 2)
    return (up - down) / (2 * _OFFSET), concave
