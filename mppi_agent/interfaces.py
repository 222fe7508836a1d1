"""Records and protocols that every part shares: read this file first.

    env --snapshot--> EnvState --Dynamics.rollout--> RolloutBatch --weights--> Plan

Symbols in shapes: N simulations, S start states, K samples per state, H control steps (horizon),
nu controls per step (action dimensions, or categories). `*obs` and `*action` are the env's own
observation and action shapes; a Dict observation is a dict of arrays with the same leading axes.
Actions that enter `Dynamics` are what `env.step` takes, in the env's own units;
`Plan.controls` are normalised to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = [
    "Act",
    "BatchTask",
    "Coordinates",
    "Dynamics",
    "EnvState",
    "Observation",
    "Plan",
    "Policy",
    "RolloutBatch",
    "Simulations",
    "StateAdapter",
    "StepBatch",
    "VectorTask",
]

Observation = np.ndarray | dict[str, np.ndarray]


@dataclass(frozen=True)
class EnvState:
    """Hold everything the future of one env depends on.

    Attributes:
        observation: What the env last returned for this state, shape (*obs).
        physics: Simulator state as one vector, float64, shape (n,); a MuJoCo integration state,
            a classic-control state. Empty when the adapter keeps everything in `extras`.
        extras: What the vector cannot hold: wrapper counters, random generators, Python
            attributes. Opaque to all but the `StateAdapter` that made it; never modified.
    """

    observation: Observation
    physics: np.ndarray
    extras: Any = None


@dataclass(frozen=True)
class StepBatch:
    """Hold what one step of N simulations returned.

    Attributes:
        observations: After the step, shape (N, *obs).
        rewards: The env's own reward, shape (N,).
        terminated: True where the env ended the episode (never for a time limit), shape (N,).
        truncated: True where the env itself cut the episode, shape (N,). Never for a `TimeLimit`
            around it: simulations may look beyond that, and whoever runs episodes counts.
        diverged: True where the physics broke; the other fields are meaningless there, shape (N,).
    """

    observations: Observation
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    diverged: np.ndarray

    @property
    def ended(self) -> np.ndarray:
        """True where a simulation must be restored before its next step, shape (N,)."""
        return self.terminated | self.truncated | self.diverged


@dataclass(frozen=True)
class RolloutBatch:
    """Hold the outcome of S x K open-loop rollouts of H steps.

    Attributes:
        rewards: Shape (S, K, H); 0 after the episode's last step.
        terminated: True where the env ended the episode within the horizon, shape (S, K).
        diverged: True where the physics broke; such a sample must get no weight, shape (S, K).
        lengths: Steps until the end of the episode, or H, shape (S, K).
        final_observations: Last observation of each rollout, shape (S, K, *obs).
        sim_steps: Env steps that were simulated.
        observations: After every step, shape (S, K, H, *obs); None unless asked for.
    """

    rewards: np.ndarray
    terminated: np.ndarray
    diverged: np.ndarray
    lengths: np.ndarray
    final_observations: Observation
    sim_steps: int
    observations: Observation | None = None

    @property
    def is_alive(self) -> np.ndarray:
        """True for the steps that were simulated, the last one included, (S, K, H)."""
        return np.arange(self.rewards.shape[-1]) < self.lengths[..., None]


@dataclass(frozen=True)
class Plan:
    """Hold the best measured plan for each of S start states.

    Attributes:
        controls: Normalised actions in [-1, 1], or scores of categories, shape (S, H, nu).
        best_returns: Measured discounted return of `controls`, and of what they were verified for
            beyond the horizon (`verify_steps`), shape (S,).
        nominal_returns: Measured return of the nominal that planning began with, shape (S,).
        returns: Return of each sample of the last iteration, shape (S, K); -inf if it diverged. On
            the model that the search ran on.
        weights: Importance weight of those samples, shape (S, K), each row summing to 1.
        ess: Effective sample size of the weights, 1 / sum(weights^2), shape (S,).
        temperature: Temperature of the last iteration, reward units, shape (S,).
        diverged: Samples that diverged, over all iterations, shape (S,); those measured again on
            the true model after a search on another one count again.
        sim_steps: Env steps simulated for the whole call.
        samples: Controls of those samples, shape (S, K, H, nu).
        scores: What those samples are ranked by, shape (S, K): `returns`, unless the objective
            holds more than the env's own return.
        feedforward: Controls of the plan before it reacts to anything, in [-1, 1], shape
            (S, H, nu): the same as `controls` where it does not, deviations from a policy where it
            follows one.
        gains: By which the plan reacts to what it observes, shape (S, d, nu); d = 0: it has none.
    """

    controls: np.ndarray
    best_returns: np.ndarray
    nominal_returns: np.ndarray
    returns: np.ndarray
    weights: np.ndarray
    ess: np.ndarray
    temperature: np.ndarray
    diverged: np.ndarray
    sim_steps: int
    samples: np.ndarray
    scores: np.ndarray
    feedforward: np.ndarray
    gains: np.ndarray


class Policy(Protocol):
    """Act as every Stable-Baselines3 model and policy does."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Return one action per row of `observation`, env units, and the recurrent state."""
        ...


