"""The expert: MPPI on the env's own simulator, as an SB3 `PolicyPredictor`.

It plans from the env that it owns, keeps one warm start per env, and labels any captured state
without disturbing how it acts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning import Cloneable, find_cloneable, layers_above
from mppi_agent.dynamics import coarse_model_of, make_dynamics, sub_env
from mppi_agent.dynamics.coordinates import coordinates_of
from mppi_agent.dynamics.ensemble import closed_loop
from mppi_agent.dynamics.noise import nominal_model
from mppi_agent.guide import Guide
from mppi_agent.interfaces import Coordinates, Dynamics, EnvState, Observation, Plan, Policy
from mppi_agent.planning import (
    MPPI,
    ActionScaling,
    BoxScaling,
    CategoryScaling,
    Feedback,
    Following,
    LeafValue,
    LostFuture,
    MPPIConfig,
    Novelty,
    Objective,
    OngoingReward,
    PolicyPrior,
    Proposer,
    Reflexes,
    Role,
    Term,
    shift_nominal,
)

__all__ = ["MPPIAgent", "action_scaling"]

_NUM_POLICY_PROPOSALS = 16


class MPPIAgent:
    """Plan at every step on clones of the env and act on the best measured plan.

    Args:
        env: An env id, a Gymnasium env, or an SB3 `VecEnv` whose envs are `Cloneable`. The expert
            plans from the state that this env is in, so act in `self.env` only.
        config: Settings; None: the preset of the env.
        seed: Of the planner's noise.
        policy: What plans start from, closed loop. An `MPPIGPS` model, or whatever has its
            `leaf_value`, also values where plans end; any SB3 model will do without.
        policy_leads: True: plans are deviations from what the policy does, which goes on answering
            to what it observes; they are as good as it, or better. False: its rollouts only join
            the samples, so that a bad policy costs no more than these.
        dynamics: Simulates the plans, and is the caller's to close; None: the fastest exact
            backend for the env.
        policy_noise_std: Noise of the policy's proposals but the first, half-range units; read
            only where it does not lead.
        policy_prior: How strongly the policy pulls plans towards what it would do, see
            `PolicyPrior`; 0: not at all. Only where it does not lead.
        proposals: Further plans that join the samples and count by their return alone; not where a
            policy leads, for they say what to do, not what to do differently.
        objective: What plans are ranked by beside the env's own return, which stays what `Plan`
            reports. `LostFuture(config.lost_future)` joins unless there is one, and so does
            `OngoingReward(config.ongoing_reward)`.

    Attributes:
        env: What to pass to `evaluate_policy(expert, expert.env)`.
        config: Settings.
        last_plan: The plan behind the latest actions, one state per env; None before the first.
        sim_steps: Env steps simulated so far, acting and labelling.

    Raises:
        ValueError: If the env cannot be cloned, or its actions are changed around the `Cloneable`,
            or the envs of a `VecEnv` differ, or its action space is neither a bounded Box nor
            Discrete nor MultiDiscrete; or `policy_prior` is negative or comes without a policy; or
            proposals, reflexes or derivatives are wanted where a policy leads; or derivatives where
            the env has none.
    """

    def __init__(
        self,
        env: str | gym.Env | Any,
        config: MPPIConfig | None = None,
        *,
        seed: int | None = 0,
        policy: Policy | None = None,
        policy_leads: bool = True,
        dynamics: Dynamics | None = None,
        policy_noise_std: float = 0.2,
        policy_prior: float = 0.0,
        proposals: Sequence[Proposer] = (),
        objective: Sequence[Term] = (),
    ) -> None:
        self.env = _open(env)
        cloneable = sub_env(self.env)
        self._leads = policy is not None and policy_leads
        role: Role = "alone" if policy is None else "on_top" if policy_leads else "label"
        self.config = config or MPPIConfig.for_env(cloneable, role=role)
        self.scaling = action_scaling(cloneable.action_space)
        self._dynamics = dynamics or make_dynamics(self.env)
        self._owns_dynamics = dynamics is None
        with ExitStack() as opened:  # a setting that does not fit leaves no worker behind
            if self._owns_dynamics:
                opened.callback(self._dynamics.close)
            self._guide = None
            if policy is not None:
                self._guide = Guide(policy, self.env, self.scaling, self._dynamics)
            self._policy_noise_std = policy_noise_std
            self._proposers = tuple(proposals)
            self._objective = self._all_terms(objective, policy_prior)
            substeps = self.config.search_substeps
            self._search: Dynamics | None = None
            if substeps is not None:
                self._search = coarse_model_of(
                    self._dynamics, substeps, "use a config with search_substeps=None"
                )
            feedback = self._feedback()
            self._num_gains = 0 if feedback is None else feedback.dims
            self._planner = MPPI(
                self.config,
                self._dynamics,
                self.scaling,
                self._objective,
                search=self._search,
                derivatives=nominal_model(self._search or self._dynamics),
                feedback=feedback,
                coordinates=self._coordinates(cloneable),
            )
            opened.pop_all()
        acting, labelling = np.random.SeedSequence(seed).spawn(2)
        self._acting_rng = np.random.default_rng(acting)
        self._labelling_rng = np.random.default_rng(labelling)
        self._nominals = self.cold_start(getattr(self.env, "num_envs", 1))
        self._gains = np.zeros((len(self._nominals), self._num_gains, self.scaling.action_dims))
        self._previous = np.full_like(self._nominals[:, 0], np.nan)
        self._resets = self._ask("num_resets")
        self.last_plan: Plan | None = None
        self.sim_steps = 0

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Return the first action of a plan from the state that each env is in.

        Args:
            observation: As the env returned it; one row per env, or a single one. Planning starts
                from the env's full state, so only the number of rows matters.
            state: The warm start that the last call returned, an array of shape (n_envs, H, nu)
                and, with reflexes, their gains, (n_envs, d, nu); None: the agent's own memory.
            episode_start: True where an env was reset, shape (n_envs,); its plan starts afresh.
                A reset that `episode_start` leaves out is noticed all the same.
            deterministic: True: act on the best plan. False: add the planner's noise.

        Returns:
            Actions of the env's action space, shape (n_envs, *action), or (*action) for a single
            observation; and the warm start for the next call.
        """
        nominals = (self._nominals if state is None else state[0]).copy()
        gains = (self._gains if state is None or not self._num_gains else state[1]).copy()
        previous = self._previous.copy()
        resets = self._ask("num_resets")
        for i, (now, before) in enumerate(zip(resets, self._resets, strict=True)):
            if now != before or (episode_start is not None and episode_start[i]):
                nominals[i], gains[i], previous[i] = 0.0, 0.0, np.nan
        self._resets = resets
        states = self.states()
        for term in self._novelties:
            term.visit(states)
        plan = self._plan(
            states, nominals, self._acting_rng, previous_controls=previous, gains=gains
        )
        self.last_plan = plan
        # Policy and reflexes go on by themselves; an action repeated would only push them aside.
        tail = np.zeros_like(nominals[:, :1]) if self._leads or self._num_gains else None
        self._nominals, self._gains = shift_nominal(plan.feedforward, tail=tail), plan.gains
        first = plan.controls[:, 0]
        if not deterministic:
            noise = self._acting_rng.standard_normal(first.shape)
            first = self.scaling.snap(first + self.config.noise_std * noise)
        self._previous = first.copy()
        # In the dtype that was simulated, so that what happens is what was measured.
        actions = self.scaling.to_env(first).astype(self._dynamics.action_space.dtype, copy=False)
        is_single = not _has_rows(observation, self._dynamics.observation_space)
        memory = (self._nominals, self._gains) if self._num_gains else (self._nominals,)
        return (actions[0] if is_single else actions), memory

    def label(
        self,
        states: Sequence[EnvState],
        nominals: np.ndarray | None = None,
        *,
        leaf_value: LeafValue | None = None,
    ) -> Plan:
        """Plan from any captured states; acting goes on as if nothing had happened.

        Args:
            states: S states.
            nominals: Normalised controls to improve on, shape (S, H, nu), such as the actions that
                a student took from there, or deviations where a policy leads; None: zeros. Their
                own return is measured beside.
            leaf_value: Values where plans end; None: the policy's, if it has any.

        Returns:
            The plans, with the measured return of `nominals`.
        """
        if nominals is None:
            nominals = self.cold_start(len(states))
        return self._plan(states, nominals, self._labelling_rng, leaf_value, nominal_first=True)

    def states(self) -> list[EnvState]:
        """Return the state that each env is in."""
        return self._ask("snapshot")

    def cold_start(self, num: int) -> np.ndarray:
        """Return zero nominals, shape (num, H, nu)."""
        return np.zeros((num, self.config.horizon, self.scaling.action_dims))

    def state_dict(self) -> dict[str, Any]:
        """Return what the next plans depend on beside the env; picklable."""
        return {
            "acting_rng": self._acting_rng.bit_generator.state,
            "labelling_rng": self._labelling_rng.bit_generator.state,
            "nominals": self._nominals,
            "gains": self._gains,
            "previous": self._previous,
            "visited": [term.state_dict() for term in self._novelties],
            "sim_steps": self.sim_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Plan on as the agent that `state_dict` was taken of; its env must be in that state."""
        self._acting_rng.bit_generator.state = state["acting_rng"]
        self._labelling_rng.bit_generator.state = state["labelling_rng"]
        self._nominals, self._gains = state["nominals"], state["gains"]
        self._previous = state["previous"]
        for term, visited in zip(self._novelties, state["visited"], strict=True):
            term.load_state_dict(visited)
        self.sim_steps = state["sim_steps"]
        self._resets = self._ask("num_resets")

    def close(self) -> None:
        """Free the simulations; the env and a `dynamics` that was passed in stay open."""
        self._planner.close()
        if self._guide is not None:
            self._guide.close()
        if self._search is not None:
            self._search.close()
        if self._owns_dynamics:
            self._dynamics.close()

    def _plan(
        self,
        states: Sequence[EnvState],
        nominals: np.ndarray,
        rng: np.random.Generator,
        leaf_value: LeafValue | None = None,
        *,
        nominal_first: bool = False,
        previous_controls: np.ndarray | None = None,
        gains: np.ndarray | None = None,
    ) -> Plan:
        horizon = self.config.horizon
        proposals = np.concatenate(
            [nominals[:, None], *(propose(states, horizon) for propose in self._proposers)], axis=1
        )
        policy_steps = 0
        # The first proposal is what gains measure against; only the first nominal may react.
        nominal_first = nominal_first or self._num_gains > 0
        if self._leads:
            undisturbed = np.zeros_like(proposals[:, :1])
            parts = [proposals, undisturbed] if nominal_first else [undisturbed, proposals]
            proposals = np.concatenate(parts, axis=1)
        elif self._guide is not None:
            shape = self._room_for(proposals), horizon
            sampled, policy_steps = self._guide.plans(states, shape, self._policy_noise_std, rng)
            first, others = sampled[:, :1], sampled[:, 1:]
            parts = [proposals, first] if nominal_first else [first, proposals]
            proposals = np.concatenate([*parts, others], axis=1)
        if leaf_value is None and self._guide is not None:
            leaf_value = self._guide.leaf_value
        plan = self._planner.plan(
            states,
            proposals,
            rng,
            leaf_value=leaf_value,
            previous_controls=previous_controls,
            gains=gains,
        )
        if not np.isfinite(plan.best_returns).all():
            warnings.warn(
                f"no finite return among {plan.returns.shape[1]} samples, so that the plan is "
                "worth nothing: the simulation diverged, or rewards or observations are NaN or "
                "infinite; look at these, or lower noise_std or the simulator's time step",
                stacklevel=3,
            )
        plan = replace(plan, sim_steps=plan.sim_steps + policy_steps)
        self.sim_steps += plan.sim_steps
        return plan

    def _feedback(self) -> Feedback | None:
        """Return how plans react to what they observe; None: they do not."""
        if self._guide is not None and self._leads:
            if self._proposers:
                raise ValueError(
                    "proposals say what to do, and where a policy leads plans are what to do "
                    "differently; pass policy_leads=False, and it proposes beside them"
                )
            if self.config.reflex_std > 0:
                raise ValueError(
                    f"reflex_std={self.config.reflex_std} must be 0 where a policy leads, to which "
                    "plans react already; use MPPIConfig.for_env(env, role='on_top'), or "
                    "policy_leads=False"
                )
            return Following(self._guide.controls, closed_loop)
        if self.config.reflex_std > 0:
            model = self._search or self._dynamics
            return Reflexes.fitted_to(model, self.scaling, self.config.horizon, closed_loop)
        return None

    def _coordinates(self, env: Cloneable) -> Coordinates | None:
        """Return in what derivatives are taken; None: in nothing."""
        if not self.config.lqr_steps:
            return None
        if isinstance(self.scaling, CategoryScaling):
            raise ValueError(
                f"lqr_steps={self.config.lqr_steps} takes derivatives, and "
                f"action_space={env.action_space} has none; use lqr_steps=0"
            )
        return coordinates_of(env, self._dynamics)

    def _all_terms(self, terms: Sequence[Term], policy_prior: float) -> Objective:
        """Return the objective with what the expert adds to it."""
        wanted = list(terms)
        if not any(isinstance(term, LostFuture) for term in wanted):
            wanted.append(LostFuture(self.config.lost_future))
        if not any(isinstance(term, OngoingReward) for term in wanted):
            wanted.append(OngoingReward(self.config.ongoing_reward))
        if policy_prior:
            if self._guide is None:
                raise ValueError(f"policy_prior={policy_prior} needs a policy: pass policy=model")
            prior = PolicyPrior(self._guide.controls, policy_prior)
            if self._leads:
                raise ValueError(
                    f"policy_prior={policy_prior} pulls plans to what the policy would do, and "
                    "where it leads plans are deviations from that, whose size noise_std sets; "
                    "pass policy_leads=False, or leave policy_prior out"
                )
            wanted.append(prior)
        return Objective(tuple(wanted))

    @property
    def _novelties(self) -> list[Novelty]:
        return [term for term in self._objective.terms if isinstance(term, Novelty)]

    def _room_for(self, proposals: np.ndarray) -> int:
        """Return how many plans the policy may add to proposals of shape (S, P, H, nu)."""
        # A bad policy then costs at most a quarter of the samples.
        room = self.config.num_samples // 2 - proposals.shape[1]
        return max(1, min(_NUM_POLICY_PROPOSALS, room, self.config.num_samples // 4))

    def _ask(self, name: str) -> list[Any]:
        """Return an attribute, or what a method returns, of each env's `Cloneable`."""
        if hasattr(self.env, "env_method"):
            is_method = callable(getattr(Cloneable, name, None)) and not isinstance(
                getattr(Cloneable, name), property
            )
            return self.env.env_method(name) if is_method else self.env.get_attr(name)
        value = getattr(find_cloneable(self.env), name)
        return [value() if callable(value) else value]


def action_scaling(action_space: gym.Space) -> ActionScaling:
    """Return what normalised controls mean in an action space.

    Raises:
        ValueError: If the space is another one than Box, Discrete or MultiDiscrete, or unbounded.
    """
    if isinstance(action_space, gym.spaces.Box) and action_space.dtype.kind == "f":
        return BoxScaling(action_space.low, action_space.high)
    if isinstance(action_space, gym.spaces.Discrete):
        return CategoryScaling(action_space.n, action_space.start)
    if isinstance(action_space, gym.spaces.MultiDiscrete):
        return CategoryScaling(action_space.nvec, action_space.start)
    raise ValueError(
        f"action_space={action_space} is not supported: MPPI plans in a bounded Box of floats, a "
        "Discrete or a MultiDiscrete space; give the env one of them with "
        "gymnasium.wrappers.TransformAction, MultiDiscrete([2] * n) for MultiBinary(n), say"
    )


def _open(env: str | gym.Env | Any) -> Any:
    """Return an env, or VecEnv, that has a `Cloneable` in each wrapper chain."""
    if isinstance(env, str):
        env = gym.make(env)
    if hasattr(env, "env_method"):
        sub_env(env)
        chains = getattr(env.unwrapped, "envs", [])  # in other processes nobody can look
    else:
        try:
            find_cloneable(env)
        except TypeError:
            env = Cloneable(env)
        chains = [env]
    for layer in chain.from_iterable(layers_above(one) for one in chains):
        if isinstance(layer, gym.ActionWrapper):
            raise ValueError(
                f"{type(layer).__name__} is around the Cloneable in {env}, where plans know "
                "nothing of it: put it inside, as in Cloneable(RescaleAction(env, -1, 1))"
            )
    return env


def _has_rows(observation: Observation, space: gym.Space) -> bool:
    if isinstance(observation, dict):
        assert isinstance(space, gym.spaces.Dict)
        key = next(iter(observation))
        return np.ndim(observation[key]) > len(space[key].shape or ())
    if isinstance(space, gym.spaces.Tuple):
        return np.ndim(observation) > 1 + len(space[0].shape or ())
    return np.ndim(observation) > len(space.shape or ())
