"""What a policy lends the expert: what it would do, plans in closed loop, and values.

observations --as the policy saw them in training--> predict --> normalised controls
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mppi_agent.dynamics.ensemble import first_member
from mppi_agent.dynamics.rollout import ClosedLoop
from mppi_agent.interfaces import Dynamics, EnvState, Observation, Policy
from mppi_agent.planning import ActionScaling, LeafValue

__all__ = ["Guide"]


class Guide:
    """Ask a policy about states that the expert simulates.

    Args:
        policy: Any SB3 model, or what has its `predict`.
        env: The expert's env; its `VecNormalize` serves a policy that has no env of its own.
        scaling: What controls mean as actions of the env.
        dynamics: Simulates the policy's plans; the caller closes it.
    """

    def __init__(
        self, policy: Policy, env: Any, scaling: ActionScaling, dynamics: Dynamics
    ) -> None:
        self._policy = policy
        self._env = env
        self._scaling = scaling
        self._loop = ClosedLoop(first_member(dynamics))  # the same plans, whichever env they are of

    @property
    def leaf_value(self) -> LeafValue | None:
        """Return the policy's values for the end of plans; None: it has none, or none yet."""
        value: LeafValue | None = getattr(self._policy, "leaf_value", None)
        if value is None or _has_own_env(self._policy):
            return value
        # It cannot know how the env of its training showed itself.
        return replace(value, predict=lambda seen: value.predict(self._shown(seen)))

    def controls(self, observations: Observation) -> np.ndarray:
        """Return what the policy would do, normalised, one row per observation."""
        actions, _ = self._policy.predict(self._shown(observations), deterministic=True)
        return self._scaling.to_normalised(actions)

    def plans(
        self,
        states: Sequence[EnvState],
        shape: tuple[int, int],
        noise_std: float,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, int]:
        """Run the policy closed loop from each state, the first time without noise.

        Args:
            states: S start states.
            shape: Plans per state and control steps, (P, H).
            noise_std: Of what is added at each step, half-range units.
            rng: Source of it.

        Returns:
            Normalised controls, 0 after the end of an episode, shape (S, P, H, nu); and the env
            steps simulated.
        """
        (per_state, horizon), action_dims = shape, self._scaling.action_dims
        num = len(states) * per_state
        controls = np.zeros((num, horizon, action_dims))
        std = np.where(np.arange(num) % per_state == 0, 0.0, noise_std)[:, None]

        def act(step: int, observations: Observation, running: np.ndarray) -> np.ndarray:
            noise = rng.standard_normal((num, action_dims)) * std
            chosen = self._scaling.snap(self.controls(observations) + noise[running])
            controls[running, step] = chosen
            return self._scaling.to_env(chosen)

        rollout = self._loop(states, shape, act)
        return controls.reshape(len(states), per_state, horizon, action_dims), rollout.sim_steps

    def close(self) -> None:
        """Free the simulations."""
        self._loop.close()

    def _shown(self, observations: Observation) -> Observation:
        """Return what the policy would see: as its own VecNormalize shows it, or the env's."""
        find = getattr(self._policy, "get_vec_normalize_env", None)
        normalizer = find() if find is not None else None
        if normalizer is None and not _has_own_env(self._policy):
            normalizer = self._env if hasattr(self._env, "normalize_obs") else None
        return observations if normalizer is None else normalizer.normalize_obs(observations)


def _has_own_env(policy: Any) -> bool:
    """Say whether an SB3 model knows the env that it was trained in, and thus how it sees it."""
    find = getattr(policy, "get_env", None)
    return find is not None and find() is not None
