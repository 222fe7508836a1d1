"""An in-memory simulator for the planner's tests, with a closed-form optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mppi_agent.interfaces import EnvState, RolloutBatch, StepBatch


def make_states(points: np.ndarray) -> list[EnvState]:
    return [EnvState(observation=point, physics=np.array(point)) for point in points]


@dataclass
class LinearQuadratic:
    """x' = A x + B u, reward -(x'^T Q x' + u^T R u); optionally rough, fatal or breaking.

    `terminate_at` and `diverge_at` bound |x[0]|: beyond, the episode ends or the physics breaks.
    """

    a: np.ndarray
    b: np.ndarray
    q: np.ndarray
    r: np.ndarray
    ripple: float = 0.0
    terminate_at: float = np.inf
    diverge_at: float = np.inf
    calls: list[np.ndarray] = field(default_factory=list)

    def rollout(
        self, states: Sequence[EnvState], actions: np.ndarray, *, keep_observations: bool = False
    ) -> RolloutBatch:
        self.calls.append(actions.copy())
        num_states, num_samples, horizon, _ = actions.shape
        x = np.repeat(np.stack([s.physics for s in states])[:, None], num_samples, axis=1)
        rewards = np.zeros((num_states, num_samples, horizon))
        lengths = np.full((num_states, num_samples), horizon)
        terminated = np.zeros((num_states, num_samples), dtype=bool)
        diverged = np.zeros((num_states, num_samples), dtype=bool)
        seen = []
        for h in range(horizon):
            u = actions[:, :, h]
            x = x @ self.a.T + u @ self.b.T
            reward = -np.einsum("ski,ij,skj->sk", x, self.q, x)
            reward -= np.einsum("ski,ij,skj->sk", u, self.r, u)
            reward += self.ripple * np.cos(7 * x[..., 0])
            rewards[:, :, h] = np.where(terminated, 0.0, reward)
            ends = ~terminated & (np.abs(x[..., 0]) > self.terminate_at)
            lengths[ends] = h + 1
            terminated |= ends
            diverged |= np.abs(x[..., 0]) > self.diverge_at
            seen.append(x)
        rewards[diverged] = np.nan
        return RolloutBatch(
            rewards=rewards,
            terminated=terminated,
            diverged=diverged,
            lengths=lengths,
            final_observations=x,
            sim_steps=int(lengths.sum()),
            observations=np.stack(seen, axis=2) if keep_observations else None,
        )

    def optimum(self, start, horizon):
        """Return the best controls (H, nu) and their return, by least squares in closed form."""
        dims, nu = self.b.shape
        free = np.concatenate(
            [np.linalg.matrix_power(self.a, h + 1) @ start for h in range(horizon)]
        )
        response = np.zeros((horizon * dims, horizon * nu))
        for h in range(horizon):
            for j in range(h + 1):
                block = np.linalg.matrix_power(self.a, h - j) @ self.b
                response[h * dims : (h + 1) * dims, j * nu : (j + 1) * nu] = block
        q, r = np.kron(np.eye(horizon), self.q), np.kron(np.eye(horizon), self.r)
        controls = -np.linalg.solve(response.T @ q @ response + r, response.T @ q @ free)
        path = free + response @ controls
        best_return = -(path @ q @ path + controls @ r @ controls)
        return controls.reshape(horizon, nu), best_return


class Simulated:
    """A linear-quadratic problem that can be stepped."""

    def __init__(self, problem):
        self._problem = problem
        self.num = 0

    def close(self):
        self.num = 0

    def rollout(self, states, actions, **kwargs):
        return self._problem.rollout(states, actions, **kwargs)

    def simulations(self, num):
        own = Simulated(self._problem)
        own.num, own.x = num, np.zeros((num, len(self._problem.a)))
        return own

    def restore(self, states, indices=None):
        where = slice(None) if indices is None else indices
        self.x[where] = [state.physics for state in states]

    def snapshot(self, indices=None):
        return make_states(self.x if indices is None else self.x[indices])

    def step(self, actions, indices=None):
        where = np.arange(self.num) if indices is None else indices
        p = self._problem
        self.x[where] = x = self.x[where] @ p.a.T + actions @ p.b.T
        rewards = -np.einsum("ni,ij,nj->n", x, p.q, x) - np.einsum(
            "ni,ij,nj->n", actions, p.r, actions
        )
        terminated = np.abs(x[:, 0]) > p.terminate_at
        never = np.zeros(len(x), bool)
        return StepBatch(x.copy(), rewards, terminated, never, never)


def double_integrator(**changes) -> LinearQuadratic:
    return LinearQuadratic(
        a=np.array([[1.0, 0.3], [0.0, 1.0]]),
        b=np.array([[0.0], [0.3]]),
        q=np.diag([1.0, 0.1]),
        r=np.array([[0.5]]),
        **changes,
    )


def random_problem(rng: np.random.Generator) -> LinearQuadratic:
    num_states, nu = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    return LinearQuadratic(
        a=np.eye(num_states) + 0.2 * rng.standard_normal((num_states, num_states)),
        b=0.3 * rng.standard_normal((num_states, nu)),
        q=np.eye(num_states),
        r=0.05 * np.eye(nu),
        ripple=float(rng.uniform(0, 2)),
        terminate_at=float(rng.uniform(0.5, 3)),
        diverge_at=float(rng.uniform(2, 6)),
    )