class StateAdapter(Protocol):
    """Capture and apply the state of one family of unwrapped envs.

    An adapter sees the innermost env only; wrappers are `Cloneable`'s business.
    """

    name: str

    def matches(self, env: Any) -> bool:
        """Say whether this adapter serves the unwrapped env."""
        ...

    def copy_env(self, env: Any) -> Any:
        """Return a private copy that shares read-only parts and never renders."""
        ...

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return the physics vector, shape (n,), and picklable extras."""
        ...

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Put a captured state back."""
        ...


class Coordinates(Protocol):
    """Say what in the physics vector of a state can be moved a little, for derivatives.

    Attributes:
        size: Numbers of an offset, n; fewer than the vector has, p, where joints rotate freely.
    """

    size: int

    def displaced(self, origin: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return `origin`, shape (p,), moved by offsets of shape (N, n): shape (N, p)."""
        ...

    def differences(self, physics: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Return the offsets, shape (N, n), of vectors of shape (N, p) from `origin`, (p,)."""
        ...


class BatchTask(Protocol):
    """Compute reward, termination and observation of a MuJoCo task for N simulations at once.

    Nothing here truncates: an env with a task is cut by a `TimeLimit` around it, not in its `step`.

    `before` and `after` map MjData field names to arrays with leading axis N, as they stand right
    before the first substep and right after the last one.
    """

    @property
    def before_fields(self) -> tuple[str, ...]:
        """MjData fields that `rewards` reads as they were before the step."""
        ...

    @property
    def after_fields(self) -> tuple[str, ...]:
        """MjData fields that are read after the step."""
        ...

    def observations(self, after: Mapping[str, np.ndarray]) -> Observation:
        """Return observations, shape (N, *obs)."""
        ...

    def rewards(
        self,
        before: Mapping[str, np.ndarray],
        after: Mapping[str, np.ndarray],
        actions: np.ndarray,
    ) -> np.ndarray:
        """Return rewards, shape (N,), for actions of shape (N, nu) in env units."""
        ...

    def terminated(self, after: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return True where the episode ended, shape (N,)."""
        ...


class VectorTask(Protocol):
    """Step N simulations of an env without a simulator library as one array operation.

    `physics` is what the env's `StateAdapter` captures, one row per simulation. Nothing here
    truncates: see `BatchTask`.
    """

    def step(
        self, physics: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Advance by one env step.

        Args:
            physics: Shape (N, n); not modified.
            actions: As `env.step` takes them, shape (N, *action).

        Returns:
            New physics, shape (N, n); observations, shape (N, *obs); rewards, shape (N,); and
            terminated, shape (N,).
        """
        ...


Act = Callable[[int, Observation, np.ndarray], np.ndarray]
"""Map the step (0, 1, ...), the observations of the simulations that still run, leading axis n,
and which of the S x K these are, shape (n,), to their actions in env units, shape (n, *action)."""


class Simulations(Protocol):
    """Run N private simulations together, closed loop."""

    num: int

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        ...

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each.

        A simulation that ended must be restored before its next step.
        """
        ...

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        ...

    def close(self) -> None:
        """Free what the simulations hold."""
        ...


class Dynamics(Protocol):
    """Simulate the env from any captured state, on private copies of it.

    Attributes:
        observation_space: Of the env, as Gymnasium gives it.
        action_space: Of the env, as Gymnasium gives it.
        max_episode_steps: Steps until the env's time limit truncates; None without one.
    """

    observation_space: Any
    action_space: Any
    max_episode_steps: int | None

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution."""
        ...

    def simulations(self, num: int) -> Simulations:
        """Return `num` simulations for closed-loop use; restore them before the first step."""
        ...

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out open loop.

        Args:
            states: S start states.
            actions: In the env's own units, shape (S, K, H, *action).
            keep_observations: Whether to fill `RolloutBatch.observations`.

        Returns:
            The outcome of the S x K rollouts. A time limit does not end a rollout.
        """
        ...

    def close(self) -> None:
        """Free processes, threads and simulations."""
        ...
