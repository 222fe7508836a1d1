"""Training that stops anywhere goes on as if it had not: the same weights, bit for bit."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecMonitor, VecNormalize
from torch import nn
from toy_envs import make_target
from toy_models import Watch, make, pendulum, pendulums, same, weights

from mppi_agent.gps import MPPIGPS, resume
from mppi_agent.gps.callbacks import ResumableCheckpoint
from mppi_agent.gps.improvement import TrustRegionUpdate

TOTAL = 44  # five rounds and a half
BUSY = {"label_interval": 1, "learning_rate": lambda progress: 1e-3 * progress}


class SaveAt(BaseCallback):
    """Writes a checkpoint at one call; training goes on."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.call, self.file = call, io.BytesIO()

    def _on_step(self) -> bool:
        if self.n_calls == self.call:
            self.model.save_checkpoint(self.file)
        return True


def carry_on(file: Any, env: Any, total: int = TOTAL, **kwargs: Any) -> MPPIGPS:
    if isinstance(file, io.BytesIO):
        file.seek(0)
    model = MPPIGPS.load(file, env=env, device="cpu", **kwargs)
    return model.learn(total - model.num_timesteps, reset_num_timesteps=False)


def assert_same_run(one: MPPIGPS, other: MPPIGPS) -> None:
    assert one.num_timesteps == other.num_timesteps
    assert one._n_updates == other._n_updates
    assert same(weights(one), weights(other))
    for name, value in one._monitor._aside.latest.items():
        assert th.equal(value, other._monitor._aside.latest[name]), name
    assert len(one.replay_buffer) == len(other.replay_buffer)
    assert [e["r"] for e in one.ep_info_buffer] == [e["r"] for e in other.ep_info_buffer]


@pytest.mark.parametrize("stop_at", [1, 8, 13, 43, 44])
def test_a_checkpoint_continues_bit_for_bit(stop_at):
    saved = SaveAt(stop_at)
    never_stopped = make(**BUSY).learn(TOTAL, saved)
    assert_same_run(carry_on(saved.file, pendulum()), never_stopped)


def test_a_checkpoint_of_a_discrete_student_continues_bit_for_bit():
    saved = SaveAt(13)
    never_stopped = make(gym.make("CartPole-v1"), **BUSY).learn(TOTAL, saved)
    assert_same_run(carry_on(saved.file, gym.make("CartPole-v1")), never_stopped)


def test_saving_checkpoints_does_not_disturb_training():
    assert_same_run(make(**BUSY).learn(TOTAL, SaveAt(13)), make(**BUSY).learn(TOTAL))


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_stopped_training_continues_bit_for_bit_here_and_from_a_file(error, tmp_path):
    never_stopped = make(**BUSY).learn(TOTAL)
    stopped = make(**BUSY)
    try:
        stopped.learn(TOTAL, Watch(stop_at=21, error=error))
    except KeyboardInterrupt:
        assert error is not None
    stopped.save_checkpoint(tmp_path / "stopped")
    stopped.learn(TOTAL - 21, reset_num_timesteps=False)
    assert_same_run(stopped, never_stopped)
    assert_same_run(carry_on(tmp_path / "stopped", pendulum()), never_stopped)


def test_weights_alone_do_not_continue_bit_for_bit():
    saved = SaveAt(13)
    never_stopped = make(**BUSY).learn(TOTAL, saved)
    other = carry_on(saved.file, pendulum(), custom_objects={"resume_point": None})
    assert other.num_timesteps == TOTAL
    assert not same(weights(other), weights(never_stopped))


def test_a_second_break_is_survived_too():
    first, second = SaveAt(5), SaveAt(25 - 5)
    never_stopped = make(**BUSY).learn(TOTAL, first)
    first.file.seek(0)
    MPPIGPS.load(first.file, env=pendulum(), device="cpu").learn(
        TOTAL - 5, second, reset_num_timesteps=False
    )
    assert_same_run(carry_on(second.file, pendulum()), never_stopped)


class Dropout(nn.Dropout):
    """Draws from torch's global generator."""

    def __init__(self) -> None:
        super().__init__(0.2)


