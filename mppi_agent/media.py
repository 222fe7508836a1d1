"""Draw learning curves and record videos; both work without a display.

Needs the extra `media`. MuJoCo envs also need an OpenGL library: see `RENDER_HINT`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.evaluation import CurvePoint
from mppi_agent.interfaces import Policy

__all__ = [
    "RENDER_HINT",
    "MediaError",
    "VideoFile",
    "draw_learning_curves",
    "headless",
    "new_figure",
    "record_episode",
    "record_video",
    "render_frame",
    "require_picture",
    "tidy_axes",
]

RENDER_HINT = (
    "rendering MuJoCo without a display needs the system packages "
    "libegl1 libopengl0 libgl1-mesa-dri (Debian, Ubuntu)"
)
_INSTALL_HINT = "install the extra: pip install 'mppi-agent[media]'"
_COLORS = {"mppigps": "#c1272d", "ppo": "#0071bc", "sac": "#3f8f4f"}


class MediaError(RuntimeError):
    """A picture or video could not be made; the message names the cure."""


def draw_learning_curves(
    curves: Mapping[str, Sequence[CurvePoint]],
    path: Path,
    *,
    title: str,
    reference: tuple[str, float] | None = None,
) -> None:
    """Draw return against wall-clock seconds, one line per algorithm.

    Args:
        curves: Points of each algorithm, by its name.
        path: Of the picture; the suffix sets the format.
        title: Above the axes.
        reference: Name and return of what is drawn as a dashed line; None: nothing.

    Raises:
        MediaError: If matplotlib is missing.
    """
    figure = new_figure((7.2, 4.4))
    axes = figure.add_subplot()
    for name, points in curves.items():
        seconds = [point.seconds for point in points]
        returns = [point.mean_return for point in points]
        color = _COLORS.get(name.lower())
        axes.plot(seconds, returns, label=name, color=color, marker="o", markersize=3.5)
    if reference is not None:
        name, level = reference
        axes.axhline(level, color="#444444", linestyle="--", label=name)
    axes.set_xlabel("training wall-clock [s]")
    axes.set_ylabel("mean return of the deterministic policy")
    axes.set_title(title)
    axes.set_xlim(left=0)
    tidy_axes(axes)
    axes.legend(frameon=False)
    figure.savefig(path)


def require_picture(path: Path) -> None:
    """Check that a picture can be written, before the work that it is to show; make its folder.

    Args:
        path: Of the picture; the suffix sets the format.

    Raises:
        MediaError: If matplotlib is missing, or cannot write such a file.
    """
    formats = new_figure((1.0, 1.0)).canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in formats or path.is_dir():
        raise MediaError(f"{path} must be a file ending in .{', .'.join(sorted(formats))}")
    path.parent.mkdir(parents=True, exist_ok=True)


def new_figure(inches: tuple[float, float]) -> Any:
    """Return an empty matplotlib figure that needs no display.

    Args:
        inches: Width and height.

    Raises:
        MediaError: If matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MediaError(f"pictures need matplotlib; {_INSTALL_HINT}") from error
    figure = Figure(figsize=inches, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy_axes(axes: Any) -> None:
    """Give axes the look of all our pictures."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def record_video(
    policy: Policy, env_id: str, path: Path, *, seconds: float = 20.0, seed: int = 0
) -> None:
    """Record a policy as mp4.

    Args:
        policy: Acts on the observations of the env.
        env_id: Made anew with `gym.make` and `render_mode="rgb_array"`.
        path: Of the video.
        seconds: Longest running time of the video, > 0.
        seed: Reset seed of the first episode.

    Raises:
        MediaError: If the env cannot be rendered here or imageio is missing.
    """
    with headless():
        try:
            env = gym.make(env_id, render_mode="rgb_array")
        except Exception as error:
            raise _no_video(error) from error
        try:
            record_episode(policy, env, path, seconds=seconds, seed=seed)
        finally:
            env.close()


def record_episode(
    policy: Policy, env: gym.Env, path: Path, *, seconds: float = 20.0, seed: int = 0
) -> None:
    """Record a policy in an env that renders `rgb_array`; short episodes follow one another.

    Args:
        policy: Acts on the observations of the env; an expert plans in it.
        env: Is reset and stepped.
        path: Of the video.
        seconds: Longest running time of the video, > 0.
        seed: Reset seed of the first episode.

    Raises:
        MediaError: If the env cannot be rendered here or imageio is missing.
    """
    frames_per_second = float(env.metadata.get("render_fps") or 30)
    file = VideoFile(path, frames_per_second)
    try:
        for frame in _frames(policy, env, max(1, int(seconds * frames_per_second)), seed):
            file.append(frame)
    finally:
        file.close()


class VideoFile:
    """Write frames to an mp4 file, which begins to exist with the first of them.

    Args:
        path: Of the video.
        frames_per_second: Of the video.
    """

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path, self._frames_per_second = path, frames_per_second
        self._writer: Any = None

    def append(self, frame: np.ndarray) -> None:
        """Write a frame, shape (height, width, 3).

        Raises:
            MediaError: If imageio is missing.
        """
        if self._writer is None:
            self._writer = _imageio().get_writer(
                self._path, fps=self._frames_per_second, codec="libx264", macro_block_size=2
            )
        self._writer.append_data(frame)

    def close(self) -> None:
        """Finish the file, if there is one."""
        if self._writer is not None:
            self._writer.close()


def _frames(policy: Policy, env: gym.Env, num_frames: int, seed: int) -> Iterator[np.ndarray]:
    """Yield what the env shows before each step."""
    observation, state, is_first = None, None, True
    for _ in range(num_frames):
        if is_first:
            observation, _ = env.reset(seed=seed)
            seed += 1
        yield render_frame(env)
        action, state = policy.predict(observation, state, np.array([is_first]), True)
        # A category is a number: tables are indexed by it.
        observation, _, terminated, truncated, _ = env.step(np.asarray(action)[()])
        is_first = terminated or truncated


def render_frame(env: gym.Env) -> np.ndarray:
    """Return what an env shows now, shape (height, width, 3).

    Raises:
        MediaError: If it cannot be rendered here.
    """
    try:
        frame: Any = env.render()
    except Exception as error:  # each renderer has errors of its own
        raise _no_video(error) from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise MediaError("no video: the env does not render rgb_array frames")
    return frame


@contextmanager
def headless() -> Iterator[None]:
    """Let MuJoCo and pygame draw off screen where there is no display, unless told otherwise."""
    has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    ours: dict[str, str] = {}
    if sys.platform.startswith("linux") and not has_display:
        wanted = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
        ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _imageio() -> ModuleType:
    try:
        import imageio.v2
        import imageio_ffmpeg  # noqa: F401  imageio finds it by itself, late and with a worse error
    except ImportError as error:
        raise MediaError(f"videos need imageio and imageio-ffmpeg; {_INSTALL_HINT}") from error
    return imageio.v2


def _no_video(error: Exception) -> MediaError:
    is_package = isinstance(error, ImportError | gym.error.DependencyNotInstalled)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return MediaError(f"no video: {reason}; {_INSTALL_HINT if is_package else RENDER_HINT}")
