"""MPPIGPS: guided policy search with an MPPI expert, as a Stable-Baselines3 algorithm.

A round: the student acts in the real env (collect), cloned simulations carry on under the student
plus noise (sample) and improve it by their weighted samples (train), the planner labels states
where it measurably beats the student (label), and the best policy so far is kept (monitor).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import LinearSchedule, safe_mean

from mppi_agent.demonstrations import Demonstration
from mppi_agent.dynamics.observations import reshape_leading
from mppi_agent.gps.action_heads import action_head
from mppi_agent.gps.algorithm import GuidedAlgorithm
from mppi_agent.gps.engine import Engine
from mppi_agent.gps.guidance import Guidance
from mppi_agent.gps.improvement import (
    LEAST_EXPLAINED,
    PolicyLoss,
    TrustRegionUpdate,
)
from mppi_agent.gps.inference import values
from mppi_agent.gps.monitor import Monitor
from mppi_agent.gps.policies import (
    CnnPolicy,
    MlpPolicy,
    MultiInputPolicy,
    check_observation_space,
    default_policy_kwargs,
    update_normalizers,
)
from mppi_agent.gps.sampler import SampleBatch
from mppi_agent.gps.schedules import one_thread
from mppi_agent.gps.settings import (
    check_noise,
    check_settings,
    env_id,
    fill_presets,
    guidance_config,
    update_config,
)
from mppi_agent.gps.view import PolicyView
from mppi_agent.interfaces import Dynamics, Policy
from mppi_agent.planning import LeafValue, MPPIConfig

__all__ = ["MPPIGPS"]

_LEARNING_RATE = LinearSchedule(start=3e-4, end=1.5e-5, end_fraction=1.0)


class MPPIGPS(GuidedAlgorithm):
    """Train an SB3 actor-critic policy from simulated samples and an MPPI expert's plans.

    An argument left at None takes the env's preset from `gps/presets.py`.

    Args:
        policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy" or an `ActorCriticPolicy` class.
        env: Env id, Gymnasium env, or a `VecEnv` whose envs are `Cloneable`; only its `step` and
            `reset` are used, planning happens on private copies.
        learning_rate: Of the optimiser, or a schedule; the trust region scales it. The default
            falls from 3e-4, so that the policy settles towards the end.
        n_steps: Real steps per env and round.
        batch_size: Samples per gradient step.
        n_epochs: Passes over a round's samples.
        gamma: Discount per control step.
        gae_lambda: Bias-variance trade-off of the advantages.
        clip_range: Largest relative change of a sample's likelihood that still pays, or a schedule.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss.
        max_grad_norm: Gradient norm limit.
        target_kl: KL divergence per round that the step size is adapted to, nats.
        stats_window_size: Episodes that rollout statistics average over.
        num_simulations: Closed-loop simulations that run side by side (N).
        simulation_steps: Steps of each per round (T).
        init_std: Noise of the untrained Gaussian policy, half-range units.
        min_std: Floor of a Gaussian policy's noise, half-range units.
        random_share: Share of random choices among sampled actions, where they are discrete.
        archive_share: Share of restarted simulations that begin from archived states of student
            and expert, while the planner's labels pay.
        expert_episodes: Episodes of the expert before the first round; 0: none. Eight times as
            many where fewer than a tenth of their steps earn anything.
        expert_steps: Longest of these, control steps.
        label_states: States per labelling call; 0 switches the planner's labels off.
        label_steps: Most regression steps on labels at a time; the measured gap scales them.
        label_interval: Rounds from one regression to the next; failures stretch it.
        planner_share: Largest share of simulated steps spent on plans; the gap scales it.
        eval_episodes: Held-out episodes per evaluation of the student.
        substeps: Of the coarse model that sampling begins on; 0: true model throughout.
        planner: Settings of the expert; None: the env's preset.
        dynamics: Simulates; None: the fastest exact backend.
        expert_policy: Proposes plans to the expert, closed loop: any SB3 model, or whatever has its
            `predict`. The student learns from it where its plans beat the student. Not saved.
        policy_loss: How samples pull on the policy; None: `clipped_loss(clip_range)`. The pure
            path-integral weights are `path_integral_loss(ess_fraction)`, both in
            `mppi_agent.gps.improvement`.
        tensorboard_log: As in SB3.
        policy_kwargs: As in SB3; ours are merged in, and PPO built with `model.policy_kwargs` takes
            the weights as they are.
        verbose: As in SB3.
        seed: Of everything random. The same seed gives the same result at any worker count.
        device: As in SB3.

    Attributes:
        num_timesteps: Real env steps of the student.
        num_sim_steps: Env steps simulated beside them, for samples, plans and evaluations.
        replay_buffer: The planner's labels.

    Raises:
        ValueError: If an argument is out of range, or the env cannot be cloned.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = _LEARNING_RATE,
        n_steps: int = 32,
        batch_size: int = 2048,
        n_epochs: int = 5,
        gamma: float | None = None,
        gae_lambda: float | None = None,
        clip_range: float | Schedule = 0.2,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 1.0,
        target_kl: float = 0.02,
        stats_window_size: int = 100,
        num_simulations: int | None = None,
        simulation_steps: int | None = None,
        init_std: float = 0.5,
        min_std: float | None = None,
        random_share: float = 0.02,
        archive_share: float = 0.25,
        expert_episodes: int | None = None,
        expert_steps: int = 150,
        label_states: int = 8,
        label_steps: int = 100,
        label_interval: int = 10,
        planner_share: float = 0.5,
        eval_episodes: int = 16,
        substeps: int | None = None,
        planner: MPPIConfig | None = None,
        dynamics: Dynamics | None = None,
        expert_policy: Policy | None = None,
        policy_loss: PolicyLoss | None = None,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            n_steps=n_steps,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
        )
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        # None only until `_start_afresh` has filled the presets in.
        self.gamma: float = gamma  # type: ignore[assignment]
        self.gae_lambda: float = gae_lambda  # type: ignore[assignment]
        self.clip_range = clip_range
        self.ent_coef = ent_coef
        self.vf_coef = vf_coef
        self.max_grad_norm = max_grad_norm
        self.target_kl = target_kl
        self.num_simulations: int = num_simulations  # type: ignore[assignment]
        self.simulation_steps: int = simulation_steps  # type: ignore[assignment]
        self.init_std = init_std
        self.min_std: float = min_std  # type: ignore[assignment]
        self.random_share = random_share
        self.archive_share = archive_share
        self.expert_episodes: int = expert_episodes  # type: ignore[assignment]
        self.expert_steps = expert_steps
        self.label_states = label_states
        self.label_steps = label_steps
        self.label_interval = label_interval
        self.planner_share = planner_share
        self.eval_episodes = eval_episodes
        self.substeps: int = substeps  # type: ignore[assignment]
        self.planner = planner
        self.dynamics = dynamics
        self.expert_policy = expert_policy
        self.policy_loss = policy_loss
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        super().set_random_seed(self.seed)
        if not hasattr(self, "_update"):
            self._start_afresh()
        elif self.seed != getattr(self, "_spawned_from", self.seed):  # given to `load`
            self._reseed()
        self._configure()
        check_observation_space(self.observation_space)
        if self.resume_point is not None:
            self.replay_buffer = self.resume_point.labels
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)
        self.label_optimizer = th.optim.Adam(self.policy.parameters(), lr=self.lr_schedule(1))
        action_head(self.action_space).initialise(self.policy, self.init_std)

    def _configure(self) -> None:
        """Hand the settings on; also after `load`, which may change them."""
        check_settings(self)
        self._update.configure(update_config(self), self.policy_loss)
        self._guidance.configure(guidance_config(self))

    def _start_afresh(self) -> None:
        """Fill presets in, check the settings and make what a saved model carries with it."""
        fill_presets(self, env_id(self.env))
        check_noise(self)
        self.policy_kwargs = {
            **default_policy_kwargs(self.policy_class),
            **self.policy_kwargs,
        }
        update_seed, label_seed = self._spawn_seeds()
        self._update = TrustRegionUpdate(np.random.default_rng(update_seed))
        self._guidance = Guidance(label_seed)
        self._monitor = Monitor(self.gamma)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed everything random, as the constructor's `seed` does; best before `learn`.

        Simulations that a training has begun with keep their seeds.
        """
        super().set_random_seed(seed)
        if seed is not None:
            self.seed = seed
            self._reseed()

    def _reseed(self) -> None:
        update_seed, label_seed = self._spawn_seeds()
        self._update.reseed(np.random.default_rng(update_seed))
        self._guidance.reseed(label_seed)

    def _spawn_seeds(self) -> list[np.random.SeedSequence]:
        """Return the seeds of what learns; simulations made from now on have theirs, too."""
        self._spawned_from = self.seed
        self._engine_seed, *others = np.random.SeedSequence(self.seed).spawn(3)
        return others

    def make_engine(self) -> Engine:
        """Return simulations, expert and archive for the env that the model has now."""
        assert self.env is not None
        return Engine(
            self.env,
            planner=self.planner,
            dynamics=self.dynamics,
            substeps=self.substeps,
            num_simulations=self.num_simulations,
            num_eval_episodes=self.eval_episodes,
            random_share=self.random_share,
            seed=self._engine_seed,
            expert_policy=self.expert_policy,
        )

    def learn_from(
        self, demonstrations: Sequence[Demonstration], gradient_steps: int = 2000
    ) -> Self:
        """Learn from episodes that somebody else acted in; then `learn` goes on from there.

        The policy regresses on their actions, and its noise falls to what that leaves of them.
        Their steps stay among the labels, beside the planner's. Simulations may start from the
        states on the way of episodes that have a seed.

        Args:
            demonstrations: Of the env that this model learns in; rewards are not needed.
            gradient_steps: Of 256 labels each.

        Returns:
            This model.

        Raises:
            ValueError: If the model has no env, or demonstrations come from another one.
        """
        self.policy.set_training_mode(False)
        with one_thread():
            engine = self._go_on_without_steps()
            self.num_sim_steps += self._guidance.imitate(
                engine,
                self._plain_policy,
                self.label_optimizer,
                self.replay_buffer,
                demonstrations,
                num_steps=gradient_steps,
                min_std=self.min_std,
            )
            if self._vec_normalize_env is not None:  # whose statistics the demonstrations moved
                self.num_sim_steps += self._monitor.judge_anew(engine, self._plain_policy)
            self.num_sim_steps += self._update.acquaint_values(
                self._plain_policy,
                lambda p: engine.sampler.sample(p, engine.view, self.simulation_steps),
                discount=self.gamma,
                gae_lambda=self.gae_lambda,
                learning_rate=self.lr_schedule(self._current_progress_remaining),
            )
            self.num_sim_steps += self._monitor.offer(engine, self._plain_policy).sim_steps
        return self

    def prepare(self, engine: Engine) -> None:
        """Archive the expert's first episodes; they are the first labels, too."""
        if not self.expert_episodes:
            return
        with self._timer.phase("expert"):
            sim_steps, figures = self._guidance.watch_expert(
                engine,
                self.policy,
                self.replay_buffer,
                num_episodes=self.expert_episodes,
                num_steps=self.expert_steps,
                should_stop=self._is_out_of_time,
            )
        self._account(sim_steps, figures)

    def improve(self, engine: Engine) -> None:
        """Sample around the policy, learn from it, label, regress and evaluate."""
        self._guidance.round_number = self._round + 1
        self.train(self._sample(engine))
        self._label(engine)
        self._evaluate(engine)

    def train(self, samples: SampleBatch) -> None:
        """Improve the policy by a round's weighted samples."""
        with self._timer.phase("train"):
            observations = reshape_leading(samples.observations, 2, (-1,))
            if self._round == 0:
                # The first round's samples only tell how observations are distributed.
                update_normalizers(self.policy, observations)
                return
            learning_rate = self.lr_schedule(self._current_progress_remaining)
            self.logger.record("train/learning_rate", learning_rate)
            if callable(self.clip_range):
                self._update.configure(update_config(self), self.policy_loss)
            self.logger.record("train/clip_range", self._update.config.clip_range)
            advantages = samples.advantages(self.gamma, self.gae_lambda)
            figures = self._update.update(
                self.policy, samples, advantages, learning_rate=learning_rate
            )
            update_normalizers(self.policy, observations)
        self._n_updates += self.n_epochs
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        figures |= action_head(self.action_space).figures(self.policy)
        self._account(0, {f"train/{name}": value for name, value in figures.items()})
        self.logger.record("train/advantage_std", float(advantages.std()))

    @property
    def leaf_value(self) -> LeafValue | None:
        """Values for the end of plans; None while the value head explains too little to be used.

        It is judged by returns of fresh samples. Noise-free episodes are no measure: where they
        hardly vary, the best of value heads explains nothing of what is left.
        """
        if self._update.explained_variance < LEAST_EXPLAINED:
            return None
        return LeafValue(self.predict_values, self.gamma)

    def predict_values(self, observation: Any) -> np.ndarray:
        """Return the value head for a batch of env observations, reward units, shape (N,).

        Args:
            observation: As the env shows it, shape (N, *obs).
        """
        if self.env is None:
            tensors, _ = self.policy.obs_to_tensor(observation)  # which turns images as SB3 does
            return values(self.policy, tensors).flatten().cpu().numpy()
        view = PolicyView(self.env, self.action_space)
        return view.values(self.policy, view.observe(observation))

    def _sample(self, engine: Engine) -> SampleBatch:
        with self._timer.phase("sample"):
            engine.archive_share = self.archive_share if self._guidance.is_paying else 0.0
            engine.beta = self._guidance.gap.share  # DAgger's: the lost student starts ahead
            engine.refresh_resets(4)
            samples = engine.sampler.sample(self.policy, engine.view, self.simulation_steps)
        self._account(samples.sim_steps, {"rollout/sim_diverged": float((~samples.valid).mean())})
        if samples.episode_returns:
            self.logger.record("rollout/sim_ep_rew_mean", safe_mean(samples.episode_returns))
        self._monitor.earn(samples.sim_steps)
        self._guidance.earn(samples.sim_steps)
        return samples

    def _label(self, engine: Engine) -> None:
        with self._timer.phase("plan"):
            report = self._guidance.label(engine, self.replay_buffer, self.leaf_value)
        if report is not None:
            figures = {f"planner/{name}": value for name, value in report.figures().items()}
            self._account(report.sim_steps, figures)
            self.logger.record("planner/gap", self._guidance.gap.share)
        with self._timer.phase("regress"):
            self._account(
                *self._guidance.regress(
                    engine, self.policy, self.label_optimizer, self.replay_buffer
                )
            )

    def _evaluate(self, engine: Engine) -> None:
        with self._timer.phase("evaluate"):
            self._account(
                *self._monitor.look(engine, self.policy, self._current_progress_remaining)
            )

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer", "label_optimizer"], []
