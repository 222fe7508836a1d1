"""The SB3 side of guided policy search: env, learn loop and files.

What `OnPolicyAlgorithm` is to PPO, `GuidedAlgorithm` is to MPPIGPS. Its loop collects in the real
env; what makes the policy better happens in simulations, in `improve`.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import load_from_pkl, save_to_pkl
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv

from mppi_agent.gps.dataset import LabelDataset
from mppi_agent.gps.engine import Engine
from mppi_agent.gps.labels import StudentStep
from mppi_agent.gps.monitor import Monitor
from mppi_agent.gps.resume import ResumePoint, write_file
from mppi_agent.gps.schedules import PhaseTimer, one_thread
from mppi_agent.gps.settings import cloneable_env

__all__ = ["GuidedAlgorithm"]

# What `load` drops or a plain `save` leaves out, beside what simulates.
_OF_A_RUN = ("_round_step", "_last_obs", "_last_original_obs")


class GuidedAlgorithm(BaseAlgorithm):
    """Learn in rounds: act in the real env for some steps, then improve in simulations.

    Args:
        policy: As in SB3.
        env: Env id, Gymnasium env, or a `VecEnv` whose envs are `Cloneable`.
        learning_rate: As in SB3.
        n_steps: Real steps per env and round.
        stats_window_size: As in SB3.
        tensorboard_log: As in SB3.
        policy_kwargs: As in SB3.
        verbose: As in SB3.
        seed: As in SB3.
        device: As in SB3.

    Attributes:
        num_timesteps: Real env steps of the student.
        num_sim_steps: Env steps simulated beside them.
        replay_buffer: The planner's labels.
        clock: Share of a time budget that is used, where one was set.
        resume_point: The run of a loaded checkpoint, until training goes on.
    """

    policy: ActorCriticPolicy
    gamma: float
    _monitor: Monitor

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        *,
        n_steps: int,
        stats_window_size: int,
        tensorboard_log: str | None,
        policy_kwargs: dict[str, Any] | None,
        verbose: int,
        seed: int | None,
        device: th.device | str,
    ) -> None:
        super().__init__(
            policy=policy,
            env=cloneable_env(env),
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
        self.num_sim_steps = 0
        # A saved model leaves its labels behind, as SB3's off-policy algorithms do.
        self.replay_buffer = LabelDataset(half_life=50.0, capacity=50_000)
        self.clock: Callable[[], float] | None = None
        self.resume_point: ResumePoint | None = None
        self._engine: Engine | None = None
        self._timer = PhaseTimer()
        self._round = 0
        self._round_step = 0
        self._resets_at_the_end: list[int] = []

    @abstractmethod
    def make_engine(self) -> Engine:
        """Return what simulates the env that the model has now."""

    @abstractmethod
    def prepare(self, engine: Engine) -> None:
        """Do what comes once, before the first round."""

    @abstractmethod
    def improve(self, engine: Engine) -> None:
        """Make the policy better, after the steps that a round took in the real env."""

    def learn(
        self,
        total_timesteps: int = 20_000,
        callback: MaybeCallback = None,
        log_interval: int | None = 10,
        tb_log_name: str = "MPPIGPS",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
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
        self._require_env()
        self._take_up(reset_num_timesteps)
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        iteration = 0
        with self._best_at_the_end():
            engine = self._get_engine()
            if not (self._round or self._round_step):
                self.prepare(engine)
            while self.num_timesteps < total_timesteps or self._round_step:
                if not self.collect_rollouts(engine, callback, total_timesteps):
                    break
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                self.improve(engine)
                self._round += 1
                self._round_step = 0
                iteration += 1
                if log_interval is not None and iteration % log_interval == 0:
                    self.dump_logs(iteration)
            if log_interval is not None and iteration % log_interval:
                self.dump_logs(iteration)  # of what came after the last one
        callback.on_training_end()
        return self

    def collect_rollouts(
        self, engine: Engine, callback: BaseCallback, total_timesteps: int
    ) -> bool:
        """Let the student act in the real env until the round has its `n_steps` per env.

        Returns:
            False if a callback asked to stop.
        """
        env = self.env
        assert env is not None
        callback.on_rollout_start()
        with self._timer.phase("collect"):
            while self._round_step < self.n_steps and self.num_timesteps < total_timesteps:
                states = env.env_method("snapshot")
                observation: Any = self._last_obs
                actions = engine.view.best_actions(self.policy, observation)
                new_obs, rewards, dones, infos = env.step(actions)
                self.num_timesteps += env.num_envs
                # All before the callback: training that it saves or stops goes on right behind it.
                self._round_step += 1
                self._last_obs = new_obs  # type: ignore[assignment]
                self._last_episode_starts = dones
                self._update_info_buffer(infos, dones)
                for i, state in enumerate(states):
                    truncated = bool(dones[i]) and infos[i].get("TimeLimit.truncated", False)
                    terminated = bool(dones[i]) and not truncated
                    engine.labeler.record(i, StudentStep(state, actions[i], terminated, truncated))
                callback.update_locals(locals())
                if not callback.on_step():
                    return False
            engine.archive.add_student(engine.labeler.latest_states())
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log, with SB3's keys and ours."""
        self.logger.record("planner/sim_steps", self.num_sim_steps)
        for phase, seconds in self._timer.seconds.items():
            self.logger.record(f"seconds/{phase}", seconds)
        OnPolicyAlgorithm.dump_logs(self, iteration)  # type: ignore[arg-type]

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save the model as SB3 does; a crash meanwhile leaves an older file as it was."""
        save = super().save
        write_file(path, ".zip", lambda file: save(file, exclude, include))

    def save_checkpoint(self, path: str | Path | io.BufferedIOBase) -> None:
        """Save the model with the whole run: labels, env, simulations, random generators.

        `load(path, env=env)` and then `learn(remaining, reset_num_timesteps=False)` give the
        weights that a run without the break gives, bit for bit, on the same kind of machine.
        `env` must be made as it was; its state does not matter. If an update was interrupted
        (Ctrl-C outside a callback), it begins anew.

        Args:
            path: As `save` takes it; the file serves as a saved model, too.
        """
        if self._engine is not None:
            assert self.env is not None
            attributes = {name: getattr(self, name) for name in _OF_A_RUN}
            self.resume_point = ResumePoint.capture(
                self.env, self._engine, self.replay_buffer, attributes
            )
        try:
            self.save(path, include=["resume_point"])
        finally:
            if self._engine is not None:
                self.resume_point = None

    def save_replay_buffer(self, path: str | Path | io.BufferedIOBase) -> None:
        """Save the planner's labels, as SB3's off-policy algorithms save theirs."""
        write_file(path, ".pkl", lambda file: save_to_pkl(file, self.replay_buffer, self.verbose))

    def load_replay_buffer(
        self, path: str | Path | io.BufferedIOBase, truncate_last_traj: bool = True
    ) -> None:
        """Load labels that `save_replay_buffer` wrote.

        Args:
            path: As in SB3.
            truncate_last_traj: Taken as in SB3; labels are no trajectories.

        Raises:
            ValueError: If the file holds something else.
        """
        loaded = load_from_pkl(path, self.verbose)
        if not isinstance(loaded, LabelDataset):
            raise ValueError(
                f"{path} holds a {type(loaded).__name__}, not the labels of an MPPIGPS model; "
                "name a file that save_replay_buffer wrote"
            )
        loaded.date_back_to(self._round)
        self.replay_buffer = loaded

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Change the training env; simulations, plans and archived states are dropped.

        The first env of a model that was loaded without one takes up its checkpoint, if any.
        """
        is_change = self.env is not None
        super().set_env(cloneable_env(env), force_reset)
        if is_change:
            self._forget_run()
            self._monitor = Monitor(self.gamma)  # another env's returns are no measure here

    def _take_up(self, reset_num_timesteps: bool) -> None:
        """Go on where training stopped, in this process or in the one that saved a checkpoint."""
        if reset_num_timesteps:
            if self._round:  # those of an earlier training, not of `learn_from`
                self.num_sim_steps, self._timer = 0, PhaseTimer()
            self._round_step = 0
            self.resume_point = None
            if self._engine is not None:
                self._engine.labeler.forget()  # what comes after the reset is another episode
        elif self.resume_point is not None:
            assert self.env is not None
            self.resume_point.check(self.env)
            self._engine = self.resume_point.restore(self.env, self.make_engine)
            vars(self).update(self.resume_point.attributes)
            self.resume_point = None
        elif self._engine is not None and self._resets_at_the_end != self._count_resets():
            # Somebody else, `evaluate_policy` perhaps, has acted in the env since.
            self._last_obs = None  # SB3 resets the env then
            self._round_step = 0
            self._engine.labeler.forget()

    @contextmanager
    def _best_at_the_end(self) -> Iterator[None]:
        """Train inside, from the latest weights; afterwards, also after Ctrl-C, it is the best."""
        self.policy.set_training_mode(False)
        with one_thread():
            try:
                self._monitor.go_on(self._plain_policy)
                yield
            finally:
                self._resets_at_the_end = self._count_resets()
                self.clock = None  # a callback's, whose training is over
                self.policy.set_training_mode(False)  # an update may have been interrupted
                self.num_sim_steps += self._monitor.finish(self._engine, self._plain_policy)

    def _count_resets(self) -> list[int]:
        return [] if self.env is None else self.env.get_attr("num_resets")

    @property
    def _plain_policy(self) -> ActorCriticPolicy:
        """The policy without the shell of `th.compile`, which renames its weights."""
        return getattr(self.policy, "_orig_mod", self.policy)

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

    def _require_env(self) -> VecEnv:
        if self.env is None:
            raise ValueError(
                "this model has no env to learn in: call set_env(env), or load it with "
                "MPPIGPS.load(path, env=env)"
            )
        return self.env

    def _go_on_without_steps(self) -> Engine:
        """Return the engine, in the state that a call of `learn` would go on from."""
        env = self._require_env()
        self._take_up(reset_num_timesteps=False)
        if self._last_obs is None:
            self._last_obs = env.reset()  # type: ignore[assignment]
        self._resets_at_the_end = self._count_resets()
        self._monitor.go_on(self._plain_policy)
        return self._get_engine()

    def _get_engine(self) -> Engine:
        if self._engine is None:
            engine = self.make_engine()
            try:
                self.num_sim_steps += self._monitor.judge_anew(engine, self._plain_policy)
            except BaseException:
                engine.close()
                raise
            self._engine = engine  # only now: what was interrupted is judged the next time
        return self._engine

    def _forget_run(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self.resume_point = None
        self._round_step = 0

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return BaseAlgorithm._wrap_env(cloneable_env(env), verbose, monitor_wrapper)

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "_engine",
            "dynamics",
            "expert_policy",
            "clock",
            "resume_point",
            "_round_step",
        ]
