"""One episode of the expert, watched: its record, its picture and its video."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.expert import MPPIAgent
from mppi_agent.media import MediaError
from mppi_agent.plan_media import PathTracer, PlanFilm, draw_plan_trace
from mppi_agent.plan_run import PlanTrace, run_plan
from mppi_agent.planning import MPPIConfig

CONFIG = MPPIConfig(num_samples=8, horizon=4, iterations=1, elites=2)


def test_the_record_holds_every_step_and_adds_up():
    run = run_plan("Pendulum-v1", CONFIG, seed=3, max_steps=6)
    trace = run.trace
    assert len(trace.rewards) == len(trace.milliseconds) == len(trace.spread) == 6
    assert run.evaluation.mean == pytest.approx(sum(trace.rewards))
    assert all(b >= n for b, n in zip(trace.best_returns, trace.nominal_returns, strict=True))
    assert all(low <= high for low, high in trace.spread)
    assert run.ms_per_plan == np.median(trace.milliseconds)
    result = run.as_dict()
    assert result["lengths"] == [6] and result["seeds"] == [3] and result["files"] == {}
    assert "6 steps" in str(run) and "of 8" in str(run)


def test_live_figures_follow_the_episode(monkeypatch):
    shown = []

    class Bar:
        def __init__(self, label, total, unit, *, is_shown):
            shown.append((label, total, unit, is_shown))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def note(self, text):
            shown.append(text)

        def advance(self):
            shown.append("step")

    monkeypatch.setattr("mppi_agent.plan_run.Progress", Bar)
    run = run_plan("Pendulum-v1", CONFIG, max_steps=2, show_progress=True)
    first, total = run.trace.rewards[0], sum(run.trace.rewards)
    assert shown[0] == ("plan", 2, "steps", True)
    assert shown[1].startswith(f"return {first:.1f}, ess {run.trace.ess[0]:.1f}/8, ")
    assert shown[1].endswith(f"{run.trace.milliseconds[0]:.0f} ms per plan")
    assert shown[3].startswith(f"return {total:.1f}, ") and shown[2] == shown[4] == "step"


def test_it_acts_as_an_expert_that_nobody_watches():
    run = run_plan("Pendulum-v1", CONFIG, seed=3, max_steps=5)
    expert = MPPIAgent("Pendulum-v1", CONFIG, seed=3)
    observation, _ = expert.env.reset(seed=3)
    rewards = []
    for _ in range(5):
        action, _ = expert.predict(observation)
        observation, reward, *_ = expert.env.step(action)
        rewards.append(reward)
    np.testing.assert_array_equal(run.trace.rewards, rewards)


def test_a_budget_changes_the_settings_that_are_reported():
    budgets = (10.0, 200.0)  # far apart, so that a busy machine does not matter
    small, large = (run_plan("Pendulum-v1", CONFIG, max_steps=2, budget_ms=b) for b in budgets)
    assert small.config.steps_per_plan < large.config.steps_per_plan
    assert large.as_dict()["num_samples"] == large.config.num_samples


def test_an_unknown_env_is_planned_for_by_its_time_step(monkeypatch):
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    gym.register("Hopping-v0", entry_point="gymnasium.envs.mujoco.hopper_v5:HopperEnv")
    config = run_plan("Hopping-v0", max_steps=1).config
    assert config.horizon * 0.008 == pytest.approx(0.6)
    small = run_plan("Hopping-v0", max_steps=1, num_samples=8, horizon=10).config
    assert (small.num_samples, small.horizon) == (8, 10)


@pytest.mark.parametrize("steps", [0, -3])
def test_episodes_without_a_step_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps must be >= 1, got {steps}"):
        run_plan("Pendulum-v1", CONFIG, max_steps=steps)


def test_the_picture_shows_what_was_recorded(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    real_savefig = figures.Figure.savefig

    def savefig(figure, path):
        drawn.append(figure)
        real_savefig(figure, path)

    monkeypatch.setattr(figures.Figure, "savefig", savefig)
    trace = PlanTrace(
        rewards=[1.0, 2.0, 4.0],
        milliseconds=[9.0, 8.0, 7.0],
        ess=[3.0, 2.0, 2.5],
        best_returns=[5.0, 6.0, 7.0],
        nominal_returns=[4.0, 5.0, 7.0],
        spread=[(1.0, 4.0), (2.0, 5.0), (3.0, 6.0)],
        diverged=[0, 0, 1],
    )
    path = tmp_path / "plan.png"
    draw_plan_trace(trace, path, title="a title", budget_ms=10.0)
    assert path.read_bytes().startswith(b"\x89PNG")
    lines = [list(line.get_ydata()) for axes in drawn[0].axes for line in axes.lines]
    for values in (trace.rewards, [1.0, 3.0, 7.0], trace.milliseconds, trace.ess, [0, 0, 1]):
        assert list(values) in lines
    assert [10.0, 10.0] in lines  # the budget


def make_reacher(**kwargs) -> Cloneable:
    env = Cloneable(gym.make("Reacher-v5", **kwargs))
    env.reset(seed=0)
    return env


def test_a_path_is_where_the_tracked_body_goes():
    env = make_reacher()
    expert = MPPIAgent(env, CONFIG)
    tracer = PathTracer(env, expert.scaling, track="fingertip")
    plan = np.random.default_rng(0).uniform(-1, 1, (1, 5, 2))
    state = env.snapshot()
    (path,) = tracer.trace(state, plan)
    np.testing.assert_array_equal(env.snapshot().physics, state.physics)  # only read
    body = env.unwrapped.data.body("fingertip")
    for step, action in enumerate(expert.scaling.to_env(plan[0])):
        np.testing.assert_allclose(path[step], body.xpos, atol=1e-9)
        env.step(action)
    np.testing.assert_allclose(path[-1], body.xpos, atol=1e-9)


def test_without_a_name_the_body_that_plans_move_farthest_is_tracked():
    env = make_reacher()
    expert = MPPIAgent(env, CONFIG)
    turn = np.tile([1.0, 0.0], (1, 5, 1))
    found = PathTracer(env, expert.scaling).trace(env.snapshot(), turn)
    named = PathTracer(env, expert.scaling, track="fingertip").trace(env.snapshot(), turn)
    np.testing.assert_array_equal(found, named)


def test_a_path_ends_with_the_episode():
    env = Cloneable(gym.make("Hopper-v5"))
    env.reset(seed=0)
    tilted, turning = np.array([0, 1.25, 0.19, 0, 0, 0]), np.array([0, 0, 5.0, 0, 0, 0])
    env.unwrapped.set_state(tilted, turning)
    paths = PathTracer(env, MPPIAgent(env, CONFIG).scaling).trace(
        env.snapshot(), np.zeros((1, 50, 3))
    )
    assert 2 <= len(paths[0]) < 50


def test_unknown_names_and_envs_without_a_model_are_refused():
    env = make_reacher()
    scaling = MPPIAgent(env, CONFIG).scaling
    with pytest.raises(ValueError, match=r"track='nose' is no site or body; there are .*fingertip"):
        PathTracer(env, scaling, track="nose")
    pendulum = Cloneable(gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="paths can be drawn in MuJoCo envs only"):
        PathTracer(pendulum, scaling, track="pole")


def test_a_video_of_any_env_has_a_frame_per_plan(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    path = tmp_path / "pendulum.mp4"
    run = run_plan("Pendulum-v1", CONFIG, max_steps=4, video=path)
    assert run.files == {"video": str(path)}
    with imageio.get_reader(path) as reader:
        assert len(list(reader.iter_data())) == 4


def test_sampled_plans_are_drawn_into_mujoco_frames(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    env = make_reacher(render_mode="rgb_array")
    expert = MPPIAgent(env, MPPIConfig(num_samples=16, horizon=10, iterations=1))
    frames = []
    try:
        bare = env.render()
    except Exception as error:  # each renderer has errors of its own
        pytest.skip(f"no rendering here: {error}")
    with PlanFilm(expert, tmp_path / "reacher.mp4", track="fingertip") as film:
        film._file.append = frames.append
        env.reset(seed=0)
        expert.predict(env.last_observation)
        turn = np.tile([1.0, 0.0], (1, 10, 1))
        expert.last_plan = replace(expert.last_plan, controls=turn)
        film.planned(expert, 0.0)
        after = env.render()
    np.testing.assert_array_equal(after, bare)  # markers last for one frame
    changed = np.abs(frames[0].astype(int) - bare).max(axis=-1) > 30
    assert 30 < changed.sum() < 0.2 * changed.size
    red, green, blue = frames[0][changed].astype(int).T
    assert ((green > red + 20) & (green > blue + 40)).sum() > 30  # the plan itself
    env.close()


def test_what_cannot_be_filmed_fails_before_anything_is_planned(tmp_path, monkeypatch):
    def broken(self):
        raise RuntimeError("no OpenGL context")

    monkeypatch.setattr("gymnasium.envs.classic_control.pendulum.PendulumEnv.render", broken)
    monkeypatch.setattr(MPPIAgent, "predict", None)
    path = tmp_path / "video.mp4"
    with pytest.raises(MediaError, match="no OpenGL context"):
        run_plan("Pendulum-v1", CONFIG, max_steps=2, video=path)
    assert not path.exists()
