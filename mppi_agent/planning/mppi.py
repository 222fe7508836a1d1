"""Model predictive path integral control on the real simulator: EnvState -> Plan.

The planner keeps no memory: whoever acts keeps its own nominal and hands it in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mppi_agent.interfaces import Coordinates, Dynamics, EnvState, Plan
from mppi_agent.planning.actions import ActionScaling
from mppi_agent.planning.config import MPPIConfig
from mppi_agent.planning.feedback import Feedback, OpenLoop, Reacting, Roll
from mppi_agent.planning.lqr import IterativeLQR
from mppi_agent.planning.objective import Objective, Scoring, Trajectories
from mppi_agent.planning.returns import LeafValue, discounted_returns, leaf_values
from mppi_agent.planning.sampler import Sampler
from mppi_agent.planning.samples import Samples
from mppi_agent.planning.weights import effective_sample_size, weigh

__all__ = ["MPPI"]


_LEAST_NOISE = 0.01  # of the first iteration's: less would not change a plan
_Evaluate = Callable[[Roll, np.ndarray], tuple[Samples, int]]


@dataclass(frozen=True)
class _Found:
    """What the iterations of one call leave.

    Attributes:
        mean: Of the last iteration, not measured yet, shape (S, H + d, nu).
        means: Proposals and means that were measured, the nominal first.
        bests: The best sample of each iteration.
        pool: All samples of the last iteration.
        weights: Of these, shape (S, K).
        temperature: Of these weights, shape (S,).
        diverged: Samples that diverged, shape (S,).
        sim_steps: Env steps simulated.
    """

    mean: np.ndarray
    means: list[Samples]
    bests: list[Samples]
    pool: Samples
    weights: np.ndarray
    temperature: np.ndarray
    diverged: np.ndarray
    sim_steps: int


class MPPI:
    """Improve plans by sampling around them and averaging the samples by their return.

    Attributes:
        config: Settings.
    """

    def __init__(
        self,
        config: MPPIConfig,
        dynamics: Dynamics,
        scaling: ActionScaling,
        objective: Objective | None = None,
        *,
        search: Dynamics | None = None,
        derivatives: Dynamics | None = None,
        feedback: Feedback | None = None,
        coordinates: Coordinates | None = None,
    ) -> None:
        """Bind the settings to a simulator.

        Args:
            config: Settings.
            dynamics: The model that plans are chosen by; the caller closes it.
            scaling: What controls mean as actions of the env.
            objective: What plans are ranked by; None: the env's own return.
            search: A cheaper model to draw the samples on; what they lead to is then measured on
                `dynamics`, and the caller closes both. None: search on `dynamics`.
            derivatives: Where LQR takes its derivatives; None: where samples are drawn.
            feedback: How plans react; None: not at all, a plan is a sequence of controls.
            coordinates: In which derivatives are taken; read only where `lqr_steps` > 0.

        Raises:
            ValueError: If settings want a policy, feedback or coordinates that are not there, or
                derivatives of plans that react.
        """
        self.config = config
        self._scaling = scaling
        self._feedback = feedback
        self._num_gains = 0 if feedback is None else feedback.dims
        if config.verify_steps and (feedback is None or self._num_gains):
            raise ValueError(
                f"verify_steps={config.verify_steps} needs a policy that goes on where plans end; "
                "use verify_steps=0, or let a policy lead: MPPIAgent(env, policy=model)"
            )
        if config.reflex_std > 0 and not self._num_gains:
            raise ValueError(
                f"reflex_std={config.reflex_std} needs plans that react; use reflex_std=0, or "
                "MPPIAgent, which makes them so"
            )
        self._true = self._roll(dynamics)
        self._search = self._true if search is None else self._roll(search)
        self._lqr = None
        if config.lqr_steps:
            if coordinates is None or feedback is not None:
                raise ValueError(
                    f"lqr_steps={config.lqr_steps} needs coordinates to take derivatives in, and "
                    "plans that are sequences of controls; use lqr_steps=0 where plans react"
                )
            model = derivatives or search or dynamics
            self._lqr = IterativeLQR(config, model, scaling, coordinates)
        self._objective = objective or Objective()
        self._sampler = Sampler(config, scaling, self._num_gains, snaps=feedback is None)

    def plan(
        self,
        states: Sequence[EnvState],
        nominals: np.ndarray,
        rng: np.random.Generator,
        *,
        leaf_value: LeafValue | None = None,
        previous_controls: np.ndarray | None = None,
        gains: np.ndarray | None = None,
    ) -> Plan:
        """Plan from S states at once.

        Each iteration is one rollout call for all states; a first one evaluates the proposals
        where there are several, a last small one the final means, beside the first two proposals
        and the best of the search where that ran on another model. The outcome depends on the
        arguments only; they are left as they were.

        Args:
            states: S start states.
            nominals: Proposed controls in [-1, 1] (clipped), shape (S, P, H, nu), 1 <= P <= K / 2.
                They join the first iteration's samples and count by their score alone; sampling
                starts around the best of them, so that a bad one costs no more than itself.
            rng: Source of the noise.
            leaf_value: Values the observation at the end of the horizon; does not count where the
                episode terminated. None: 0.
            previous_controls: What was done right before, for objectives that read it, shape
                (S, nu); NaN where that is not known. None: not known of any state.
            gains: By which the first nominal reacts where plans do, shape (S, d, nu); the others
                react to nothing. None: nor does the first.

        Returns:
            For each state the best plan that was measured, its score never below any proposal's
            (of the first two, where the search ran on another model): a mean, the last one where
            others only equal it, a proposal, or the best noisy sample where that is clearly better.
            A state all of whose samples diverged keeps its nominal, with return -inf.

        Raises:
            ValueError: If `nominals` or `gains` has another shape or is not finite, or `leaf_value`
                is not finite where it counts.

        Source: Williams et al. 2017, "Information theoretic MPC", Algorithm 2, without its control
            cost; elites as in Pinneri et al. 2020, "Sample-efficient cross-entropy method"; noise
            that shrinks by iteration as in Xue et al. 2024, "DIAL-MPC".
        """
        proposals = self._validated(nominals, gains, len(states))
        proposal_steps = 0
        if self._lqr is not None:
            improved, proposal_steps = self._lqr.improve(states, proposals[:, 0])
            proposals = np.concatenate([proposals, improved[:, None]], axis=1)
        evaluate = partial(
            self._evaluate,
            states=states,
            leaf_value=leaf_value,
            previous_controls=previous_controls,
            score=self._objective.scoring(),
        )
        found = self._iterate(proposals, evaluate, rng, proposal_steps)
        chosen, nominal_returns, diverged, steps = self._choose(found, evaluate)
        return Plan(
            controls=chosen.controls[:, 0],
            feedforward=chosen.parameters[:, 0, : self.config.horizon],
            gains=chosen.parameters[:, 0, self.config.horizon :],
            best_returns=chosen.returns[:, 0],
            nominal_returns=nominal_returns,
            returns=found.pool.returns,
            weights=found.weights,
            ess=effective_sample_size(found.weights),
            temperature=found.temperature,
            diverged=found.diverged + diverged,
            sim_steps=found.sim_steps + steps,
            samples=found.pool.controls,
            scores=found.pool.scores,
        )

    def close(self) -> None:
        """Free the simulations of its own; the models stay open."""
        self._true.close()
        self._search.close()
        if self._lqr is not None:
            self._lqr.close()

    def _iterate(
        self, proposals: np.ndarray, evaluate: _Evaluate, rng: np.random.Generator, sim_steps: int
    ) -> _Found:
        """Sample around the best proposal and average, as often as the settings say.

        Args:
            proposals: Parameters, shape (S, P, H + d, nu).
            evaluate: Measures parameters on a model.
            rng: Source of the noise.
            sim_steps: Env steps that the proposals took.
        """
        mean, elites = proposals[:, 0], Samples.none_like(proposals, self.config.horizon)
        means: list[Samples] = []
        bests: list[Samples] = []
        diverged = np.zeros(len(proposals), dtype=int)
        if proposals.shape[1] > 1:
            elites, steps = evaluate(self._search, proposals)
            sim_steps += steps
            diverged += elites.diverged
            means.append(elites)
            mean = elites.best(1).parameters[:, 0]

        iteration = steps = 0
        while self._goes_on(iteration, sim_steps / len(mean), steps / len(mean)):
            num_new = self.config.num_samples - elites.count
            with_mean = iteration > 0 or not elites.count  # the best proposal is measured
            parameters = self._sampler.draw(mean, num_new, iteration, rng, with_mean=with_mean)
            evaluated, steps = evaluate(self._search, parameters)
            sim_steps += steps
            diverged += evaluated.diverged
            means.append(evaluated.first(int(with_mean)))

            # The simulator is deterministic, so the elites' returns still hold.
            pool = Samples.join([evaluated, elites])
            temperature, weights = weigh(
                pool.standing(),
                self.config.temperature_at(iteration),
                self.config.ess_fraction,
                self.config.temperature_floor,
            )
            lost = pool.returns.max(axis=1) == -np.inf
            mean = np.where(lost[:, None, None], mean, pool.weighted_mean(weights))
            bests.append(pool.best(1))
            elites = pool.best(self.config.elites)
            iteration += 1
        return _Found(mean, means, bests, pool, weights, temperature, diverged, sim_steps)

    def _goes_on(self, iteration: int, spent: float, last: float) -> bool:
        """Return whether there is one more iteration, asked for or paid by the budget.

        Args:
            iteration: 0, 1, ...
            spent: Env steps per state so far.
            last: Of these, what the last iteration took.
        """
        config = self.config
        if iteration < config.iterations:
            return True
        if config.budget_steps is None or config.noise_decay**iteration < _LEAST_NOISE:
            return False
        return 0 < last <= config.budget_steps - config.final_steps - spent

    def _roll(self, dynamics: Dynamics) -> Roll:
        if self._feedback is None:
            return OpenLoop(dynamics, self._scaling)
        return Reacting(dynamics, self._scaling, self._feedback)

    def _validated(
        self, nominals: np.ndarray, gains: np.ndarray | None, num_states: int
    ) -> np.ndarray:
        """Return the parameters of the nominals, (S, P, H + d, nu), controls clipped."""
        horizon, most = self.config.horizon, self.config.num_samples // 2
        given, nu = np.shape(nominals), self._scaling.action_dims
        if len(given) != 4 or (given[0], *given[2:]) != (num_states, horizon, nu):
            raise ValueError(
                f"nominals must have shape (S, P, H, nu) = ({num_states}, P, {horizon}, {nu}), got "
                f"{given}; a single nominal per state is nominals[:, None]"
            )
        if not 1 <= given[1] <= most:
            raise ValueError(
                f"nominals must hold 1 to num_samples / 2 = {most} proposals per state, got "
                f"{given[1]}; pass fewer or raise num_samples"
            )
        if not np.isfinite(nominals).all():
            raise ValueError(
                "nominals must be finite, got NaN or infinity; check the policy that proposed them"
            )
        parameters = np.zeros((*given[:2], horizon + self._num_gains, given[3]))
        np.clip(nominals, -1.0, 1.0, out=parameters[:, :, :horizon])
        if gains is not None:
            wanted = (num_states, self._num_gains, given[3])
            if np.shape(gains) != wanted or not np.isfinite(gains).all():
                raise ValueError(
                    f"gains must be finite and of shape (S, d, nu) = {wanted}, got "
                    f"{np.shape(gains)}; pass those of the last plan, or None"
                )
            parameters[:, 0, horizon:] = gains
        return parameters

    def _evaluate(
        self,
        roll: Roll,
        parameters: np.ndarray,
        *,
        states: Sequence[EnvState],
        leaf_value: LeafValue | None,
        previous_controls: np.ndarray | None,
        score: Scoring,
    ) -> tuple[Samples, int]:
        """Roll out (S, K, H + d, nu) in one call; return them measured and the env steps."""
        controls, actions, rollout = roll(
            states, parameters, keep_observations=self._objective.reads_observations
        )
        values = None if leaf_value is None else leaf_values(rollout, leaf_value)
        discount = self.config.discount
        if leaf_value is not None:
            discount = max(discount, leaf_value.discount)
        returns = discounted_returns(rollout, discount, values)
        trajectories = Trajectories(
            starts=states,
            controls=controls,
            actions=actions,
            rollout=rollout,
            returns=returns,
            discount=discount,
            has_leaf_value=leaf_value is not None,
            previous_controls=previous_controls,
        )
        samples = Samples(parameters, controls, returns, *score(trajectories))
        return samples, rollout.sim_steps

    def _followed_by_policy(self, parameters: np.ndarray) -> np.ndarray:
        """Append what is verified beyond the plan: no deviations, so that the policy goes on."""
        if not self.config.verify_steps:
            return parameters
        num_states, num_samples, _, action_dims = parameters.shape
        rest = np.zeros((num_states, num_samples, self.config.verify_steps, action_dims))
        return np.concatenate([parameters, rest], axis=2)

    def _choose(
        self, found: _Found, evaluate: _Evaluate
    ) -> tuple[Samples, np.ndarray, np.ndarray, int]:
        """Measure the last mean, beside what else may be the plan where that is not known yet.

        Returns:
            The best plan of each state, K = 1; the nominal's returns, shape (S,); how many of what
            was measured here diverged, shape (S,); the env steps it took.
        """
        # The policy's plan and the last one, say: a search on another model may lose sight of them.
        kept = [found.means[0].first(2), Samples.join(found.means).best(1)]
        if np.array_equal(kept[0].parameters, kept[1].parameters):
            del kept[1]
        searched = best_sample = Samples.join(found.bests).best(1)
        if self._search is self._true and not self.config.verify_steps:
            measured, steps = evaluate(self._true, found.mean[:, None])
            final = measured
        else:
            before = [samples.parameters for samples in kept]
            candidates = [*before, found.mean[:, None], best_sample.parameters]
            followed = self._followed_by_policy(np.concatenate(candidates, axis=1))
            measured, steps = evaluate(self._true, followed)
            *split, final, best_sample = measured.shortened(self.config.horizon).split()
            kept = [Samples.join(split)]
        # The first wins ties: of plans that survive alike, the mean keeps clear of what fell.
        means = Samples.join([final, *kept])
        # What was verified earned for longer than the samples did, and would not compare with them.
        # Where the search's model is another one, the lead holds what the two differ by as well:
        # without that, Humanoids fall (docs/experiments.md, "How far ahead a sample must be").
        leader = searched if self.config.verify_steps else best_sample
        lead = leader.returns[:, 0] - found.pool.median_return()
        slack = self.config.mean_preference * np.maximum(lead, 0.0)
        chosen = _mean_or_sample(means.best(1), best_sample, slack)
        return chosen, kept[0].returns[:, 0], measured.diverged, steps


def _mean_or_sample(mean: Samples, sample: Samples, slack: np.ndarray) -> Samples:
    """Return the best mean or the best sample of each state, K = 1.

    Means and proposals are deliberate; a noisy sample must beat them by more than the slack, shape
    (S,). That is in returns: prices of terms, as for an end of the episode, would make it huge.
    """
    is_mean = np.where(
        mean.violations == sample.violations,
        mean.scores >= sample.scores - slack[:, None],
        mean.violations < sample.violations,
    )[:, 0]
    return Samples.join([mean, sample]).pick(np.where(is_mean, 0, 1)[:, None])
