"""What a planner may know of the env's own noise: foresee it, guess it, or average over guesses.

A captured state holds the env's random generator. Plans made on it as it stands foresee what the
env will draw and bet on it: what they promise holds for that one draw only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mppi_agent.cloning.noise import noise_ahead, with_noise
from mppi_agent.dynamics.ensemble import EnsembleDynamics, first_member
from mppi_agent.dynamics.imperfect import ImperfectDynamics
from mppi_agent.dynamics.rollout import reshape_batch, resume_simulations, validate_rollout
from mppi_agent.interfaces import Dynamics, EnvState, RolloutBatch, Simulations, StepBatch

__all__ = ["ResampledDynamics", "nominal_model", "resample_noise"]


def resample_noise(dynamics: Dynamics, draws: int) -> Dynamics:
    """Say what a planner may know of the noise of an env that draws some in its steps.

    Args:
        dynamics: Simulates the env; closed with the result.
        draws: 0: the planner is clairvoyant, its samples see the very noise that the env will
            draw. 1: each sample draws noise of its own. More: each sample is rolled out that
            often, with the rewards averaged, at as many times the cost.

    Raises:
        ValueError: If `draws` < 0.
    """
    if draws < 0:
        raise ValueError(f"draws must be >= 0 (0: the planner foresees the noise), got {draws}")
    if draws == 0:
        return dynamics
    streams = [ResampledDynamics(dynamics, stream) for stream in range(draws)]
    return streams[0] if draws == 1 else EnsembleDynamics(streams)


def nominal_model(dynamics: Dynamics) -> Dynamics:
    """Return the one model that derivatives can be taken on.

    They compare simulations, which must differ in nothing else: not in the member of an ensemble,
    nor in the noise that is drawn anew for each.
    """
    model = first_member(dynamics)
    if isinstance(model, ResampledDynamics | ImperfectDynamics):  # one step knows no delay
        return nominal_model(model.dynamics)
    return model


class ResampledDynamics:
    """Give each simulation noise of its own, which the env will not repeat.

    The noise of a sample is seeded by a digest of its start state, its actions and its place
    among the samples. So the outcome of a rollout is a function of its arguments: the same at any
    number of workers, and labels can be made in between without disturbing later plans.

    Args:
        dynamics: Simulates; closed with this one.
        stream: Number of the stream of noise: others are independent of it.
    """

    def __init__(self, dynamics: Dynamics, stream: int = 0) -> None:
        self.dynamics = dynamics
        self._stream = stream
        self.observation_space = dynamics.observation_space
        self.action_space = dynamics.action_space
        self.max_episode_steps = dynamics.max_episode_steps

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the env's reset distribution."""
        return self.dynamics.initial_states(num, rng)

    def simulations(self, num: int) -> ResampledSimulations:
        """Return `num` simulations, each with noise of its own from every restore on."""
        return ResampledSimulations(self.dynamics.simulations(num), self._stream)

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out open loop, each sample from a start state of its own; see `Dynamics.rollout`."""
        actions = validate_rollout(states, actions, self.action_space)
        num_states, num_samples = actions.shape[:2]
        starts = [
            with_noise(states[s], _seed(states[s], self._stream, k, actions[s, k]))
            for s, k in np.ndindex(num_states, num_samples)
        ]
        flat = actions.reshape(-1, 1, *actions.shape[2:])  # (S * K, 1, H, *action)
        batch = self.dynamics.rollout(starts, flat, keep_observations=keep_observations)
        return reshape_batch(batch, (num_states, num_samples))

    def close(self) -> None:
        """Close what simulates."""
        self.dynamics.close()


class ResampledSimulations:
    """Give restored states noise of their own, one for each simulation.

    Args:
        simulations: Run the env.
        stream: Number of the stream of noise.
    """

    def __init__(self, simulations: Simulations, stream: int) -> None:
        self.num = simulations.num
        self._simulations = simulations
        self._stream = stream

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        chosen = range(self.num) if indices is None else indices.tolist()
        if len(states) != len(chosen):
            raise ValueError(f"{len(chosen)} simulations need as many states, got {len(states)}")
        no_actions = np.empty(0)
        own = [
            with_noise(state, _seed(state, self._stream, index, no_actions))
            for state, index in zip(states, chosen, strict=True)
        ]
        self._simulations.restore(own, indices)

    def resume(self, states: Sequence[EnvState]) -> None:
        """Go on from snapshots of all simulations, with the noise that they had ahead."""
        resume_simulations(self._simulations, states)

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        return self._simulations.step(actions, indices)

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        return self._simulations.snapshot(indices)

    def close(self) -> None:
        """Free the simulations."""
        self._simulations.close()


def _seed(state: EnvState, stream: int, index: int, actions: np.ndarray) -> int:
    key = f"{stream} {index} ".encode() + noise_ahead(state) + actions.tobytes()
    return int.from_bytes(hashlib.blake2b(key, digest_size=16).digest())