@pytest.mark.parametrize(
    ("make_env", "settings"),
    [
        (lambda: VecNormalize(pendulums()), {}),
        (lambda: VecMonitor(pendulums(monitor_kwargs={"allow_early_resets": True})), {}),
        (make_target, {}),
        (lambda: gym.wrappers.NormalizeObservation(pendulum()), {}),
        (pendulum, {"policy_kwargs": {"activation_fn": Dropout, "net_arch": [8]}}),
        (lambda: gym.make("Hopper-v5"), {}),
    ],
    ids=["VecNormalize", "VecMonitor", "unregistered", "statistics", "dropout", "coarse-model"],
)
def test_everything_that_training_depends_on_is_in_the_checkpoint(make_env, settings):
    num_envs = getattr(make_env(), "num_envs", 1)
    saved = SaveAt(37)  # on Hopper the coarse model has been left by then
    never_stopped = make(make_env(), **BUSY | settings).learn(TOTAL * num_envs, saved)
    assert_same_run(carry_on(saved.file, make_env(), TOTAL * num_envs), never_stopped)


@pytest.mark.slow
def test_envs_in_other_processes_continue_bit_for_bit():
    envs = [pendulums(vec_env_cls=SubprocVecEnv) for _ in range(2)]
    try:
        saved = SaveAt(13)
        never_stopped = make(envs[0], **BUSY).learn(2 * TOTAL, saved)
        assert_same_run(carry_on(saved.file, envs[1], 2 * TOTAL), never_stopped)
    finally:
        for env in envs:
            env.close()


