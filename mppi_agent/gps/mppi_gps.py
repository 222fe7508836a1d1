"""MPPIGPS: guided policy search with an MPPI expert, as a Stable-Baselines3 algorithm.

A round: the student acts in the real env (collect), cloned simulations carry on under the student
plus noise (sample) and improve it by their weighted samples (train), the planner labels states
where it measurably beats the student (label), and the best policy so far is kept (monitor).
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.save_util import load_from_pkl, save_to_pkl
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import LinearSchedule, safe_mean
from stable_baselines3.common.vec_env import VecEnv

from mppi_agent.cloning import Cloneable, find_cloneable
from mppi_agent.dynamics import sub_env
from mppi_agent.dynamics.observations import select_rows
from mppi_agent.gps.dataset import LabelDataset
from mppi_agent.gps.engine import Engine
from mppi_agent.gps.guidance import Guidance, GuidanceConfig
from mppi_agent.gps.improvement import PolicyLoss, TrustRegionUpdate, UpdateConfig
from mppi_agent.gps.labels import StudentStep
from mppi_agent.gps.monitor import Monitor
from mppi_agent.gps.policies import (
    CnnPolicy,
    MlpPolicy,
    MultiInputPolicy,
    default_policy_kwargs,
    initialise_actions,
    mean_std,
    update_normalizers,
)
from mppi_agent.gps.sampler import SampleBatch
from mppi_agent.gps.schedules import PhaseTimer
from mppi_agent.gps.settings import check_action_space, check_settings, fill_presets
from mppi_agent.gps.view import PolicyView, flatten_time
from mppi_agent.interfaces import Dynamics
from mppi_agent.planning import LeafValue, MPPIConfig

__all__ = ["MPPIGPS"]

_LEARNING_RATE = LinearSchedule(start=3e-4, end=1.5e-5, end_fraction=1.0)
_LEAST_EXPLAINED = 0.5  # of the variance of returns


class MPPIGPS(BaseAlgorithm):
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
        clip_range: Largest relative change of a sample's likelihood that still pays.
        ent_coef: Weight of the entropy bonus.
        vf_coef: Weight of the value loss.
        max_grad_norm: Gradient norm limit.
        target_kl: KL divergence per round that the step size is adapted to, nats.
        stats_window_size: Episodes that rollout statistics average over.
        num_simulations: Closed-loop simulations that run side by side (N).
        simulation_steps: Steps of each per round (T).
        init_std: Noise of the untrained policy, half-range units.
        min_std: Floor of the policy's noise, half-range units.
        archive_share: Share of restarted simulations that begin from archived states of student
            and expert, while the planner's labels pay.
        expert_episodes: Episodes of the expert before the first round; 0: none.
        expert_steps: Longest of these, control steps.
        label_states: States per labelling call; 0 switches the planner's labels off.
        label_steps: Most regression steps on labels at a time; the measured gap scales them.
        label_interval: Rounds from one regression to the next; failures stretch it.
        planner_share: Largest share of simulated steps spent on plans; the gap scales it.
        eval_episodes: Held-out episodes per evaluation of the student.
        substeps: Of the coarse model that sampling begins on; 0: true model throughout.
        planner: Settings of the expert; None: the env's preset.
        dynamics: Simulates; None: the fastest exact backend.
        policy_loss: How samples pull on the policy; None: `clipped_loss(clip_range)`. The pure
            path-integral weights are `path_integral_loss(ess_fraction)`.
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
    policy: ActorCriticPolicy

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
        clip_range: float = 0.2,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 1.0,
        target_kl: float = 0.02,
        stats_window_size: int = 100,
        num_simulations: int | None = None,
        simulation_steps: int | None = None,
        init_std: float = 0.5,
        min_std: float | None = None,
        archive_share: float = 0.25,
        expert_episodes: int = 2,
        expert_steps: int = 150,
        label_states: int = 8,
        label_steps: int = 100,
        label_interval: int = 10,
        planner_share: float = 0.5,
        eval_episodes: int = 16,
        substeps: int | None = None,
        planner: MPPIConfig | None = None,
        dynamics: Dynamics | None = None,
        policy_loss: PolicyLoss | None = None,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy=policy,
            env=_cloneable(env),
            learning_rate=learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        self.n_steps = n_steps
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
        self.archive_share = archive_share
        self.expert_episodes = expert_episodes
        self.expert_steps = expert_steps
        self.label_states = label_states
        self.label_steps = label_steps
        self.label_interval = label_interval
        self.planner_share = planner_share
        self.eval_episodes = eval_episodes
        self.substeps: int = substeps  # type: ignore[assignment]
        self.planner = planner
        self.dynamics = dynamics
        self.policy_loss = policy_loss
        self.clock: Callable[[], float] | None = None
        self.num_sim_steps = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._engine: Engine | None = None
        if not hasattr(self, "_update"):
            self._start_afresh()
        self._configure()
        # A saved model leaves its labels behind, as SB3's off-policy algorithms do.
        self.replay_buffer = LabelDataset(half_life=50.0, capacity=50_000)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)
        self.label_optimizer = th.optim.Adam(self.policy.parameters(), lr=self.lr_schedule(1))
        initialise_actions(self.policy, self.init_std)

    def _configure(self) -> None:
        """Hand the settings on; also after `load`, which may change them."""
        check_settings(self)
        self._update.configure(
            UpdateConfig(
                batch_size=self.batch_size,
                n_epochs=self.n_epochs,
                clip_range=self.clip_range,
                target_kl=self.target_kl,
                vf_coef=self.vf_coef,
                ent_coef=self.ent_coef,
                max_grad_norm=self.max_grad_norm,
                min_std=self.min_std,
            ),
            self.policy_loss,
        )
        self._guidance.configure(
            GuidanceConfig(
                num_states=self.label_states,
                max_steps=self.label_steps,
                interval=self.label_interval,
                max_share=self.planner_share,
                max_grad_norm=self.max_grad_norm,
            )
        )

    def _start_afresh(self) -> None:
        """Fill presets in, check the settings and make what a saved model carries with it."""
        fill_presets(self, _env_id(self.env))
        self.policy_kwargs = {
            **default_policy_kwargs(self.policy_class),
            **self.policy_kwargs,
        }
        self._engine_seed, update_seed, label_seed = np.random.SeedSequence(self.seed).spawn(3)
        self._update = TrustRegionUpdate(np.random.default_rng(update_seed))
        self._guidance = Guidance(label_seed)
        self._monitor = Monitor(self.gamma)
        self._timer = PhaseTimer()
        self._round = 0

    def learn(
        self,
        total_timesteps: int = 20_000,
        callback: MaybeCallback = None,
        log_interval: int | None = 10,
        tb_log_name: str = "MPPIGPS",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> MPPIGPS:
        """Train; afterwards the policy is the best one that was evaluated.

        Args:
            total_timesteps: Real env steps of the student.
            callback: As in SB3; called once per real env step.
            log_interval: Rounds between two dumps of the log; None: no log.
            tb_log_name: As in SB3.
            reset_num_timesteps: As in SB3.
            progress_bar: As in SB3.

        Returns:
            This model.

        Raises:
            ValueError: If the model has no env.
        """
        if self.env is None:
            raise ValueError(
                "this model has no env to learn in: call set_env(env), or load it with "
                "MPPIGPS.load(path, env=env)"
            )
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        iteration = 0
        # The networks are small: threads inside one operation only wait for each other.
        num_threads = th.get_num_threads()
        th.set_num_threads(1)
        try:
            engine = self._get_engine()
            engine.labeler.forget()  # the env may have been reset in between
            if self._round == 0 and self.expert_episodes:
                self._watch_expert(engine)
            while self.num_timesteps < total_timesteps:
                if not self.collect_rollouts(engine, callback, total_timesteps):
                    break
                iteration += 1
                self._round += 1
                self._guidance.round_number = self._round
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                samples = self._sample(engine)
                self.train(samples)
                self._label(engine)
                self._evaluate(engine)
                if log_interval is not None and iteration % log_interval == 0:
                    self.dump_logs(iteration)
        finally:
            # Also on Ctrl-C: what is kept is the best policy, not the latest.
            self._keep_best()
            th.set_num_threads(num_threads)
        callback.on_training_end()
        return self

    def collect_rollouts(
        self, engine: Engine, callback: BaseCallback, total_timesteps: int
    ) -> bool:
        """Let the student act in the real env for `n_steps` per env.

        Returns:
            False if a callback asked to stop.
        """
        env = self.env
        assert env is not None
        callback.on_rollout_start()
        self.policy.set_training_mode(False)
        with self._timer.phase("collect"):
            for _ in range(self.n_steps):
                if self.num_timesteps >= total_timesteps:
                    break
                states = env.env_method("snapshot")
                observation: Any = self._last_obs
                actions = engine.view.best_actions(self.policy, observation)
                new_obs, rewards, dones, infos = env.step(actions)
                self.num_timesteps += env.num_envs
                # Before the callback: training that it stops here goes on from the right state.
                self._last_obs = new_obs  # type: ignore[assignment]
                self._last_episode_starts = dones
                callback.update_locals(locals())
                if not callback.on_step():
                    return False
                self._update_info_buffer(infos, dones)
                for i, state in enumerate(states):
                    truncated = bool(dones[i]) and infos[i].get("TimeLimit.truncated", False)
                    terminated = bool(dones[i]) and not truncated
                    seen = select_rows(observation, i)
                    engine.labeler.record(
                        i, StudentStep(state, seen, actions[i], terminated, truncated)
                    )
            engine.archive.add_student(states)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def train(self, samples: SampleBatch) -> None:
        """Improve the policy by a round's weighted samples."""
        with self._timer.phase("train"):
            observations = flatten_time(samples.observations)
            if self._round == 1:
                # The first round's samples only tell how observations are distributed.
                update_normalizers(self.policy, observations)
                return
            learning_rate = self.lr_schedule(self._current_progress_remaining)
            self.logger.record("train/learning_rate", learning_rate)
            advantages = samples.advantages(self.gamma, self.gae_lambda)
            figures = self._update.update(
                self.policy, samples, advantages, learning_rate=learning_rate
            )
            update_normalizers(self.policy, observations)
        self._n_updates += self.n_epochs
        self._account(0, {f"train/{name}": value for name, value in figures.items()})
        self.logger.record("train/advantage_std", float(advantages.std()))
        self.logger.record("train/std", mean_std(self.policy))

    @property
    def leaf_value(self) -> LeafValue | None:
        """Values for the end of plans; None while the value head explains too little to be used.

        It is judged by returns of fresh samples. Noise-free episodes are no measure: where they
        hardly vary, the best of value heads explains nothing of what is left.
        """
        if self._update.explained_variance < _LEAST_EXPLAINED:
            return None
        return LeafValue(self.predict_values, self.gamma)

    def predict_values(self, observation: Any) -> np.ndarray:
        """Return the value head for a batch of env observations, reward units, shape (N,).

        Args:
            observation: As the env shows it, shape (N, *obs).
        """
        view = PolicyView(self.env, self.action_space)
        return view.values(self.policy, view.observe(observation))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log, with SB3's keys and ours."""
        self.logger.record("planner/sim_steps", self.num_sim_steps)
        for phase, seconds in self._timer.seconds.items():
            self.logger.record(f"seconds/{phase}", seconds)
        OnPolicyAlgorithm.dump_logs(self, iteration)  # type: ignore[arg-type]

    def save_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase) -> None:
        """Save the planner's labels, as SB3's off-policy algorithms save theirs."""
        save_to_pkl(path, self.replay_buffer, self.verbose)

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase) -> None:
        """Load labels that `save_replay_buffer` wrote.

        Raises:
            ValueError: If the file holds something else.
        """
        loaded = load_from_pkl(path, self.verbose)
        if not isinstance(loaded, LabelDataset):
            raise ValueError(
                f"{path} holds a {type(loaded).__name__}, not the labels of an MPPIGPS model; "
                "name a file that save_replay_buffer wrote"
            )
        self.replay_buffer = loaded

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Change the training env; simulations, plans and archived states are dropped."""
        super().set_env(_cloneable(env), force_reset)
        self._close_engine()
        self._monitor = Monitor(self.gamma)  # returns in another env are no measure for this one

    def _watch_expert(self, engine: Engine) -> None:
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

    def _keep_best(self) -> None:
        """Compare the latest policy with the best and keep the better one."""
        if self._engine is not None:
            self.num_sim_steps += self._monitor.offer(self._engine, self.policy).sim_steps
            self._monitor.restore_best(self.policy)

    def _account(self, sim_steps: int, figures: dict[str, float]) -> None:
        self.num_sim_steps += sim_steps
        for name, value in figures.items():
            self.logger.record(name, value)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        if self.clock is not None:
            used = min(self.clock(), 1.0)
            self._current_progress_remaining = min(self._current_progress_remaining, 1.0 - used)

    def _is_out_of_time(self) -> bool:
        return self.clock is not None and self.clock() >= 1.0

    def _get_engine(self) -> Engine:
        if self._engine is None:
            assert self.env is not None
            self._engine = Engine(
                self.env,
                planner=self.planner,
                dynamics=self.dynamics,
                substeps=self.substeps,
                num_simulations=self.num_simulations,
                num_eval_episodes=self.eval_episodes,
                seed=self._engine_seed,
            )
        return self._engine

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return BaseAlgorithm._wrap_env(_cloneable(env), verbose, monitor_wrapper)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_engine", "dynamics", "clock"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer", "label_optimizer"], []


def _cloneable(env: Any) -> Any:
    """Wrap a single env in `Cloneable`; check that the envs of a `VecEnv` are wrapped."""
    if env is None:
        return None
    if isinstance(env, str):
        env = gym.make(env)
    check_action_space(env.action_space)
    if isinstance(env, VecEnv):
        sub_env(env)
        return env
    try:
        find_cloneable(env)
    except TypeError:
        return Cloneable(env)
    return env


def _env_id(env: VecEnv | None) -> str | None:
    if env is None:
        return None
    spec = env.get_attr("spec")[0]
    return None if spec is None else spec.id
