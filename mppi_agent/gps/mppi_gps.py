"""MPPIGPS: guided policy search with an MPPI expert, as a Stable-Baselines3 algorithm.

A round: the student acts in the real env (collect), cloned simulations carry on under the student
plus noise (sample) and improve it by their weighted samples (train), the planner labels states
where it measurably beats the student (label), and the best policy so far is kept (monitor).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from mppi_agent.cloning import Cloneable, find_cloneable
from mppi_agent.dynamics import sub_env
from mppi_agent.dynamics.observations import select_rows
from mppi_agent.gps.dataset import LabelBatch, LabelDataset
from mppi_agent.gps.engine import Engine
from mppi_agent.gps.improvement import TrustRegionUpdate, UpdateConfig
from mppi_agent.gps.labels import Gap, LabelReport, StudentStep
from mppi_agent.gps.monitor import BestPolicy, Evaluation
from mppi_agent.gps.policies import (
    CnnPolicy,
    MlpPolicy,
    MultiInputPolicy,
    action_scaling,
    default_policy_kwargs,
    update_normalizers,
)
from mppi_agent.gps.presets import preset_for
from mppi_agent.gps.regression import LabelRegression
from mppi_agent.gps.sampler import SampleBatch
from mppi_agent.gps.view import PolicyView, flatten_time
from mppi_agent.interfaces import Dynamics
from mppi_agent.planning import MPPIConfig

__all__ = ["MPPIGPS"]


class MPPIGPS(BaseAlgorithm):
    """Train an SB3 actor-critic policy from simulated samples and an MPPI expert's plans.

    An argument left at None takes the env's preset from `gps/presets.py`.

    Args:
        policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy" or an `ActorCriticPolicy` class.
        env: Env id, Gymnasium env, or a `VecEnv` whose envs are `Cloneable`; only its `step` and
            `reset` are used, planning happens on private copies.
        learning_rate: Of the optimiser, or a schedule; the trust region scales it.
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
        archive_share: Share of restarted simulations that begin from archived states.
        expert_episodes: Episodes of the expert before the first round; 0: none.
        expert_steps: Longest of these, control steps.
        label_states: States per labelling call; 0 switches the planner's labels off.
        label_steps: Most regression steps on labels per round; the measured gap scales them.
        planner_share: Largest share of simulated steps spent on plans; the gap scales it.
        eval_episodes: Held-out episodes per evaluation of the student.
        substeps: Of the coarse model that sampling begins on; 0: true model throughout.
        planner: Settings of the expert; None: the env's preset.
        dynamics: Simulates; None: the fastest exact backend.
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
        learning_rate: float | Schedule = 3e-4,
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
        num_simulations: int = 256,
        simulation_steps: int = 32,
        init_std: float = 0.5,
        min_std: float | None = None,
        archive_share: float = 0.25,
        expert_episodes: int = 2,
        expert_steps: int = 150,
        label_states: int = 8,
        label_steps: int = 10,
        planner_share: float = 0.5,
        eval_episodes: int = 16,
        substeps: int | None = None,
        planner: MPPIConfig | None = None,
        dynamics: Dynamics | None = None,
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
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.clip_range = clip_range
        self.ent_coef = ent_coef
        self.vf_coef = vf_coef
        self.max_grad_norm = max_grad_norm
        self.target_kl = target_kl
        self.num_simulations = num_simulations
        self.simulation_steps = simulation_steps
        self.init_std = init_std
        self.min_std = min_std
        self.archive_share = archive_share
        self.expert_episodes = expert_episodes
        self.expert_steps = expert_steps
        self.label_states = label_states
        self.label_steps = label_steps
        self.planner_share = planner_share
        self.eval_episodes = eval_episodes
        self.substeps = substeps
        self.planner = planner
        self.dynamics = dynamics
        self.budget_used = 0.0
        self.num_sim_steps = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._engine: Engine | None = None
        if not hasattr(self, "_rngs"):
            self._start_afresh()
        # What a saved model leaves behind: labels have a file of their own.
        self.replay_buffer = LabelDataset(half_life=50.0, capacity=50_000)
        self._best = BestPolicy()
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)
        self.label_optimizer = th.optim.Adam(self.policy.parameters(), lr=self.lr_schedule(1))
        half_range, centre = action_scaling(self.policy)
        if half_range is not None and centre is not None:
            with th.no_grad():
                self.policy.log_std.copy_((half_range * self.init_std).log())
                self.policy.action_net.bias.copy_(centre)

    def _start_afresh(self) -> None:
        """Fill presets in, check the settings and make what a saved model carries with it."""
        preset = preset_for(_env_id(self.env))
        for name, value in preset.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        _check(self)
        self.policy_kwargs = {
            **default_policy_kwargs(self.policy_class),
            **self.policy_kwargs,
        }
        names = ("engine", "update", "labels", "dataset")
        children = np.random.SeedSequence(self.seed).spawn(len(names))
        self._engine_seed = children[0]
        self._rngs = {
            name: np.random.default_rng(child)
            for name, child in zip(names[1:], children[1:], strict=True)
        }
        config = UpdateConfig(
            batch_size=self.batch_size,
            n_epochs=self.n_epochs,
            clip_range=self.clip_range,
            target_kl=self.target_kl,
            vf_coef=self.vf_coef,
            ent_coef=self.ent_coef,
            max_grad_norm=self.max_grad_norm,
            min_std=self.min_std,
        )
        self._update = TrustRegionUpdate(config, self._rngs["update"])
        self._regression = LabelRegression(max_grad_norm=self.max_grad_norm)
        self._gap = Gap()
        self._round = 0
        self._seconds: dict[str, float] = {}
        self._steps_to_plan = 0.0
        self._steps_to_evaluate = 0.0
        self._coarse_failures = 0

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
        self.budget_used = 0.0
        iteration = 0
        try:
            engine = self._get_engine()
            if self._round == 0:
                self._learn_from_expert(engine)
            elif self._best.is_empty:
                self._offer(engine)  # a loaded policy is the one to beat
            while self.num_timesteps < total_timesteps:
                if not self.collect_rollouts(engine, callback, total_timesteps):
                    break
                iteration += 1
                self._round += 1
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                samples = self._sample(engine)
                self.train(samples)
                self._label(engine)
                self._monitor(engine)
                if log_interval is not None and iteration % log_interval == 0:
                    self.dump_logs(iteration)
        finally:
            # Also on Ctrl-C: what is kept is the best policy, not the latest.
            self._keep_best()
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
        with self._timed("collect"):
            for _ in range(self.n_steps):
                if self.num_timesteps >= total_timesteps:
                    break
                states = env.env_method("snapshot")
                observation = self._last_obs
                actions = engine.view.best_actions(self.policy, observation)
                new_obs, rewards, dones, infos = env.step(actions)
                self.num_timesteps += env.num_envs
                callback.update_locals(locals())
                if not callback.on_step():
                    return False
                self._update_info_buffer(infos, dones)
                for i, state in enumerate(states):
                    seen = select_rows(observation, i)
                    engine.labeler.record(i, StudentStep(state, seen, actions[i], bool(dones[i])))
                self._last_obs = new_obs
                self._last_episode_starts = dones
            engine.archive.add_student(states)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def train(self, samples: SampleBatch) -> None:
        """Improve the policy by a round's weighted samples."""
        with self._timed("train"):
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
        self._record("train", figures)
        self.logger.record("train/advantage_std", float(advantages.std()))
        if isinstance(self.policy.action_dist, DiagGaussianDistribution):
            self.logger.record("train/std", self.policy.log_std.exp().mean().item())
        if samples.episode_returns:
            self.logger.record("rollout/sim_ep_rew_mean", safe_mean(samples.episode_returns))
        self.logger.record("rollout/sim_diverged", float((~samples.valid).mean()))

    def predict_values(self, observation: Any) -> np.ndarray:
        """Return the value head for a batch of env observations, reward units, shape (N,).

        Args:
            observation: As the env shows it, shape (N, *obs).
        """
        view = PolicyView(self.env, self.action_space)
        return view.values(self.policy, view.observe(observation))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log, with SB3's keys and ours."""
        assert self.ep_info_buffer is not None and self.ep_success_buffer is not None
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        fps = int((self.num_timesteps - self._num_timesteps_at_start) / elapsed)
        if iteration > 0:
            self.logger.record("time/iterations", iteration, exclude="tensorboard")
        if len(self.ep_info_buffer) > 0 and len(self.ep_info_buffer[0]) > 0:
            for name, key in (("ep_rew_mean", "r"), ("ep_len_mean", "l")):
                mean = safe_mean([info[key] for info in self.ep_info_buffer])
                self.logger.record(f"rollout/{name}", mean)
        if len(self.ep_success_buffer) > 0:
            self.logger.record("rollout/success_rate", safe_mean(self.ep_success_buffer))
        self.logger.record("time/fps", fps)
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.record("planner/sim_steps", self.num_sim_steps)
        for phase, seconds in self._seconds.items():
            self.logger.record(f"seconds/{phase}", seconds)
        self.logger.dump(step=self.num_timesteps)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Change the training env; simulations, plans and archived states are dropped."""
        super().set_env(_cloneable(env), force_reset)
        self._close_engine()

    def _learn_from_expert(self, engine: Engine) -> None:
        """Archive and regress on the expert's first episodes."""
        if self.expert_episodes == 0:
            return
        with self._timed("expert"):
            states, labels, sim_steps = engine.expert_episodes(
                self.expert_episodes, self.expert_steps
            )
            self.num_sim_steps += sim_steps
            engine.archive.add_expert(states)
            update_normalizers(self.policy, labels.observations)
            self.replay_buffer.add(labels, self._round)
            steps = 20 * self.label_steps
            loss = self._regression.fit(self.policy, self.label_optimizer, self._draw_labels, steps)
        self.logger.record("train/expert_loss", loss)

    def _sample(self, engine: Engine) -> SampleBatch:
        with self._timed("sample"):
            # DAgger's beta: the further the student is behind, the more often a simulation
            # starts where the expert has been.
            engine.beta = self._gap.share
            engine.refresh_resets(4)
            samples = engine.sampler.sample(self.policy, engine.view, self.simulation_steps)
        self.num_sim_steps += samples.sim_steps
        self._steps_to_evaluate += samples.sim_steps
        share = self.planner_share * max(self._gap.share, 0.05)
        self._steps_to_plan += samples.sim_steps * share / (1 - share)
        return samples

    def _label(self, engine: Engine) -> None:
        """Plan for some of the student's states, as often as the measured gap deserves."""
        cost = self.label_states * engine.expert.config.steps_per_plan
        if self.label_states and self._steps_to_plan >= cost:
            with self._timed("plan"):
                report = engine.labeler.label(
                    self.label_states, self._rngs["labels"], self.predict_values
                )
            if report is not None:
                self._steps_to_plan -= cost
                self._take_in(report)
        steps = round(self.label_steps * self._gap.share)
        if steps and len(self.replay_buffer):
            with self._timed("regress"):
                loss = self._regression.fit(
                    self.policy, self.label_optimizer, self._draw_labels, steps
                )
            self.logger.record("train/label_loss", loss)

    def _take_in(self, report: LabelReport) -> None:
        self.num_sim_steps += report.sim_steps
        self._gap.update(report)
        if report.labels is not None:
            self.replay_buffer.add(report.labels, self._round)
        self._record(
            "planner",
            {
                "gap": self._gap.share,
                "gain": report.gain,
                "student_return": report.student_return,
                "acceptance": report.acceptance,
                "ess": report.ess,
                "diverged": report.diverged,
            },
        )

    def _monitor(self, engine: Engine) -> None:
        """Evaluate at a tenth of the simulated steps; keep the best, watch the coarse model."""
        if self._steps_to_evaluate < 9 * engine.evaluation_steps:
            return
        self._steps_to_evaluate = 0.0
        with self._timed("evaluate"):
            result = self._offer(engine)
            self.logger.record("eval/mean_reward", result.mean)
            self.logger.record("eval/min_reward", float(result.returns.min()))
            if engine.is_coarse:
                coarse = engine.evaluate(self.policy, on_coarse=True)
                self.num_sim_steps += coarse.sim_steps
                self.logger.record("eval/coarse_mean_reward", coarse.mean)
                exploited = coarse.mean - result.mean > 0.2 * abs(coarse.mean)
                self._coarse_failures = self._coarse_failures + 1 if exploited else 0
                if self._coarse_failures >= 3 or self._current_progress_remaining < 0.4:
                    engine.use_true_model()

    def _keep_best(self) -> None:
        """Compare the latest policy with the best and keep the better one."""
        if self._engine is None:
            return
        self._offer(self._engine)
        self._best.restore(self.policy)

    def _offer(self, engine: Engine) -> Evaluation:
        """Evaluate the policy and keep its weights if it is the best so far."""
        result = engine.evaluate(self.policy)
        self.num_sim_steps += result.sim_steps
        self._best.offer(self.policy, result.mean)
        return result

    def _draw_labels(self, num: int) -> LabelBatch | None:
        return self.replay_buffer.sample(num, self._round, self._rngs["dataset"])

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self._current_progress_remaining = min(
            self._current_progress_remaining, 1.0 - self.budget_used
        )

    def _get_engine(self) -> Engine:
        if self._engine is None:
            assert self.env is not None
            self._engine = Engine(
                self.env,
                planner=self.planner,
                dynamics=self.dynamics,
                substeps=self.substeps or 0,
                num_simulations=self.num_simulations,
                num_eval_episodes=self.eval_episodes,
                archive_share=self.archive_share,
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
        return [*super()._excluded_save_params(), "_engine", "dynamics", "_best"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer", "label_optimizer"], []

    def _record(self, group: str, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.logger.record(f"{group}/{name}", value)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self._seconds[phase] = self._seconds.get(phase, 0.0) + spent


def _cloneable(env: Any) -> Any:
    """Wrap a single env in `Cloneable`; check that the envs of a `VecEnv` are wrapped."""
    if env is None:
        return None
    if isinstance(env, str):
        env = gym.make(env)
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


def _check(model: MPPIGPS) -> None:
    """Refuse settings that cannot work, at construction."""
    if model.env is None:
        return
    if not isinstance(model.action_space, spaces.Box):
        raise ValueError(
            f"action_space={model.action_space} is not supported: MPPIGPS needs a bounded Box; "
            "wrap the env so that it takes continuous actions"
        )
    wants: dict[str, Callable[[Any], bool]] = {
        "n_steps an int >= 1": lambda v: _is_int(v, 1),
        "batch_size an int >= 2": lambda v: _is_int(v, 2),
        "n_epochs an int >= 1": lambda v: _is_int(v, 1),
        "num_simulations an int >= 1": lambda v: _is_int(v, 1),
        "simulation_steps an int >= 2": lambda v: _is_int(v, 2),
        "eval_episodes an int >= 1": lambda v: _is_int(v, 1),
        "expert_episodes an int >= 0": lambda v: _is_int(v, 0),
        "expert_steps an int >= 1": lambda v: _is_int(v, 1),
        "label_states an int >= 0": lambda v: _is_int(v, 0),
        "label_steps an int >= 0": lambda v: _is_int(v, 0),
        "substeps an int >= 0": lambda v: _is_int(v, 0),
        "gamma in (0, 1]": lambda v: 0 < v <= 1,
        "gae_lambda in [0, 1]": lambda v: 0 <= v <= 1,
        "clip_range > 0": lambda v: v > 0,
        "target_kl > 0": lambda v: v > 0,
        "init_std > 0": lambda v: v > 0,
        "min_std > 0": lambda v: v > 0,
        "archive_share in [0, 1]": lambda v: 0 <= v <= 1,
        "planner_share in [0, 1)": lambda v: 0 <= v < 1,
    }
    for want, holds in wants.items():
        name, _, condition = want.partition(" ")
        value = getattr(model, name)
        if not holds(value):
            raise ValueError(f"{name} must be {condition}, got {value!r}")


def _is_int(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least