def test_the_file_predicts_as_the_model_that_was_saved(tmp_path):
    model = make().learn(24)
    model.save_checkpoint(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", device="cpu")
    assert same(weights(loaded), weights(model))
    assert len(loaded.replay_buffer) == len(model.replay_buffer) > 0


def test_an_update_that_was_interrupted_begins_anew(monkeypatch, tmp_path):
    update, calls = TrustRegionUpdate.update, []

    def interrupted(*args: Any, **kwargs: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return update(*args, **kwargs)

    model = make()
    monkeypatch.setattr(TrustRegionUpdate, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.learn(TOTAL)
    assert model.num_timesteps == 24
    model.save_checkpoint(tmp_path / "model")
    loaded = carry_on(tmp_path / "model", pendulum())
    assert loaded.num_timesteps == TOTAL and loaded._round == 6


def test_a_new_count_is_a_new_run():
    saved = SaveAt(13)
    make().learn(TOTAL, saved)
    saved.file.seek(0)
    model = MPPIGPS.load(saved.file, env=pendulum(), device="cpu").learn(8)
    assert model.num_timesteps == 8


def test_the_first_env_of_a_model_loaded_without_one_takes_the_checkpoint_up():
    saved = SaveAt(13)
    never_stopped = make().learn(TOTAL, saved)
    saved.file.seek(0)
    model = MPPIGPS.load(saved.file, device="cpu")
    model.set_env(pendulum())
    model.learn(TOTAL - 13, reset_num_timesteps=False)
    assert_same_run(model, never_stopped)
    model.set_env(gym.make("Pendulum-v1", g=3.0))
    assert model.learn(8, reset_num_timesteps=False).num_timesteps == TOTAL + 8


def test_a_checkpoint_before_training_is_a_plain_model(tmp_path):
    make().save_checkpoint(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", env=pendulum(), device="cpu")
    assert same(weights(make().learn(TOTAL)), weights(loaded.learn(TOTAL)))


def test_a_loaded_checkpoint_can_be_saved_again_before_it_continues(tmp_path):
    saved = SaveAt(13)
    never_stopped = make().learn(TOTAL, saved)
    saved.file.seek(0)
    MPPIGPS.load(saved.file, device="cpu").save_checkpoint(tmp_path / "again.zip")
    assert_same_run(carry_on(tmp_path / "again.zip", pendulum()), never_stopped)


@pytest.mark.parametrize(
    ("make_env", "message"),
    [
        (lambda: gym.make("Pendulum-v1", g=3.0, max_episode_steps=20), "does something else"),
        (lambda: pendulums(2), r"n_envs 1, not 2"),
        (lambda: VecNormalize(pendulums(1)), r"wrappers \[\], not \['VecNormalize'\]"),
        (
            lambda: gym.wrappers.TransformReward(pendulum(), float),
            "does not take the checkpoint's state",
        ),
    ],
    ids=["parameters", "number", "VecEnv wrappers", "wrappers"],
)
def test_another_env_is_refused_before_anything_changes(make_env: Callable[[], Any], message):
    saved = SaveAt(13)
    make().learn(TOTAL, saved)
    with pytest.raises(ValueError, match=f"{message}.*custom_objects="):
        carry_on(saved.file, make_env())


def test_another_id_and_another_mujoco_are_refused(monkeypatch):
    saved = SaveAt(5)
    make(gym.make("InvertedPendulum-v5")).learn(8, saved)
    with pytest.raises(ValueError, match="env InvertedPendulum-v5, not InvertedPendulum-v4"):
        carry_on(saved.file, gym.make("InvertedPendulum-v4"))
    monkeypatch.setattr(resume, "version", lambda package: "9.9.9")
    with pytest.raises(ValueError, match=r"with MuJoCo .*, not 9\.9\.9"):
        carry_on(saved.file, gym.make("InvertedPendulum-v5"))


def test_settings_may_change_but_not_the_number_of_simulations():
    saved = SaveAt(13)
    make().learn(TOTAL, saved)
    assert carry_on(saved.file, pendulum(), n_epochs=1).n_epochs == 1
    with pytest.raises(ValueError, match="num_simulations=4, but the checkpoint holds 16"):
        carry_on(saved.file, pendulum(), num_simulations=4)


def test_another_space_is_refused():
    saved = SaveAt(5)
    make().learn(8, saved)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        carry_on(saved.file, gym.make("InvertedPendulum-v5"))


def test_a_crash_during_a_save_leaves_the_older_file_whole(tmp_path, monkeypatch):
    model = make().learn(8)
    model.save_checkpoint(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()
    model.learn(8, reset_num_timesteps=False)

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    for save in (model.save, model.save_checkpoint, model.save_replay_buffer):
        with pytest.raises(OSError, match="no space left"):
            save(tmp_path / "model.zip")
        assert (tmp_path / "model.zip").read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["model.zip"]


def test_a_damaged_file_is_refused(tmp_path):
    make().learn(8).save_checkpoint(tmp_path / "model.zip")
    whole = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "model.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="wasn't a zip-file"):
        MPPIGPS.load(tmp_path / "model.zip")


def test_the_callback_keeps_one_file_up_to_date(tmp_path):
    path = tmp_path / "run" / "checkpoint.zip"
    watch = Watch(stop_at=20)
    make(**BUSY).learn(TOTAL, [ResumableCheckpoint(path, save_freq=7), watch])
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.zip"]
    assert_same_run(carry_on(path, pendulum()), make(**BUSY).learn(TOTAL))
    with pytest.raises(ValueError, match="save_freq must be >= 1, got 0"):
        ResumableCheckpoint(path, save_freq=0)
    with pytest.raises(TypeError, match="needs an MPPIGPS model, got PPO"):
        PPO("MlpPolicy", "Pendulum-v1", device="cpu").learn(1, ResumableCheckpoint(path))


_TRAIN = """
from pathlib import Path
from stable_baselines3.common.callbacks import BaseCallback
from mppi_agent.gps.callbacks import ResumableCheckpoint
from test_resume import BUSY, make

class Report(BaseCallback):
    def _on_step(self):
        print(self.n_calls, flush=True)
        return True

make(**BUSY).learn(10**6, [ResumableCheckpoint(Path({path!r}), save_freq=5), Report()])
"""


@pytest.mark.slow
def test_a_killed_process_continues_bit_for_bit_from_its_last_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.zip"
    folders = [str(Path(__file__).parent), *sys.path]
    with subprocess.Popen(
        [sys.executable, "-c", _TRAIN.format(path=str(path))],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 23:
                process.kill()  # SIGKILL, wherever it is by now
                break
    assert process.returncode == -9
    loaded = MPPIGPS.load(path, env=pendulum(), device="cpu")
    reached = loaded.num_timesteps
    assert reached >= 20 and reached % 5 == 0
    loaded.learn(10**6 - reached, Watch(stop_at=30), reset_num_timesteps=False)
    never_stopped = make(**BUSY).learn(10**6, Watch(stop_at=reached + 30))
    assert_same_run(loaded, never_stopped)
    assert np.isfinite(never_stopped.policy.log_std.detach().numpy()).all()
