"""What MPPIGPS runs on: simulations, expert and archive, built from the training env.

Nothing here is saved with a model; it is built anew for the env that a model is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from mppi_agent.demonstrations import Demonstration
from mppi_agent.dynamics import coarse_model_of, make_dynamics, sub_env
from mppi_agent.dynamics.env_step import DEFAULT_EPISODE_STEPS
from mppi_agent.expert import MPPIAgent
from mppi_agent.gps.dataset import StateArchive
from mppi_agent.gps.demonstrations import demonstrated_states
from mppi_agent.gps.evaluation import Evaluation, Probe, evaluate
from mppi_agent.gps.labels import ExpertEpisodes, Labeler, expert_episodes
from mppi_agent.gps.sampler import ClosedLoopSampler
from mppi_agent.gps.view import PolicyView
from mppi_agent.interfaces import Dynamics, EnvState, Policy, Simulations
from mppi_agent.planning import MPPIConfig

__all__ = ["Engine"]

_RESET_POOL = 256
_ARCHIVE_CAPACITY = 2000
_NUM_PROBES = 32
_PROBE_STEPS = 200


class Engine:
    """Hold everything that simulates.

    Args:
        env: The training env; only read.
        planner: Settings of the expert; None: the preset of the env.
        dynamics: True model; None: the fastest exact backend.
        substeps: Of the coarse model that sampling starts on; 0: none.
        num_simulations: Closed-loop simulations.
        num_eval_episodes: Episodes per evaluation.
        random_share: Share of random choices among sampled actions, where they are discrete.
        seed: Of start states and of the expert.
        expert_policy: Proposes plans to the expert; None: nobody does.

    Attributes:
        dynamics: True model, behind the expert and every evaluation.
        expert: Labels states.
        labeler: Chooses which.
        archive: States to restart simulations from.
        view: Shows simulations to the policy.
        is_coarse: Whether sampling runs on the coarse model.
        archive_share: Share of restarts that begin from archived states.
        beta: Share of expert states among archived starts.
    """

    def __init__(
        self,
        env: VecEnv,
        *,
        planner: MPPIConfig | None,
        dynamics: Dynamics | None,
        substeps: int,
        num_simulations: int,
        num_eval_episodes: int,
        random_share: float,
        seed: np.random.SeedSequence,
        expert_policy: Policy | None = None,
    ) -> None:
        self._env = cloneable = sub_env(env)
        self._made_from = cloneable.snapshot()  # private copies keep what a reset leaves as it is
        self.dynamics = dynamics or make_dynamics(env)
        self._owns_dynamics = dynamics is None
        self._coarse = (
            coarse_model_of(self.dynamics, substeps, "pass substeps=0") if substeps else None
        )
        self._num_simulations = num_simulations
        start_seed, eval_seed, sampling_seed, expert_seed = seed.spawn(4)
        self._start_rng = np.random.default_rng(start_seed)
        self._sampling_rng = np.random.default_rng(sampling_seed)
        self.expert = MPPIAgent(
            env,
            planner or MPPIConfig.for_env(cloneable, role="label"),
            dynamics=self.dynamics,
            policy=expert_policy,
            policy_leads=False,
            seed=int(expert_seed.generate_state(1)[0]),
        )
        self.labeler = Labeler(self.expert, env.num_envs)
        self.archive = StateArchive(_ARCHIVE_CAPACITY)
        self.view = PolicyView(env, env.action_space, random_share)
        self.is_coarse = self._coarse is not None
        self.archive_share = 0.0
        self.beta = 0.0
        self.max_episode_steps = self.dynamics.max_episode_steps or DEFAULT_EPISODE_STEPS
        self._reset_pool = self.dynamics.initial_states(_RESET_POOL, self._start_rng)
        self._eval_states = self.dynamics.initial_states(
            num_eval_episodes, np.random.default_rng(eval_seed)
        )
        self._probe_states = self.dynamics.initial_states(_NUM_PROBES, self._start_rng)
        self._probing: dict[int, Simulations] = {}
        self._evaluations: dict[bool, Simulations] = {}
        self.sampler = self._make_sampler()

    def use_true_model(self) -> None:
        """Sample on the true model from now on."""
        self.is_coarse = False
        self.sampler.close()
        self.sampler = self._make_sampler()

    def evaluate(
        self, policy: ActorCriticPolicy, discount: float | None = None, *, on_coarse: bool = False
    ) -> Evaluation:
        """Evaluate the deterministic policy on held-out resets, its value head if asked to."""
        if on_coarse not in self._evaluations:
            dynamics = self._coarse if on_coarse and self._coarse else self.dynamics
            self._evaluations[on_coarse] = dynamics.simulations(len(self._eval_states))
        simulations = self._evaluations[on_coarse]
        found = evaluate(
            policy,
            self.view,
            simulations,
            self._eval_states,
            self.max_episode_steps,
            discount=discount,
        )
        if found.num_cut and self.dynamics.max_episode_steps is None:
            warnings.warn(
                "the env has no TimeLimit and episodes did not end by themselves, so that training "
                f"simulates and evaluates them for {DEFAULT_EPISODE_STEPS} steps; wrap it in "
                "gymnasium.wrappers.TimeLimit(env, max_episode_steps=...), inside of Cloneable",
                stacklevel=2,
            )
        return found

    def probe(self, policy: ActorCriticPolicy, archived: Sequence[EnvState] = ()) -> Probe:
        """Evaluate the beginning of episodes, from fixed resets and from archived states."""
        states = [*self._probe_states, *archived]
        if len(states) not in self._probing:
            self._probing[len(states)] = self.dynamics.simulations(len(states))
        num_steps = min(_PROBE_STEPS, self.max_episode_steps)
        simulations = self._probing[len(states)]
        found = evaluate(policy, self.view, simulations, states, num_steps)
        resets, others = np.split(found.returns, [len(self._probe_states)])
        return Probe(resets, others, found.sim_steps)

    def archived_probe_states(self, rng: np.random.Generator) -> list[EnvState]:
        """Draw states for a probe to begin from, too, while sampling does; else none."""
        if not (self.archive_share and len(self.archive)):
            return []
        return self.archive.draw(_NUM_PROBES // 2, self.beta, rng)

    @property
    def evaluation_steps(self) -> int:
        """Return the most env steps that an evaluation simulates."""
        return len(self._eval_states) * self.max_episode_steps

    def expert_episodes(
        self, num: int, num_steps: int, should_stop: Callable[[], bool]
    ) -> ExpertEpisodes:
        """Let the expert act from `num` resets."""
        num_steps = min(num_steps, self.max_episode_steps)
        with closing(self.dynamics.simulations(num)) as simulations:
            return expert_episodes(
                self.expert,
                simulations,
                self.dynamics.initial_states(num, self._start_rng),
                num_steps,
                should_stop,
            )

    def demonstrated_states(self, demonstrations: Sequence[Demonstration]) -> list[EnvState]:
        """Return states on the way of demonstrations, half of what the archive has room for."""
        return demonstrated_states(self._env, demonstrations, _ARCHIVE_CAPACITY // 2)

    def refresh_resets(self, num: int) -> None:
        """Replace some of the reset states by new draws."""
        for state in self.dynamics.initial_states(num, self._start_rng):
            self._reset_pool[int(self._start_rng.integers(len(self._reset_pool)))] = state

    def start_states(
        self, num: int, rng: np.random.Generator
    ) -> tuple[Sequence[EnvState], np.ndarray]:
        """Return `num` starts and whether each is a reset."""
        is_reset = rng.random(num) >= (self.archive_share if len(self.archive) else 0.0)
        archived = iter(
            self.archive.draw(int((~is_reset).sum()), self.beta, rng) if not is_reset.all() else []
        )
        picks = rng.integers(len(self._reset_pool), size=num)
        states = [
            self._reset_pool[pick] if reset else next(archived)
            for pick, reset in zip(picks, is_reset, strict=True)
        ]
        return states, is_reset

    def state_dict(self) -> dict[str, Any]:
        """Return what the rest of a training depends on; picklable."""
        return {
            "made_from": self._made_from,
            "is_coarse": self.is_coarse,
            "start_rng": self._start_rng.bit_generator.state,
            "reset_pool": self._reset_pool,
            "eval_states": self._eval_states,
            "probe_states": self._probe_states,
            "archive": self.archive,
            "expert": self.expert.state_dict(),
            "labeler": self.labeler.state_dict(),
            "sampler": self.sampler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        This engine must have the same settings and an env that was in the state `made_from`.
        """
        if self.is_coarse and not state["is_coarse"]:
            self.use_true_model()
        self._start_rng.bit_generator.state = state["start_rng"]
        self._reset_pool = state["reset_pool"]
        self._eval_states = state["eval_states"]
        self._probe_states = state["probe_states"]
        self.archive = state["archive"]
        self.expert.load_state_dict(state["expert"])
        self.labeler.load_state_dict(state["labeler"])
        self.sampler.load_state_dict(state["sampler"])

    def close(self) -> None:
        """Free processes and simulations that were made here."""
        self.sampler.close()
        self.expert.close()
        for simulations in (*self._evaluations.values(), *self._probing.values()):
            simulations.close()
        if self._owns_dynamics:
            self.dynamics.close()
        if self._coarse is not None:
            self._coarse.close()

    def _make_sampler(self) -> ClosedLoopSampler:
        dynamics = self._coarse if self.is_coarse and self._coarse else self.dynamics
        return ClosedLoopSampler(
            dynamics.simulations(self._num_simulations),
            self.start_states,
            self.max_episode_steps,
            self._sampling_rng,
        )
