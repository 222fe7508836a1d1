"""Pictures and videos: what they hold, and how they fail."""

from __future__ import annotations

import builtins

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.evaluation import CurvePoint
from mppi_agent.media import (
    RENDER_HINT,
    MediaError,
    draw_learning_curves,
    record_episode,
    record_video,
)


class Still:
    """Act with zero torque and remember the episode starts."""

    def __init__(self):
        self.starts = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.starts.append(bool(episode_start[0]))
        return np.zeros(1, dtype=np.float32), state


class Broken(gym.Env):
    """An env whose renderer finds no OpenGL."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    failure: Exception = RuntimeError("no OpenGL context")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def render(self):
        raise self.failure


def _hide(monkeypatch, package):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def test_video_runs_for_the_asked_seconds_and_its_frames_differ(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    path = tmp_path / "pendulum.mp4"
    record_video(Still(), "Pendulum-v1", path, seconds=1.0)
    with imageio.get_reader(path) as reader:
        frames = list(reader.iter_data())
        assert reader.get_meta_data()["fps"] == 30
    assert len(frames) == 30
    assert np.abs(frames[0].astype(int) - frames[-1].astype(int)).max() > 50


def test_short_episodes_follow_one_another_in_a_video(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    env = gym.make("Pendulum-v1", render_mode="rgb_array", max_episode_steps=10)
    policy = Still()
    record_episode(policy, env, tmp_path / "video.mp4", seconds=25 / 30)
    env.close()
    assert np.flatnonzero(policy.starts).tolist() == [0, 10, 20]


def test_failed_rendering_names_the_system_packages_and_leaves_no_file(tmp_path):
    path = tmp_path / "video.mp4"
    with pytest.raises(MediaError, match="no OpenGL context") as caught:
        record_episode(Still(), Broken(), path)
    assert RENDER_HINT in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_missing_pygame_is_answered_with_the_extra_to_install(tmp_path):
    env = Broken()
    env.failure = gym.error.DependencyNotInstalled("pygame is not installed")
    with pytest.raises(MediaError, match=r"mppi-agent\[media\]"):
        record_episode(Still(), env, tmp_path / "video.mp4")


@pytest.mark.parametrize("package", ["imageio", "imageio_ffmpeg"])
def test_missing_video_package_is_answered_with_the_extra_to_install(
    tmp_path, monkeypatch, package
):
    pytest.importorskip("pygame")
    _hide(monkeypatch, package)
    with pytest.raises(MediaError, match=r"mppi-agent\[media\]"):
        record_video(Still(), "Pendulum-v1", tmp_path / "video.mp4", seconds=0.1)


def test_missing_matplotlib_is_answered_with_the_extra_to_install(tmp_path, monkeypatch):
    _hide(monkeypatch, "matplotlib")
    with pytest.raises(MediaError, match=r"mppi-agent\[media\]"):
        draw_learning_curves({}, tmp_path / "curve.png", title="")


def test_recording_leaves_the_process_environment_as_it_was(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    import os

    before = dict(os.environ)
    record_video(Still(), "Pendulum-v1", tmp_path / "video.mp4", seconds=0.1)
    assert {name: os.environ.get(name) for name in before} == before
    assert "MUJOCO_GL" not in os.environ


def test_picture_has_a_line_per_algorithm_and_a_dashed_one_for_the_expert(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    real_savefig = figures.Figure.savefig

    def savefig(figure, path):
        drawn.append(figure)
        real_savefig(figure, path)

    monkeypatch.setattr(figures.Figure, "savefig", savefig)
    curves = {
        "MPPIGPS": [CurvePoint(0.0, -1200.0), CurvePoint(60.0, -150.0)],
        "PPO": [CurvePoint(0.0, -1300.0), CurvePoint(61.0, -900.0)],
    }
    path = tmp_path / "curve.png"
    draw_learning_curves(curves, path, title="Pendulum-v1", reference=("MPPI expert", -160.0))
    lines = {str(line.get_label()): line for line in drawn[0].axes[0].lines}
    assert lines["MPPI expert"].get_linestyle() == "--"
    assert list(lines["MPPI expert"].get_ydata()) == [-160.0, -160.0]
    assert list(lines["PPO"].get_xdata()) == [0.0, 61.0]
    assert list(lines["MPPIGPS"].get_ydata()) == [-1200.0, -150.0]
    assert path.read_bytes().startswith(b"\x89PNG")
