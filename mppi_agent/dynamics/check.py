"""The whole answer to "can I use it with my env?": the clone law, the backend and its speed."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import CloneReport, NotCloneableError, Verdict, check_clones
from mppi_agent.cloning.check import as_cloneable
from mppi_agent.dynamics import make_dynamics
from mppi_agent.interfaces import Dynamics

__all__ = ["check_cloneable"]

_NUM_SAMPLES = 64
_HORIZON = 20
_MEASURE_S = 0.5


def check_cloneable(
    env: gym.Env | str,
    steps: int = 200,
    seed: int = 0,
    tolerance: float = 1e-6,
    num_workers: int | None = None,
) -> CloneReport:
    """Say whether an env can be cloned, what would simulate it, and how fast.

    Args:
        env: An env, wrapped in Cloneable or not, or an id for `gym.make`; left as it was found.
        steps: Steps of the original run, >= 2.
        seed: Of resets and actions.
        tolerance: Largest relative difference that counts as tolerable, >= 0.
        num_workers: Threads or processes of the backend; None: one per core.

    Returns:
        The report of `check_clones`, with backend and speed where planning would be possible.

    Raises:
        ValueError: If `steps` < 2 or `tolerance` < 0.
    """
    if isinstance(env, str):
        made = gym.make(env)
        try:
            return check_cloneable(made, steps, seed, tolerance, num_workers)
        finally:
            made.close()
    report = check_clones(env, steps, seed, tolerance)
    if report.verdict is Verdict.IMPOSSIBLE:
        return report
    try:
        dynamics = make_dynamics(as_cloneable(env), num_workers=num_workers)
    except NotCloneableError as error:
        return replace(report, reason=error.reason)
    try:
        speed = _steps_per_second(dynamics, seed)
    finally:
        dynamics.close()
    return replace(report, backend=type(dynamics).__name__, steps_per_second=speed)


def _steps_per_second(dynamics: Dynamics, seed: int) -> float:
    """Time plans of the usual size from one reset state, after one that warms up."""
    states = dynamics.initial_states(1, np.random.default_rng(seed))
    space = copy.deepcopy(dynamics.action_space)
    space.seed(seed)
    flat = [space.sample() for _ in range(_NUM_SAMPLES * _HORIZON)]
    actions = np.array(flat).reshape(1, _NUM_SAMPLES, _HORIZON, *(space.shape or ()))
    dynamics.rollout(states, actions[:, :2])
    num_steps = 0
    start = time.perf_counter()
    while time.perf_counter() - start < _MEASURE_S:
        num_steps += dynamics.rollout(states, actions).sim_steps
    return num_steps / (time.perf_counter() - start)
