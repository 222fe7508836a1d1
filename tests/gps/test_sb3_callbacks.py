"""What SB3's test_callbacks.py and test_logger.py ask of its algorithms, asked of MPPIGPS.

The name behind "SB3:" is the test there that ours stands for.
"""

from __future__ import annotations

import csv
import json
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import (
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy_envs import Target, make_target
from toy_models import Watch, small

from mppi_agent.gps import MPPIGPS


def target(limit: int = 6) -> gym.Env:
    return Monitor(make_target(limit))


def targets(num: int, limit: int = 6) -> DummyVecEnv:
    return DummyVecEnv([lambda: target(limit)] * num)


def test_callbacks_of_all_kinds_work_together(tmp_path):
    """SB3: test_callbacks, test_eval_callback_chaining."""
    checkpoint = CheckpointCallback(8, str(tmp_path))
    stop_on_best = StopTrainingOnRewardThreshold(reward_threshold=1e9)
    stop_on_standstill = StopTrainingOnNoModelImprovement(max_no_improvement_evals=99)
    evaluation = EvalCallback(
        target(),
        callback_on_new_best=stop_on_best,
        callback_after_eval=stop_on_standstill,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        eval_freq=8,
        n_eval_episodes=1,
        verbose=0,
    )
    on_event = CheckpointCallback(1, str(tmp_path), name_prefix="event")
    every_n = EveryNTimesteps(n_steps=12, callback=on_event)
    episodes = StopTrainingOnMaxEpisodes(max_episodes=100)
    everything = CallbackList(
        [checkpoint, evaluation, every_n, LogEveryNTimesteps(n_steps=8), episodes]
    )
    model = small().learn(24, everything)
    for child in (checkpoint, every_n, on_event):
        assert child.locals["new_obs"] is everything.locals["new_obs"]
    assert every_n.num_timesteps == every_n.n_calls == model.num_timesteps == 24
    for name in ("best_model", "rl_model_8_steps", "event_12_steps"):
        MPPIGPS.load(tmp_path / name)
    assert len(np.load(tmp_path / "evaluations.npz")["timesteps"]) == 3
    model.learn(8, lambda _locals, _globals: True)
    assert model.num_timesteps == 8


def test_the_progress_bar_runs_to_the_end(capsys):
    """SB3: test_callbacks (progress_bar=True)."""
    pytest.importorskip("rich")
    pytest.importorskip("tqdm")
    model = small().learn(8, progress_bar=True)
    model.learn(8, progress_bar=True, reset_num_timesteps=False)
    captured = capsys.readouterr()
    assert "8/8" in captured.out + captured.err


def test_episodes_are_counted_in_each_of_several_envs():
    """SB3: test_callbacks (StopTrainingOnMaxEpisodes, two envs)."""
    model = small(targets(2))
    stop = StopTrainingOnMaxEpisodes(max_episodes=1)
    model.learn(100, stop)
    assert stop.n_episodes == 2 and model.num_timesteps == 2 * 6


@pytest.mark.parametrize("false", [False, np.bool_(0), th.tensor(0, dtype=th.bool)])
def test_whatever_is_false_cancels_the_run_at_the_first_call(false):
    """SB3: test_callbacks_can_cancel_runs."""
    calls: list[Any] = []
    small().learn(10, lambda _locals, _globals: calls.append(0) or false)
    assert len(calls) == 1


def test_a_reward_threshold_ends_training():
    """SB3: test_callbacks (StopTrainingOnRewardThreshold)."""
    stop = StopTrainingOnRewardThreshold(reward_threshold=-1e9)
    evaluation = EvalCallback(
        target(), callback_on_new_best=stop, eval_freq=5, n_eval_episodes=1, verbose=0
    )
    assert small().learn(100, evaluation).num_timesteps == 5


def test_no_improvement_ends_training():
    """SB3: test_eval_callback_chaining (StopTrainingOnNoModelImprovement)."""
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1)
    always_zero = Monitor(gym.wrappers.TransformReward(make_target(6), lambda reward: 0.0))
    evaluation = EvalCallback(
        always_zero, callback_after_eval=stop, eval_freq=2, n_eval_episodes=1, verbose=0
    )
    assert small().learn(100, evaluation).num_timesteps == 6


def test_a_vec_env_evaluates():
    """SB3: test_eval_callback_vec_env."""
    evaluation = EvalCallback(targets(3), eval_freq=4, n_eval_episodes=3, verbose=0)
    small().learn(8, evaluation)
    assert np.isfinite(evaluation.last_mean_reward)


