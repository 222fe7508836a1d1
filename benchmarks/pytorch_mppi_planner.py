"""pytorch_mppi on our simulations: its dynamics function steps them, its cost is their reward.

EnvState --restore--> K simulations <--step by step-- pytorch_mppi --> the action to take
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from mppi_agent.bench import Recording, alternate, timed
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import EnvStepDynamics, make_dynamics
from mppi_agent.expert import action_scaling
from mppi_agent.interfaces import EnvState, Simulations
from mppi_agent.planning import MPPI, ActionScaling, MPPIConfig

__all__ = ["PytorchMPPI", "plan_seconds"]

_DIVERGED_COST = 1e9  # infinity would make every weight NaN where all samples diverge


class PytorchMPPI:
    """Act with pytorch_mppi, whose plans run on simulations of ours.

    A simulation that terminated costs nothing from then on. Controls are normalised to [-1, 1].

    Args:
        simulations: K of them; every call simulates all of them once.
        scaling: What controls mean as actions of the env.
        horizon: Control steps of a plan, H.
        seed: Of the torch generator, which is a global one because the package knows no other.
        noise_std: Of each control, > 0. The package has no default for it; 1 is its examples'
            identity.
        temperature: Its `lambda_`, reward units.
        samples: Controls to weigh instead of noisy ones, shape (K, H, nu); None draws noise.

    Attributes:
        sim_steps: Env steps simulated so far.
        mppi: The planner of the package.

    Raises:
        ImportError: If pytorch_mppi is missing.
    """

    def __init__(
        self,
        simulations: Simulations,
        scaling: ActionScaling,
        horizon: int,
        *,
        seed: int = 0,
        noise_std: float = 1.0,
        temperature: float = 1.0,
        samples: np.ndarray | None = None,
    ) -> None:
        try:
            from pytorch_mppi import MPPI as PackageMPPI
            from pytorch_mppi.mppi import SpecificActionSampler
        except ImportError as error:
            raise ImportError(
                "this comparison needs pytorch_mppi: pip install pytorch_mppi"
            ) from error
        sampler = None
        if samples is not None:
            given = torch.as_tensor(samples, dtype=torch.float64)

            class Given(SpecificActionSampler):
                def sample_trajectories(self, state: Any, info: Any) -> torch.Tensor:
                    return given

            sampler = Given()
        torch.manual_seed(seed)
        nu = scaling.action_dims
        self._simulations = simulations
        self._scaling = scaling
        self._state: EnvState | None = None
        self._running = np.arange(simulations.num)
        self._costs = torch.zeros(simulations.num, dtype=torch.float64)
        self.sim_steps = 0
        self.mppi = PackageMPPI(
            self._dynamics,
            lambda observations, controls, step: self._costs,
            1,
            torch.eye(nu, dtype=torch.float64) * noise_std**2,
            num_samples=simulations.num,
            horizon=horizon,
            lambda_=temperature,
            u_min=-torch.ones(nu, dtype=torch.float64),
            u_max=torch.ones(nu, dtype=torch.float64),
            step_dependent_dynamics=True,
            specific_action_sampler=sampler,
        )

    def act(self, state: EnvState, *, shift: bool = True) -> np.ndarray:
        """Return the controls to take in `state`, shape (nu,).

        Args:
            state: Of the env.
            shift: Whether the last call's action was taken, so that the warm start moves on.
        """
        self._state = state
        # The simulations hold the state, so the package only passes a placeholder around.
        placeholder = torch.zeros(1, dtype=torch.float64)
        controls = self.mppi.command(placeholder, shift_nominal_trajectory=shift)
        return np.clip(controls.numpy(), -1.0, 1.0)

    def _dynamics(self, placeholder: torch.Tensor, controls: torch.Tensor, step: int) -> Any:
        """Step the simulations that still run and put what it cost into `_costs`."""
        assert self._state is not None
        if step == 0:
            self._simulations.restore([self._state] * self._simulations.num)
            self._running = np.arange(self._simulations.num)
        self._costs = torch.zeros(self._simulations.num, dtype=torch.float64)
        running = self._running
        if running.size:
            actions = self._scaling.to_env(controls.numpy()[running])
            everyone = running.size == self._simulations.num
            batch = self._simulations.step(actions, None if everyone else running)
            costs = np.where(batch.diverged, _DIVERGED_COST, -batch.rewards)
            self._costs[running] = torch.as_tensor(costs)
            self.sim_steps += running.size
            self._running = running[~(batch.terminated | batch.diverged)]
        return placeholder


def plan_seconds(
    env_id: str, *, threads: int, rounds: int, num_samples: int = 64, horizon: int = 20
) -> dict[str, np.ndarray]:
    """Time one plan of ours beside pytorch_mppi weighing the same samples, in turns.

    Args:
        env_id: After its reset with seed 0.
        threads: Of our backend.
        rounds: Measured rounds.
        num_samples: K.
        horizon: H.

    Returns:
        Seconds of each round, by planner: "ours"; "batch", pytorch_mppi on our backend; and
        "naive", pytorch_mppi on a loop over `env.step`.
    """
    env = Cloneable(gym.make(env_id))
    env.reset(seed=0)
    state = env.snapshot()
    scaling = action_scaling(env.action_space)
    dynamics, oracle = make_dynamics(env, num_workers=threads), EnvStepDynamics(env)
    config = MPPIConfig(num_samples=num_samples, horizon=horizon, iterations=1)
    nominals = np.zeros((1, 1, horizon, scaling.action_dims))

    recording = Recording(dynamics)
    MPPI(config, recording, scaling).plan([state], nominals, np.random.default_rng(0))
    samples = scaling.to_normalised(recording.calls[0][1][0])  # (K, H, nu)
    ours = MPPI(config, dynamics, scaling)
    batch, naive = (
        PytorchMPPI(backend.simulations(num_samples), scaling, horizon, samples=samples)
        for backend in (dynamics, oracle)
    )
    seconds = alternate(
        {
            "ours": timed(lambda: ours.plan([state], nominals, np.random.default_rng(0))),
            "batch": timed(lambda: batch.act(state, shift=False)),
            "naive": timed(lambda: naive.act(state, shift=False)),
        },
        rounds,
    )
    dynamics.close()
    oracle.close()
    return seconds
