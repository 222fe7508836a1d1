"""The planners of the duel behind one verb, `act`, and the settings that each may run with.

EnvState --act--> normalised controls; every planner simulates `Task.rollouts` plans on the way
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from pytorch_mppi_planner import PytorchMPPI
from reference_planners import CEM, ICEM, PredictiveSampling

from mppi_agent import MPPIAgent, MPPIConfig
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import make_dynamics
from mppi_agent.expert import action_scaling
from mppi_agent.interfaces import Dynamics, EnvState
from mppi_agent.planning import ActionScaling, discounted_returns

__all__ = [
    "PLANNERS",
    "TUNABLE",
    "Planner",
    "Settings",
    "Task",
    "grid",
    "make_planner",
    "open_task",
    "published_settings",
    "shorter",
]

Settings = dict[str, Any]
_ICEM_BETAS = {"HalfCheetah-v5": 0.25, "HumanoidStandup-v5": 2.0}  # published for these two
_SCALE_SEED = 10_000
_FEWEST_ROLLOUTS = 16
_SHORTEST = 5


class Planner(Protocol):
    """Choose what to do in a state, and remember what helps in the next."""

    sim_steps: int

    def act(self, state: EnvState) -> np.ndarray:
        """Return normalised controls, shape (nu,)."""
        ...


@dataclass(frozen=True)
class Task:
    """Hold what all planners get in common.

    Attributes:
        env: To act in and to plan for.
        dynamics: Simulates it.
        scaling: What controls mean as its actions.
        budget: Env steps to simulate per control step.
        horizon: Control steps of a plan.
    """

    env: Cloneable
    dynamics: Dynamics
    scaling: ActionScaling
    budget: int
    horizon: int

    @property
    def rollouts(self) -> int:
        """Return the rollouts per control step that the budget pays for."""
        return self.budget // self.horizon


def open_task(env_id: str, budget: int, horizon: int | None = None) -> Task:
    """Return what all planners share in one env, on one thread.

    Args:
        env_id: Of the env.
        budget: Env steps to simulate per control step.
        horizon: Control steps of a plan; None: our preset's, or fewer, so that the budget pays for
            16 plans.
    """
    if horizon is None:
        horizon = min(MPPIConfig.for_env(env_id).horizon, budget // _FEWEST_ROLLOUTS)
    env = Cloneable(gym.make(env_id))
    env.reset(seed=0)
    return Task(
        env=env,
        dynamics=make_dynamics(env, num_workers=1),
        scaling=action_scaling(env.action_space),
        budget=budget,
        horizon=horizon,
    )


class Ours:
    """Act with `MPPIAgent` as a user gets it, its number of samples fitted to the budget."""

    def __init__(self, task: Task, seed: int, settings: Settings) -> None:
        config = _our_config(task, settings)
        self._agent = MPPIAgent(task.env, config, seed=seed, dynamics=task.dynamics)
        self._task = task
        self._memory: tuple[np.ndarray, ...] | None = None

    @property
    def sim_steps(self) -> int:
        """Return the env steps simulated so far."""
        return self._agent.sim_steps

    def act(self, state: EnvState) -> np.ndarray:
        """Return normalised controls, shape (nu,)."""
        action, self._memory = self._agent.predict(state.observation, self._memory)
        return self._task.scaling.to_normalised(action)


class Reference:
    """Give a reference planner the simulator as an objective."""

    def __init__(self, planner: Any, task: Task) -> None:
        self._planner = planner
        self._task = task
        self.sim_steps = 0

    def act(self, state: EnvState) -> np.ndarray:
        """Return normalised controls, shape (nu,)."""

        def objective(controls: np.ndarray) -> np.ndarray:
            actions = self._task.scaling.to_env(controls[None])
            rollout = self._task.dynamics.rollout([state], actions)
            self.sim_steps += rollout.sim_steps
            return discounted_returns(rollout, discount=1.0)[0]

        return self._planner.act(objective)


def _reference(kind: Any) -> Callable[[Task, int, Settings], Planner]:
    def make(task: Task, seed: int, settings: Settings) -> Planner:
        rng = np.random.default_rng(seed)
        dims = task.scaling.action_dims
        return Reference(kind(task.horizon, dims, task.rollouts, rng, **settings), task)

    return make


def _pytorch_mppi(task: Task, seed: int, settings: Settings) -> Planner:
    simulations = task.dynamics.simulations(task.rollouts)
    return PytorchMPPI(simulations, task.scaling, task.horizon, seed=seed, **settings)


def _our_config(task: Task, settings: Settings) -> MPPIConfig:
    # A step of a coarse model would count like a true one, so all planners search on the true one.
    config = MPPIConfig.for_env(task.env).resized(horizon=task.horizon)
    config = replace(config, **{"search_substeps": None, **settings})
    sampled = task.budget
    if config.lqr_steps and task.budget >= 2 * _FEWEST_ROLLOUTS * config.horizon:
        sampled //= 2  # the rest is for derivatives
    return replace(config.fitted_to(sampled), budget_steps=task.budget)


MAKERS: Mapping[str, Callable[[Task, int, Settings], Planner]] = {
    "ours": Ours,
    "pytorch_mppi": _pytorch_mppi,
    "predictive_sampling": _reference(PredictiveSampling),
    "cem": _reference(CEM),
    "icem": _reference(ICEM),
}
TUNABLE = ("pytorch_mppi", "predictive_sampling", "icem")
PLANNERS = (*MAKERS, *(f"{name}:tuned" for name in TUNABLE))


def make_planner(name: str, task: Task, seed: int, settings: Settings) -> Planner:
    """Return a planner at the start of an episode.

    Args:
        name: One of `PLANNERS`.
        task: What it plans for.
        seed: Of its noise.
        settings: Keyword arguments of the planner that differ from its defaults, and `horizon`
            where it differs from the task's.
    """
    own = dict(settings)
    task = replace(task, horizon=own.pop("horizon", task.horizon))
    return MAKERS[name.partition(":")[0]](task, seed, own)


def published_settings(name: str, env_id: str) -> Settings:
    """Return what a planner was published with, where that is not its default."""
    return {"beta": _ICEM_BETAS[env_id]} if name == "icem" and env_id in _ICEM_BETAS else {}


def grid(task: Task, planners: Sequence[str]) -> Iterator[tuple[str, Settings]]:
    """Yield the settings to try for each planner that is to be tuned."""
    if "pytorch_mppi" in planners:
        scale = return_scale(task)
        for noise_std in (0.25, 0.5, 1.0):
            for share in (0.01, 0.1, 1.0):
                temperature = float(f"{share * scale:.2g}")
                yield "pytorch_mppi", {"noise_std": noise_std, "temperature": temperature}
    if "predictive_sampling" in planners:
        for noise_std in (0.1, 0.3, 0.6):
            for num_samples in (10, task.rollouts):
                yield "predictive_sampling", {"noise_std": noise_std, "num_samples": num_samples}
    if "icem" in planners:
        for beta in (0.25, 1.0, 2.0, 3.0):
            yield "icem", {"beta": beta}


def shorter(task: Task, settings: Settings) -> Iterator[Settings]:
    """Yield settings with half and a quarter of the task's horizon: more plans, less foresight."""
    for part in (2, 4):
        yield {**settings, "horizon": max(task.horizon // part, _SHORTEST)}


def return_scale(task: Task) -> float:
    """Return by how much the returns of random plans differ, for temperatures to scale with."""
    rng = np.random.default_rng(_SCALE_SEED)
    states = task.dynamics.initial_states(8, rng)
    noise = rng.standard_normal((8, 64, task.horizon, task.scaling.action_dims))
    rollout = task.dynamics.rollout(states, task.scaling.to_env(np.clip(0.5 * noise, -1, 1)))
    returns = discounted_returns(rollout, discount=1.0)
    spread = np.median(np.std(np.where(np.isfinite(returns), returns, 0.0), axis=1))
    return max(float(spread), 1e-6)