def test_evaluations_are_logged_at_their_time_step(tmp_path):
    """SB3: test_eval_callback_logs_are_written_with_the_correct_timestep; test_make_output."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    evaluation = EvalCallback(target(), eval_freq=5, n_eval_episodes=1, verbose=0)
    model = small(tensorboard_log=str(tmp_path))
    model.learn(24, evaluation, log_interval=2)
    events = accumulator.EventAccumulator(str(tmp_path / "MPPIGPS_1"))
    events.Reload()
    assert [event.step for event in events.Scalars("eval/mean_reward")] == [5, 10, 15, 20]
    assert [event.step for event in events.Scalars("planner/sim_steps")] == [8, 16, 24]
    model.learn(4, reset_num_timesteps=False)
    model.learn(4, tb_log_name="again")
    assert {path.name for path in tmp_path.iterdir()} == {"MPPIGPS_1", "again_1"}


def test_normalisation_is_carried_over_to_the_evaluation_and_asked_for(tmp_path):
    """SB3: test_eval_friendly_error."""
    train_env = VecNormalize(targets(1))
    eval_env = VecNormalize(targets(1), training=False, norm_reward=False)
    model = small(train_env)
    model.learn(8, EvalCallback(eval_env, eval_freq=8, n_eval_episodes=1, verbose=0))
    raw = np.array([[0.3, 1.0]])
    np.testing.assert_array_equal(train_env.normalize_obs(raw), eval_env.normalize_obs(raw))
    unnormalised = EvalCallback(target(), eval_freq=4, n_eval_episodes=1, verbose=0)
    with pytest.warns(UserWarning, match="not of the same type"), pytest.raises(AssertionError):
        model.learn(8, unnormalised)


def test_checkpoints_hold_labels_and_normalisation_where_asked_for(tmp_path):
    """SB3: test_checkpoint_additional_info."""
    callback = CheckpointCallback(4, str(tmp_path), save_replay_buffer=True, save_vecnormalize=True)
    model = small(VecNormalize(targets(1))).learn(8, callback)
    loaded = MPPIGPS.load(tmp_path / "rl_model_8_steps", device="cpu")
    loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_8_steps.pkl")
    assert len(loaded.replay_buffer) == len(model.replay_buffer) > 0
    env = VecNormalize.load(str(tmp_path / "rl_model_vecnormalize_8_steps.pkl"), targets(1))
    loaded.set_env(env)
    loaded.learn(8)


@pytest.mark.parametrize("format_", ["stdout", "log", "json", "csv"])
def test_every_log_format_is_written(tmp_path, capsys, format_):
    """SB3: test_make_output, test_set_logger."""
    model = small()
    model.set_logger(configure(str(tmp_path), [format_]))
    model.learn(12, log_interval=1)
    if format_ == "json":
        lines = (tmp_path / "progress.json").read_text().splitlines()
        found = [json.loads(line)["time/total_timesteps"] for line in lines]
    elif format_ == "csv":
        with (tmp_path / "progress.csv").open() as file:
            found = [int(row["time/total_timesteps"]) for row in csv.DictReader(file)]
    else:
        text = capsys.readouterr().out if format_ == "stdout" else ""
        text = text or (tmp_path / "log.txt").read_text()
        lines = [line for line in text.splitlines() if "total_timesteps" in line]
        found = [int(line.split("|")[2]) for line in lines]
    assert found == [4, 8, 12]


class Recorded:
    """Takes the place of `logger.dump` and keeps what it was asked to write."""

    def __init__(self, model: MPPIGPS, path: Any) -> None:
        logger = configure(str(path), ["csv"])
        self.dumps: list[dict[str, Any]] = []
        self._logger, self._dump = logger, logger.dump
        logger.dump = self  # type: ignore[assignment]
        model.set_logger(logger)

    def __call__(self, step: int = 0) -> None:
        self.dumps.append(dict(self._logger.name_to_value))
        self._dump(step)


def test_frames_per_second_count_from_the_start_of_each_learn(tmp_path, monkeypatch):
    """SB3: test_fps_logger, test_fps_no_div_zero."""
    model = small()
    record = Recorded(model, tmp_path)
    monkeypatch.setattr(time, "time_ns", lambda: 10**9)
    model.learn(8, log_interval=2)  # no time passes at all
    ticks = iter(range(10**9, 10**12, 10**9))
    monkeypatch.setattr(time, "time_ns", lambda: next(ticks))
    model.learn(8, log_interval=2, reset_num_timesteps=False)
    seconds = record.dumps[-1]["time/time_elapsed"]
    assert record.dumps[-1]["time/total_timesteps"] == 16
    assert record.dumps[-1]["time/fps"] == 8 // seconds


@pytest.mark.parametrize("size", [1, 42])
def test_statistics_have_the_window_that_was_asked_for(size):
    """SB3: test_ep_buffers_stats_window_size."""
    model = small(stats_window_size=size).learn(12)
    assert model.ep_info_buffer.maxlen == model.ep_success_buffer.maxlen == size
    assert len(model.ep_info_buffer) == min(size, 2)


class EverySecondSucceeds(gym.Wrapper):
    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.num_episodes = 0

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            self.num_episodes += 1
            info = {**info, "is_success": self.num_episodes % 2 == 0}
        return observation, reward, terminated, truncated, info


def test_the_success_rate_is_logged(tmp_path):
    """SB3: test_rollout_success_rate_onpolicy_algo, test_eval_success_logging."""
    model = small(Monitor(EverySecondSucceeds(gym.wrappers.TimeLimit(Target(), 6))))
    record = Recorded(model, tmp_path)
    evaluation = EvalCallback(
        EverySecondSucceeds(target()), eval_freq=12, n_eval_episodes=2, verbose=0
    )
    model.learn(24, evaluation, log_interval=6)
    assert record.dumps[-1]["rollout/success_rate"] == 0.5
    assert np.mean(evaluation._is_success_buffer) == 0.5


def test_log_names_stay_apart_when_they_are_shortened(capsys):
    """SB3: test_key_length."""
    model = small(verbose=1, tensorboard_log=None).learn(40, log_interval=2)
    model.dump_logs()
    assert "planner/" in capsys.readouterr().out


def test_evaluation_gives_callbacks_and_monitor_their_due():
    """SB3: test_evaluate_policy."""
    model, steps = small().learn(4), []
    rewards, lengths = evaluate_policy(
        model,
        target(),
        n_eval_episodes=3,
        callback=lambda locals_, _globals: steps.append(locals_["i"]),
        return_episode_rewards=True,
    )
    assert len(rewards) == 3 and lengths == [6, 6, 6] and len(steps) == 18


def test_all_callbacks_see_every_step_once():
    """SB3: test_callbacks (n_calls)."""
    first, second = Watch(), Watch()
    model = small(targets(2)).learn(24, [first, second])
    assert first.n_calls == second.n_calls == model.num_timesteps // 2 == 12
