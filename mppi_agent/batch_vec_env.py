"""The batch of simulations as a Stable-Baselines3 `VecEnv`: any SB3 algorithm trains on it.

actions (N, *action) --Simulations.step--> ends, auto-resets --> observations, rewards, dones, infos
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from mppi_agent.cloning import Cloneable
from mppi_agent.cloning.mujoco import MujocoAdapter
from mppi_agent.dynamics import make_dynamics
from mppi_agent.dynamics.mujoco_batch import MujocoSimulations
from mppi_agent.dynamics.observations import (
    copy_observations,
    select_rows,
    stack_observations,
    write_rows,
)
from mppi_agent.dynamics.rollout import validate_actions
from mppi_agent.env_ids import make_env
from mppi_agent.interfaces import Dynamics

__all__ = ["BatchVecEnv"]

_STATES = ("snapshot", "packed")  # methods of `Cloneable` that hand on the state itself


class BatchVecEnv(VecEnv):
    """Step N simulations of one env together, for any Stable-Baselines3 algorithm.

    It behaves as a `DummyVecEnv` of N `Monitor`ed envs does, with two differences. `infos` hold
    what SB3 reads (`TimeLimit.truncated`, `terminal_observation`, `episode`), not the env's own
    keys. And a simulation that diverges is cut: reward 0, its last sound observation as the
    terminal one, truncated (so that its value is bootstrapped), `info["diverged"]` True.

    Every episode starts by a reset of its own, from the random generator of its own simulation.
    No start is kept for later use: starts follow the env's reset distribution exactly, and equal
    those of `DummyVecEnv` with the same seeds.

    Args:
        env: An env id or a Gymnasium env, which is copied and left alone.
        n_envs: Simulations, N.
        dynamics: Simulates; None: the fastest exact backend. The caller closes one handed in, such
            as an ensemble of perturbed models, on which a policy learns to cope with all of them.
        seed: Of the resets; None: not reproducible. `seed()` works, too, as on any `VecEnv`.

    Raises:
        ValueError: If `n_envs` < 1, or `dynamics` is of an env with other spaces.
        NotCloneableError: If the env cannot be cloned.
    """

    is_uniform = True  # N simulations of one env, which cannot differ

    def __init__(
        self,
        env: str | gym.Env,
        n_envs: int,
        *,
        dynamics: Dynamics | None = None,
        seed: int | None = None,
    ) -> None:
        if n_envs < 1:
            raise ValueError(f"n_envs must be >= 1, got {n_envs}")
        self._env = _private_copy(env)
        _require_same_spaces(self._env, dynamics)
        self._owns_dynamics = dynamics is None
        # Nothing is planned here, so each simulation may draw what its own env would draw.
        self._dynamics = dynamics or make_dynamics(self._env, noise_draws=0)
        self._simulations = self._dynamics.simulations(n_envs)
        self._has_states = False
        self._observations = _zeros(self._env.observation_space, n_envs)
        self._actions = np.zeros(0)
        self._lengths = np.zeros(n_envs, dtype=np.int64)
        self._returns = np.zeros(n_envs)
        self._start_s = time.time()
        super().__init__(n_envs, self._env.observation_space, self._env.action_space)
        # Without seeds the first resets would draw from one and the same generator.
        self._seeds = np.random.default_rng(seed).integers(2**31, size=n_envs).tolist()

    def reset(self) -> Any:
        """Start an episode in every simulation, with the seeds and options given before."""
        self._restart(range(self.num_envs), self._seeds, self._options)
        self._reset_seeds()
        self._reset_options()
        self._has_states = True
        return copy_observations(self._observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions of the next step, env units, shape (N, *action)."""
        self._actions = validate_actions(actions, self.action_space, 1, num=self.num_envs)

    def step_wait(self) -> VecEnvStepReturn:
        """Step all simulations; what ended starts anew at once."""
        if not self._has_states:
            raise RuntimeError("this BatchVecEnv has no state yet: call reset() before step()")
        step = self._simulations.step(self._actions)
        sound = ~step.diverged
        if sound.all():
            write_rows(self._observations, slice(None), step.observations)
        else:
            write_rows(self._observations, sound, select_rows(step.observations, sound))
        rewards = np.where(sound, step.rewards, 0.0)
        terminated = step.terminated & sound
        self._returns += rewards
        self._lengths += 1
        limit = self._dynamics.max_episode_steps
        is_late = np.zeros_like(sound) if limit is None else self._lengths >= limit
        dones = step.ended | is_late
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        ended = np.flatnonzero(dones).tolist()
        for index in ended:
            infos[index] = {
                "TimeLimit.truncated": not terminated[index],
                "terminal_observation": copy_observations(select_rows(self._observations, index)),
                "episode": self._episode(index),
            }
            if step.diverged[index]:
                infos[index]["diverged"] = True
        if ended:
            nothing = [None] * self.num_envs
            self._restart(ended, nothing, nothing)
        return copy_observations(self._observations), rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Free the simulations."""
        self._simulations.close()
        if self._owns_dynamics:
            self._dynamics.close()
        self._env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Read an attribute of the env as it is in the state of each simulation.

        Arrays are copies; other objects belong to the one env that visits all states in turn.
        """
        return [
            _own(self._visit(i, attr_name).get_wrapper_attr(attr_name))
            for i in self._get_indices(indices)
        ]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: simulations are no env objects that could take an attribute.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"cannot set {attr_name!r} in a batch of simulations; set it on the env that you pass: "
            "BatchVecEnv(env, n_envs)"
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of the env in the state of each simulation, which stays as it is."""
        return [
            _own(
                self._visit(i, method_name).get_wrapper_attr(method_name)(
                    *method_args, **method_kwargs
                )
            )
            for i in self._get_indices(indices)
        ]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Say whether the env has a wrapper; `Monitor` counts, for its work is done here."""
        has_it = wrapper_class is Monitor or is_wrapped(self._env, wrapper_class)
        return [has_it for _ in self._get_indices(indices)]

    def _restart(
        self, indices: Sequence[int], seeds: Sequence[int | None], options: Sequence[Any]
    ) -> None:
        """Reset simulations as each one's own env would."""
        chosen = np.asarray(indices)
        before = self._simulations.snapshot(chosen) if self._has_states else []
        starts = []
        for place, index in enumerate(indices):
            if before:  # each simulation carries on with a random generator of its own
                self._env.restore(before[place])
            _, info = self._env.reset(seed=seeds[index], options=options[index] or None)
            self.reset_infos[index] = info
            starts.append(self._env.snapshot())
        self._simulations.restore(starts, chosen)
        write_rows(
            self._observations, chosen, stack_observations([start.observation for start in starts])
        )
        self._lengths[chosen] = 0
        self._returns[chosen] = 0.0

    def _episode(self, index: int) -> dict[str, Any]:
        """Return what `Monitor` reports at the end of an episode."""
        return {
            "r": round(float(self._returns[index]), 6),
            "l": int(self._lengths[index]),
            "t": round(time.time() - self._start_s, 6),
        }

    def _visit(self, index: int, asked: str) -> Cloneable:
        """Return the private copy, in the state of one simulation once there is one."""
        if self._has_states:
            self._env.restore(self._simulations.snapshot(np.array([index]))[0])
            # The snapshot of a batch has positions, but not all that follows from them. It is exact
            # as it is, with what lags behind the positions, and must be handed on so.
            is_batch = isinstance(self._simulations, MujocoSimulations)
            if is_batch and asked not in _STATES and isinstance(self._env.adapter, MujocoAdapter):
                self._env.adapter.begin_step(self._env.unwrapped)
        return self._env


def _own(value: Any) -> Any:
    """Return a copy of an array, which a later visit would change."""
    return value.copy() if isinstance(value, np.ndarray) else value


def _private_copy(env: str | gym.Env) -> Cloneable:
    if isinstance(env, str):
        made = make_env(env)
        copy = Cloneable(made).private_copy()
        made.close()
        return copy
    return (env if isinstance(env, Cloneable) else Cloneable(env)).private_copy()


def _require_same_spaces(env: Cloneable, dynamics: Dynamics | None) -> None:
    if dynamics is None:
        return
    for name in ("observation_space", "action_space"):
        ours, theirs = getattr(env, name), getattr(dynamics, name)
        if ours != theirs:
            raise ValueError(
                f"dynamics has {name} {theirs}, env has {ours}; make both from the same env"
            )


def _zeros(space: gym.Space, num: int) -> Any:
    """Return room for `num` observations, in the dtypes of the space."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _zeros(part, num) for key, part in space.items()}
    return np.zeros((num, *(space.shape or ())), space.dtype)
