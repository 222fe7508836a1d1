"""Several models of one env as one `Dynamics`: plans are judged by how they do on all of them.

plan --each member--> M outcomes --the worst share of them--> their mean as one outcome
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mppi_agent.dynamics.observations import select_rows, stack_observations
from mppi_agent.dynamics.rollout import ClosedLoop, join_steps, resume_simulations
from mppi_agent.interfaces import (
    Act,
    Dynamics,
    EnvState,
    Observation,
    RolloutBatch,
    Simulations,
    StepBatch,
)

__all__ = [
    "EnsembleClosedLoop",
    "EnsembleDynamics",
    "EnsembleSimulations",
    "closed_loop",
    "first_member",
    "tail_mean",
]


class EnsembleDynamics:
    """Judge plans by the mean return on the members where they do worst.

    The discounted return of an outcome is exactly the `tail_mean` of the members' returns. It is
    terminated if it is so on any of the members that count; observations are those of the middle
    one of these. A plan that breaks the physics of one member counts as diverged.

    Of `simulations`, simulation i runs on member i modulo M: a policy trained there meets all
    members. Plans that react are rolled out on each, see `closed_loop`.

    Args:
        members: Models of one env, the nominal one first; closed with this one.
        tail: Share of the members that count, those of the lowest returns, in (0, 1]; rounded up
            to whole members. 1: the mean. 0.5: the worse half. Next to 0: the worst case.
        discount: Of the returns that rank the members, per control step; the planner's own.

    Raises:
        ValueError: If there is no member, spaces differ, or `tail` or `discount` is out of range.
    """

    def __init__(
        self, members: Sequence[Dynamics], *, tail: float = 1.0, discount: float = 1.0
    ) -> None:
        if not members:
            raise ValueError("members must hold at least one Dynamics, got none")
        _require_share("tail", tail)
        _require_share("discount", discount)
        for name in ("observation_space", "action_space", "max_episode_steps"):
            found = [getattr(member, name) for member in members]
            if any(value != found[0] for value in found):
                raise ValueError(f"members must be of one env, got {name} {found}")
        self.members = tuple(members)
        self._num_worst = _num_worst(tail, len(members))
        self._discount = discount
        self.observation_space = members[0].observation_space
        self.action_space = members[0].action_space
        self.max_episode_steps = members[0].max_episode_steps

    def initial_states(self, num: int, rng: np.random.Generator) -> list[EnvState]:
        """Return `num` states drawn from the reset distribution of the first member."""
        return self.members[0].initial_states(num, rng)

    def simulations(self, num: int) -> EnsembleSimulations:
        """Return `num` simulations, spread over the members."""
        members = self.members[:num]
        sizes = [len(range(first, num, len(members))) for first in range(len(members))]
        return EnsembleSimulations(
            [member.simulations(size) for member, size in zip(members, sizes, strict=True)]
        )

    def rollout(
        self,
        states: Sequence[EnvState],
        actions: np.ndarray,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Roll out on every member and return the mean of the worst; see `Dynamics.rollout`."""
        return self.combined(
            [
                member.rollout(states, actions, keep_observations=keep_observations)
                for member in self.members
            ]
        )

    def combined(self, batches: Sequence[RolloutBatch]) -> RolloutBatch:
        """Return the mean of the worst of the members' outcomes, one each."""
        diverged = np.stack([batch.diverged for batch in batches])  # (M, S, K)
        returns = self._returns(batches)
        worst = np.argsort(returns, axis=0, kind="stable")[: self._num_worst]
        rewards = np.stack([batch.rewards for batch in batches])  # (M, S, K, H)
        lengths = np.stack([batch.lengths for batch in batches])
        terminated = np.stack([batch.terminated for batch in batches])
        middle = worst[(self._num_worst - 1) // 2]
        num_states, num_samples = middle.shape
        place = (middle, np.arange(num_states)[:, None], np.arange(num_samples))
        kept = [batch.observations for batch in batches if batch.observations is not None]
        return RolloutBatch(
            rewards=np.take_along_axis(rewards, worst[..., None], axis=0).mean(axis=0),
            terminated=np.asarray(np.take_along_axis(terminated, worst, axis=0).any(axis=0)),
            diverged=np.asarray(diverged.any(axis=0)),
            lengths=np.take_along_axis(lengths, worst, axis=0).max(axis=0),
            final_observations=_pick([batch.final_observations for batch in batches], place),
            sim_steps=sum(batch.sim_steps for batch in batches),
            observations=_pick(kept, place) if kept else None,
        )

    def returns(self, states: Sequence[EnvState], actions: np.ndarray) -> np.ndarray:
        """Measure plans on each member, to see how robust they are.

        Args:
            states: S start states.
            actions: In the env's own units, shape (S, K, H, *action).

        Returns:
            Discounted returns, shape (M, S, K); -inf where a simulation diverged.
        """
        return self._returns([member.rollout(states, actions) for member in self.members])

    def close(self) -> None:
        """Close the members."""
        for member in self.members:
            member.close()

    def _returns(self, batches: Sequence[RolloutBatch]) -> np.ndarray:
        rewards = np.stack([batch.rewards for batch in batches])
        diverged = np.stack([batch.diverged for batch in batches])
        returns = rewards @ self._discount ** np.arange(rewards.shape[-1])
        return np.where(diverged, -np.inf, returns)


class EnsembleClosedLoop:
    """Run closed-loop rollouts on every member of an ensemble.

    Args:
        ensemble: The models; the caller closes it.
    """

    def __init__(self, ensemble: EnsembleDynamics) -> None:
        self._ensemble = ensemble
        self._loops = [closed_loop(member) for member in ensemble.members]

    def __call__(
        self,
        states: Sequence[EnvState],
        shape: tuple[int, int],
        act: Act,
        *,
        keep_observations: bool = False,
    ) -> RolloutBatch:
        """Return the mean of the worst; what `act` did last it did on the nominal member."""
        batches = [
            loop(states, shape, act, keep_observations=keep_observations)
            for loop in reversed(self._loops)
        ]
        return self._ensemble.combined(batches[::-1])

    def close(self) -> None:
        """Free the simulations; the next rollout makes new ones."""
        for loop in self._loops:
            loop.close()


def closed_loop(dynamics: Dynamics) -> ClosedLoop | EnsembleClosedLoop:
    """Return what rolls out plans that react, on all members where the model is an ensemble."""
    if isinstance(dynamics, EnsembleDynamics):
        return EnsembleClosedLoop(dynamics)
    return ClosedLoop(dynamics)


def first_member(dynamics: Dynamics) -> Dynamics:
    """Return the nominal model of an ensemble, noise included; other models as they are."""
    while isinstance(dynamics, EnsembleDynamics):
        dynamics = dynamics.members[0]
    return dynamics


class EnsembleSimulations:
    """Run N simulations on M members: simulation i on member i modulo M.

    Args:
        members: Simulations of each member, the first ones one more where N / M is not whole.
    """

    def __init__(self, members: Sequence[Simulations]) -> None:
        self.num = sum(member.num for member in members)
        self._members = members

    def restore(self, states: Sequence[EnvState], indices: np.ndarray | None = None) -> None:
        """Put the simulations `indices` (default: all) into `states`, one each."""
        chosen = self._resolve(indices)
        if len(states) != len(chosen):
            raise ValueError(f"{len(chosen)} simulations need as many states, got {len(states)}")
        for member, places, local in self._split(chosen):
            member.restore([states[place] for place in places], local)

    def resume(self, states: Sequence[EnvState]) -> None:
        """Go on from snapshots of all simulations, with the noise that they had ahead."""
        for member, places, _ in self._split(np.arange(self.num)):
            resume_simulations(member, [states[place] for place in places])

    def step(self, actions: np.ndarray, indices: np.ndarray | None = None) -> StepBatch:
        """Advance the simulations `indices` (default: all) by one env step each."""
        actions, chosen = np.asarray(actions), self._resolve(indices)
        if len(actions) != len(chosen):
            raise ValueError(
                f"{len(chosen)} simulations need as many actions, got shape {actions.shape}"
            )
        parts = self._split(chosen)
        return join_steps(
            [member.step(actions[places], local) for member, places, local in parts],
            [places for _, places, _ in parts],
        )

    def snapshot(self, indices: np.ndarray | None = None) -> list[EnvState]:
        """Return the states of the simulations `indices` (default: all)."""
        placed = {
            int(place): state
            for member, places, local in self._split(self._resolve(indices))
            for place, state in zip(places, member.snapshot(local), strict=True)
        }
        return [placed[place] for place in range(len(placed))]

    def close(self) -> None:
        """Free the simulations of all members."""
        for member in self._members:
            member.close()

    def _resolve(self, indices: np.ndarray | None) -> np.ndarray:
        return np.arange(self.num) if indices is None else np.asarray(indices)

    def _split(self, chosen: np.ndarray) -> list[tuple[Simulations, np.ndarray, np.ndarray]]:
        """Return members that are asked, their places within `chosen`, and their own indices."""
        owners = chosen % len(self._members)
        parts = []
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            parts.append((self._members[owner], places, chosen[places] // len(self._members)))
        return parts


def tail_mean(returns: np.ndarray, tail: float) -> np.ndarray:
    """Average the worst returns: the conditional value at risk of M equally likely models.

    Args:
        returns: Of the models, first axis M.
        tail: Share that counts, in (0, 1], rounded up to whole models. 1: the mean.

    Returns:
        Without the first axis.

    Source: Rockafellar and Uryasev 2000, "Optimization of conditional value-at-risk".
    """
    _require_share("tail", tail)
    return np.sort(returns, axis=0)[: _num_worst(tail, len(returns))].mean(axis=0)


def _num_worst(tail: float, num: int) -> int:
    return max(1, math.ceil(round(tail * num, 9)))  # 0.1 * 30 is a little more than 3


def _require_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {value}")


def _pick(observations: Sequence[Observation], place: tuple[np.ndarray, ...]) -> Observation:
    """Return from M observations of shape (S, K, ...) those at (member, state, sample)."""
    return select_rows(stack_observations(observations), place)
