"""Rollout backends behind one protocol, and the choice between them."""

from __future__ import annotations

import copy
import os
import warnings
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import Cloneable, find_cloneable, require_cloneable, unpack
from mppi_agent.cloning.noise import drawn_from
from mppi_agent.dynamics.cores import num_cores
from mppi_agent.dynamics.ensemble import EnsembleDynamics
from mppi_agent.dynamics.env_step import EnvStepDynamics
from mppi_agent.dynamics.mujoco_batch import MujocoBatchDynamics
from mppi_agent.dynamics.noise import resample_noise
from mppi_agent.dynamics.process_pool import ProcessPoolDynamics
from mppi_agent.dynamics.tasks import batch_task_of, vector_task_of
from mppi_agent.dynamics.vector import VectorDynamics
from mppi_agent.interfaces import Dynamics, RolloutBatch

__all__ = [
    "EnsembleDynamics",
    "EnvStepDynamics",
    "MujocoBatchDynamics",
    "ProcessPoolDynamics",
    "VectorDynamics",
    "coarse_model_of",
    "make_dynamics",
    "mismatch",
    "sub_env",
]

_AGREEMENT_STEPS = 60
_LIKENESS_STEPS = 10
_AGREEMENT_SAMPLES = 3
_TOLERANCE = 1e-9  # where the env observes in float64
_SINGLE_TOLERANCE = 1e-6  # where it observes in float32


def make_dynamics(env: Any, *, num_workers: int | None = None, noise_draws: int = 1) -> Dynamics:
    """Return the fastest backend that agrees with `env.step`.

    Args:
        env: The `Cloneable` to simulate, or an SB3 `VecEnv` of several that are alike; only read.
        num_workers: Threads or processes; None: one per core. Results do not depend on it.
        noise_draws: What plans may know of the noise of an env that draws some in its steps; 1:
            each sample sees noise of its own, see `resample_noise` for 0 and more.

    Returns:
        The MuJoCo or vectorised batch where there is a task, env-step workers otherwise. The caller
        closes it.

    Raises:
        ValueError: If `num_workers` < 1, or the envs of a `VecEnv` differ.
        NotCloneableError: If a short check finds that clones do not repeat what the env does.
    """
    if num_workers is None:
        num_workers = num_cores()
    if num_workers < 1:
        raise ValueError(f"num_workers must be >= 1 or None (one per core), got {num_workers}")
    cloneable = sub_env(env)
    unwrapped = cloneable.unwrapped
    is_exact = None
    if any(hasattr(unwrapped, name) for name in ("batch_task", "vector_task")):
        is_exact = require_cloneable(cloneable).exact  # others with a task are known to be
    fast = _fast_backend(cloneable, num_workers)
    if fast is not None:
        with closing(EnvStepDynamics(cloneable)) as oracle:
            difference = mismatch(fast, oracle)
        if difference is None:
            try:
                _require_alike(env, fast)
            except BaseException:
                fast.close()
                raise
            return fast
        fast.close()
        warnings.warn(
            f"the vectorised task of {type(unwrapped).__name__} differs from env.step in "
            f"{difference}; using the slower env-step workers",
            stacklevel=2,
        )
    if is_exact is None:
        is_exact = require_cloneable(cloneable).exact
    if is_exact:
        with closing(EnvStepDynamics(cloneable)) as model:
            _require_alike(env, model)
    drawn = drawn_from(cloneable)
    foreseen = sorted(drawn - {"np_random"})
    if foreseen:
        warnings.warn(
            f"steps of {type(unwrapped).__name__} draw from {', '.join(foreseen)}, which "
            "clones repeat, so that plans foresee the noise; let them draw from self.np_random, "
            "which simulations draw anew",
            stacklevel=2,
        )
    several = num_workers > 1 and os.name == "posix"  # whose pipes workers inherit
    slow = ProcessPoolDynamics(cloneable, num_workers) if several else EnvStepDynamics(cloneable)
    return resample_noise(slow, noise_draws) if "np_random" in drawn else slow


def coarse_model_of(dynamics: Dynamics, substeps: int, cure: str) -> Dynamics | None:
    """Return a backend's coarse model, see `MujocoBatchDynamics.coarse`; warn where it has none.

    Args:
        dynamics: The true model.
        substeps: Physics substeps per control step.
        cure: What to do to go without, for the warning.

    Returns:
        The coarse model, which the caller closes; None where the true one must do.
    """
    if isinstance(dynamics, MujocoBatchDynamics):
        return dynamics.coarse(substeps)
    warnings.warn(
        f"a coarse model of {substeps} substeps needs MujocoBatchDynamics, and "
        f"{type(dynamics).__name__} simulates: the true model does it all, which is slower; "
        f"{cure} to say so",
        stacklevel=3,
    )
    return None


