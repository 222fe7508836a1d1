"""Plans that react: control = feedforward + feedback of what is observed.

parameters (S, K, H + d, nu) --closed loop--> controls that were done (S, K, H, nu), RolloutBatch

The first H rows of the parameters are the feedforward controls, the last d the gains of reflexes,
which are searched with them. A plan that follows a policy has no gains, its feedforward is what it
does differently. Without feedback parameters are controls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mppi_agent.interfaces import Act, Dynamics, EnvState, Observation, RolloutBatch
from mppi_agent.planning.actions import ActionScaling

__all__ = ["ClosedLoopRollout", "Feedback", "Following", "OpenLoop", "Reacting", "Reflexes", "Roll"]

_FITTED_STATES, _FITTED_PLANS = 8, 8
_LARGEST = 5.0  # of a feature, so that a plan gone astray does not react without bound


class ClosedLoopRollout(Protocol):
    """Roll out one model whose actions answer to what they observe."""

    def __call__(
        self,
        states: Sequence[EnvState],
        shape: tuple[int, int],
        act: Act,
        *,
        keep_observations: bool,
    ) -> RolloutBatch:
        """Return the outcome of (K, H) = `shape` samples and steps from each state."""
        ...

    def close(self) -> None:
        """Free the simulations; the next rollout makes new ones."""
        ...


class Feedback(Protocol):
    """Say how plans react to what they observe."""

    @property
    def dims(self) -> int:
        """Return d, the number of gains per control that are searched; 0: none."""
        ...

    @property
    def closed_loop(self) -> Callable[[Dynamics], ClosedLoopRollout]:
        """Return what makes a closed loop on a model."""
        ...

    def controls(self, observations: Observation, gains: np.ndarray) -> np.ndarray:
        """Return what joins the feedforward controls, shape (N, nu).

        Args:
            observations: With leading axis N.
            gains: Of each row, shape (N, d, nu).
        """
        ...


@dataclass(frozen=True, eq=False)
class Following:
    """Do what a policy does, plus the plan: a search for what to do differently.

    Plans stay where the policy knows its way, and it goes on by itself where their noise has faded.

    Attributes:
        policy: Maps observations with leading axis N to normalised controls, shape (N, nu).
        closed_loop: Makes what runs the closed loop on a model.

    Source: Bertsekas 2020, "Rollout, policy iteration, and distributed reinforcement learning"
        (a base policy goes on after what is decided now); Silver et al. 2018, "Residual policy
        learning", whose residual is learnt, not planned.
    """

    policy: Callable[[Observation], np.ndarray]
    closed_loop: Callable[[Dynamics], ClosedLoopRollout]
    dims = 0

    def controls(self, observations: Observation, gains: np.ndarray) -> np.ndarray:
        """Return what the policy does, shape (N, nu)."""
        return self.policy(observations)


@dataclass(frozen=True, eq=False)
class Reflexes:
    """React to observations, centred and scaled, and to a constant 1, by gains.

    Attributes:
        centre: Of observations, shape (n,).
        scale: Standard deviation of observations, shape (n,); where it is 0, the number is left
            out of account.
        closed_loop: Makes what runs the closed loop on a model.
    """

    centre: np.ndarray
    scale: np.ndarray
    closed_loop: Callable[[Dynamics], ClosedLoopRollout]

    @classmethod
    def fitted_to(
        cls,
        dynamics: Dynamics,
        scaling: ActionScaling,
        horizon: int,
        closed_loop: Callable[[Dynamics], ClosedLoopRollout],
    ) -> Reflexes:
        """Centre and scale by what random plans see; the same for the same env.

        Args:
            dynamics: Simulates them.
            scaling: What controls mean as actions of the env.
            horizon: Control steps of the plans.
            closed_loop: Makes what runs the closed loop on a model.

        Raises:
            ValueError: If observations are no vectors.
        """
        space = dynamics.observation_space
        if len(space.shape or ()) != 1:  # the shape of a Dict is None
            raise ValueError(
                f"reflex_std > 0 needs observations that are vectors, got {space}; use "
                "reflex_std=0, or gymnasium.wrappers.FlattenObservation"
            )
        rng = np.random.default_rng(0)
        states = dynamics.initial_states(_FITTED_STATES, rng)
        shape = (_FITTED_STATES, _FITTED_PLANS, horizon, scaling.action_dims)
        controls = scaling.snap(rng.uniform(-1.0, 1.0, shape))
        seen = dynamics.rollout(states, scaling.to_env(controls), keep_observations=True)
        is_sound = seen.is_alive & ~seen.diverged[..., None]
        rows = np.asarray(seen.observations)[is_sound].astype(np.float64)  # (M, n)
        return cls(rows.mean(axis=0), rows.std(axis=0), closed_loop)

    @property
    def dims(self) -> int:
        """Return d, the number of gains per control."""
        return len(self.centre) + 1

    def features(self, observations: Observation) -> np.ndarray:
        """Return what gains are multiplied with, shape (N, d), of observations of shape (N, n)."""
        is_varied = self.scale > 0
        scaled = (np.asarray(observations) - self.centre) / np.where(is_varied, self.scale, 1.0)
        clipped = np.clip(np.where(is_varied, scaled, 0.0), -_LARGEST, _LARGEST)
        return np.concatenate([clipped, np.ones((len(clipped), 1))], axis=1)

    def controls(self, observations: Observation, gains: np.ndarray) -> np.ndarray:
        """Return features times gains, shape (N, nu)."""
        return (self.features(observations)[:, None] @ gains)[:, 0]


class Roll(Protocol):
    """Do what parameters say on one model."""

    def __call__(
        self, states: Sequence[EnvState], parameters: np.ndarray, *, keep_observations: bool
    ) -> tuple[np.ndarray, np.ndarray, RolloutBatch]:
        """Return the controls, (S, K, H, nu), the actions, (S, K, H, *action), and the outcome."""
        ...

    def close(self) -> None:
        """Free what it simulates in; the model stays open."""
        ...


class OpenLoop:
    """Do the controls, whatever is observed.

    Args:
        dynamics: The model.
        scaling: What controls mean as actions of the env.
    """

    def __init__(self, dynamics: Dynamics, scaling: ActionScaling) -> None:
        self._dynamics = dynamics
        self._scaling = scaling

    def __call__(
        self, states: Sequence[EnvState], parameters: np.ndarray, *, keep_observations: bool
    ) -> tuple[np.ndarray, np.ndarray, RolloutBatch]:
        """Return controls, which the parameters are, actions and outcome."""
        actions = self._scaling.to_env(parameters)
        if keep_observations:
            return (
                parameters,
                actions,
                self._dynamics.rollout(states, actions, keep_observations=True),
            )
        return parameters, actions, self._dynamics.rollout(states, actions)

    def close(self) -> None:
        """Do nothing: the model simulates."""


class Reacting:
    """React to what is observed at every step.

    Args:
        dynamics: The model.
        scaling: What controls mean as actions of the env.
        feedback: How plans react.
    """

    def __init__(self, dynamics: Dynamics, scaling: ActionScaling, feedback: Feedback) -> None:
        self._rollout = feedback.closed_loop(dynamics)
        self._scaling = scaling
        self._feedback = feedback

    def __call__(
        self, states: Sequence[EnvState], parameters: np.ndarray, *, keep_observations: bool
    ) -> tuple[np.ndarray, np.ndarray, RolloutBatch]:
        """Return controls as they were done, 0 after a rollout's end, actions and outcome."""
        num_states, num_samples, rows, action_dims = parameters.shape
        total, horizon = num_states * num_samples, rows - self._feedback.dims
        flat = parameters.reshape(total, rows, action_dims)
        feedforward, gains = flat[:, :horizon], flat[:, horizon:]
        controls = np.zeros((total, horizon, action_dims))

        def react(step: int, observations: Observation, running: np.ndarray) -> np.ndarray:
            own = gains if len(running) == total else gains[running]
            reaction = self._feedback.controls(observations, own)
            chosen = self._scaling.snap(feedforward[running, step] + reaction)
            controls[running, step] = chosen
            return self._scaling.to_env(chosen)

        rollout = self._rollout(
            states, (num_samples, horizon), react, keep_observations=keep_observations
        )
        controls = controls.reshape(num_states, num_samples, horizon, action_dims)
        return controls, self._scaling.to_env(controls), rollout

    def close(self) -> None:
        """Free the simulations."""
        self._rollout.close()