def mismatch(
    tested: Dynamics, oracle: Dynamics, seed: int = 0, *, num_steps: int = _AGREEMENT_STEPS
) -> str | None:
    """Compare a backend with the oracle on a few random steps.

    Args:
        tested: The fast backend.
        oracle: The slow one.
        seed: Of start states and actions.
        num_steps: Of each of six rollouts.

    Returns:
        None where observations, rewards and terminations agree; else the first quantity that
        differs, by how much and at which step.
    """
    rng = np.random.default_rng(seed)
    states = oracle.initial_states(2, rng)
    space = oracle.action_space
    actions = _varied_actions(space, (len(states), _AGREEMENT_SAMPLES, num_steps), rng)
    fast = tested.rollout(states, actions, keep_observations=True)
    slow = oracle.rollout(states, actions, keep_observations=True)
    if not np.array_equal(fast.lengths, slow.lengths):
        return f"termination: {fast.lengths.ravel()} steps instead of {slow.lengths.ravel()}"
    alive = np.arange(num_steps) < slow.lengths[..., None]
    observations = _observations(fast, slow)
    is_single = any(theirs.dtype != np.float64 for _, theirs in observations.values())
    tolerance = _SINGLE_TOLERANCE if is_single else _TOLERANCE
    for name, pair in {"rewards": (fast.rewards, slow.rewards), **observations}.items():
        difference = _difference(*pair, alive, tolerance)
        if difference is not None:
            return f"{name} by {difference}"
    return None


def _observations(
    fast: RolloutBatch, slow: RolloutBatch
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the observations of both by name, the entries of a dict one by one."""
    ours, theirs = fast.observations, slow.observations
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {f"observations[{key!r}]": (ours[key], theirs[key]) for key in theirs}
    return {"observations": (np.asarray(ours), np.asarray(theirs))}


def _difference(
    ours: np.ndarray, theirs: np.ndarray, alive: np.ndarray, tolerance: float
) -> str | None:
    """Return by how much two arrays (S, K, H, ...) differ where `alive`, and when; or None."""
    alive = alive.reshape(alive.shape + (1,) * (ours.ndim - 3))
    error = np.abs(np.where(alive, ours.astype(np.float64) - theirs, 0))
    if error.max() <= tolerance * (1 + np.abs(theirs).max()):  # not so for NaN
        return None
    worst = np.nan_to_num(error, nan=np.inf).reshape(-1, error.shape[2], error[0, 0, 0].size)
    return f"{error.max():.3g} at step {int(np.argmax(worst.max(axis=(0, 2))))}"


def _varied_actions(
    space: gym.Space, shape: tuple[int, int, int], rng: np.random.Generator
) -> np.ndarray:
    """Return actions, (S, K, H, *action): uniform, from bound to bound, and held for long."""
    if not isinstance(space, gym.spaces.Box):
        space = copy.deepcopy(space)
        space.seed(int(rng.integers(2**31)))
        return np.array([space.sample() for _ in range(int(np.prod(shape)))]).reshape(
            *shape, *(space.shape or ())
        )
    shares = rng.uniform(size=(*shape, *space.shape))
    shares[:, 1] = shares[:, 1] > 0.5
    shares[:, 2] = shares[:, 2, :1] > 0.5
    return (space.low + shares * (space.high - space.low)).astype(space.dtype)


def sub_env(env: Any, index: int = 0) -> Cloneable:
    """Return the `Cloneable` in an env, or in one of a `VecEnv`'s envs.

    Args:
        env: A Gymnasium env or an SB3 `VecEnv`.
        index: Of the env in the `VecEnv`.

    Returns:
        The `Cloneable` itself where it lives in this process, an exact copy where it does not.

    Raises:
        TypeError: If an env is not wrapped in `Cloneable`.
    """
    if not hasattr(env, "env_method"):
        return find_cloneable(env)
    inner = env.unwrapped
    if hasattr(inner, "envs"):
        cloneables = [find_cloneable(one) for one in inner.envs]
        return cloneables[index]
    if not env.has_attr("packed"):
        raise TypeError(
            "the envs of this VecEnv are not Cloneable; make them with "
            "make_vec_env(env_id, n_envs, wrapper_class=Cloneable)"
        )
    return unpack(env.env_method("packed", indices=[index])[0])


def _other_space(model: Dynamics, oracle: Dynamics) -> str | None:
    """Say in which space two models of the same env differ; None: in neither."""
    for name in ("observation_space", "action_space"):
        ours, theirs = getattr(model, name), getattr(oracle, name)
        if ours != theirs:
            return f"{name} {theirs} instead of {ours}"
    return None


def _require_alike(env: Any, model: Dynamics) -> None:
    """Refuse a `VecEnv` some of whose envs are not what simulates the first of them."""
    if not hasattr(env, "env_method") or getattr(env.unwrapped, "is_uniform", False):
        return
    for index in range(1, env.num_envs):
        with closing(EnvStepDynamics(sub_env(env, index))) as oracle:
            difference = _other_space(model, oracle)
            if difference is None:
                try:
                    difference = mismatch(model, oracle, num_steps=_LIKENESS_STEPS)
                except ValueError as error:  # another class, or other wrappers
                    difference = str(error)
        if difference is not None:
            raise ValueError(
                f"env {index} of the VecEnv is not like env 0, of which simulations are copies: "
                f"{difference}; make them alike, let reset draw what varies "
                "(docs/cloning.md), or pass dynamics=make_dynamics(one_env) all the same"
            )


def _fast_backend(env: Cloneable, num_workers: int) -> Dynamics | None:
    if not env.is_transparent:
        return None
    if hasattr(env.unwrapped, "model"):
        # A batch has one model; fields of it that are part of the state differ between simulations.
        if getattr(env.adapter, "model_fields", ()) or batch_task_of(env.unwrapped) is None:
            return None
        return MujocoBatchDynamics(env, num_threads=num_workers)
    return None if vector_task_of(env.unwrapped) is None else VectorDynamics(env)
