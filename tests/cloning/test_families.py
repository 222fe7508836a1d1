"""Each family of envs obeys the clone law, with the adapter that knows it."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from clone_law import act, assert_law, sample_actions
from gymnasium import wrappers
from gymnasium.utils import EzPickle

from mppi_agent.cloning import (
    Cloneable,
    NotCloneableError,
    ReplayAdapter,
    Verdict,
    check_clones,
    pack,
    unpack,
)
from mppi_agent.cloning.noise import with_noise

CLASSIC = ["Pendulum-v1", "MountainCarContinuous-v0", "MountainCar-v0", "CartPole-v1", "Acrobot-v1"]
TOY = ["Blackjack-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1", "FrozenLake-v1", "Taxi-v4"]
# Pusher-v4 refuses MuJoCo 3 and later.
MUJOCO_V4 = [
    f"{name}-v4"
    for name in (
        "HalfCheetah Hopper Walker2d Swimmer Reacher InvertedPendulum InvertedDoublePendulum "
        "Ant Humanoid HumanoidStandup"
    ).split()
]
MUJOCO_V5 = [*(env_id.replace("-v4", "-v5") for env_id in MUJOCO_V4), "Pusher-v5"]
BOX2D = ["LunarLander-v3", "LunarLanderContinuous-v3", "BipedalWalker-v3"]
ROBOTICS = ["FetchPush-v4", "HandReach-v3", "AdroitHandRelocate-v1", "PointMaze_UMaze-v3"]
MORE_ROBOTICS = [
    "FetchReach-v4",
    "FetchSlide-v4",
    "FetchPickAndPlace-v4",
    "AntMaze_UMaze-v5",
    "AdroitHandDoor-v1",
    "AdroitHandHammer-v1",
    "AdroitHandPen-v1",
    "HandManipulateBlock_ContinuousTouchSensors-v1",
    "HandManipulateEgg-v1",
    "HandManipulatePen-v1",
    "FrankaKitchen-v1",
]
SUITE = ["cheetah-run", "reacher-easy", "hopper-hop", "finger-turn_hard"]
MORE_SUITE = ["ball_in_cup-catch", "fish-swim", "humanoid-walk", "manipulator-bring_ball"]


@pytest.fixture
def robotics(monkeypatch):
    """Mend gymnasium-robotics where MuJoCo's joint types no longer equal numpy integers."""
    package = pytest.importorskip("gymnasium_robotics", reason="needs mppi-agent[robotics]")
    kinds = {name: int(value) for name, value in mujoco.mjtJoint.__members__.items()}
    mended = SimpleNamespace(**{**vars(mujoco), "mjtJoint": SimpleNamespace(**kinds)})
    monkeypatch.setattr(package.utils.mujoco_utils, "mujoco", mended)
    gym.register_envs(package)


def make_suite_env(name):
    gym.register_envs(pytest.importorskip("shimmy", reason="needs mppi-agent[dm_control]"))
    pytest.importorskip("dm_control", reason="needs mppi-agent[dm_control]")
    try:
        return gym.make(f"dm_control/{name}-v0")
    except AttributeError as error:
        pytest.skip(f"this dm_control does not work with MuJoCo {mujoco.__version__}: {error}")


def make_atari_env(game, **settings):
    gym.register_envs(pytest.importorskip("ale_py", reason="needs mppi-agent[atari]"))
    return gym.make(game, **settings)


def make_box2d(env_id):
    pytest.importorskip("Box2D", reason="needs mppi-agent[box2d]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Cloneable(gym.make(env_id))


@pytest.mark.parametrize(
    ("env_id", "adapter"),
    [(env_id, "classic_control") for env_id in CLASSIC]
    + [(env_id, "toy_text") for env_id in TOY]
    + [(env_id, "mujoco") for env_id in (*MUJOCO_V5, "Ant-v4", "Humanoid-v4")],
)
def test_restored_env_repeats_itself_bit_for_bit(env_id, adapter):
    assert assert_law(gym.make(env_id)).adapter.name == adapter


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v5"])
def test_law_holds_across_ends_and_time_limits(env_id):
    assert_law(gym.make(env_id, max_episode_steps=15), num=80)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", CLASSIC + TOY + MUJOCO_V4 + MUJOCO_V5)
def test_a_thousand_steps_with_resets_are_repeated_bit_for_bit(env_id):
    report = check_clones(env_id, steps=1000)
    assert report.exact and report.num_compared >= 1000, str(report)


def test_types_of_the_mountain_car_state_survive():
    env = Cloneable(gym.make("MountainCarContinuous-v0"))
    env.reset(seed=0)
    after_reset = env.snapshot()
    env.step(np.array([0.3], dtype=np.float32))
    after_step = env.snapshot()
    env.restore(after_reset)
    assert env.unwrapped.state.dtype == np.float64
    env.restore(after_step)
    assert env.unwrapped.state.dtype == np.float32


def test_pictures_of_toy_text_survive_a_restore():
    env = Cloneable(gym.make("FrozenLake-v1", render_mode="rgb_array"))
    env.reset(seed=0)
    state, picture = env.snapshot(), env.render()
    env.step(2)
    env.render()
    env.restore(state)
    np.testing.assert_array_equal(env.render(), picture)


def test_state_of_another_model_or_mujoco_version_is_refused(monkeypatch):
    hopper = Cloneable(gym.make("Hopper-v5"))
    hopper.reset(seed=0)
    state = hopper.snapshot()
    other = Cloneable(gym.make("Hopper-v5", xml_file="walker2d_v5.xml"))
    with pytest.raises(ValueError, match="captured from another MuJoCo model"):
        other.restore(state)
    monkeypatch.setattr(mujoco, "__version__", "2.3.4")
    with pytest.raises(ValueError, match=r"captured with MuJoCo .*, this is 2\.3\.4"):
        Cloneable(gym.make("Hopper-v5")).restore(state)


@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize("env_id", ROBOTICS)
def test_robotics_obeys_the_law(env_id):
    assert assert_law(gym.make(env_id)).adapter.name == "robotics"


@pytest.mark.slow
@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize("env_id", ROBOTICS + MORE_ROBOTICS)
def test_a_thousand_steps_of_robotics_are_repeated_bit_for_bit(env_id):
    assert check_clones(env_id, steps=1000).exact


@pytest.mark.usefixtures("robotics")
def test_model_and_inner_env_of_robotics_belong_to_each_copy():
    relocate = Cloneable(gym.make("AdroitHandRelocate-v1"))
    relocate.reset(seed=0)
    place = relocate.unwrapped.model.body_pos.copy()
    twin = relocate.private_copy()
    twin.reset(seed=1)
    assert (twin.unwrapped.model.body_pos != place).any()
    np.testing.assert_array_equal(relocate.unwrapped.model.body_pos, place)

    maze = Cloneable(gym.make("PointMaze_UMaze-v3", render_mode="rgb_array"))
    maze.reset(seed=0)
    inner = maze.unwrapped.point_env
    renderer = inner.mujoco_renderer
    maze.restore(maze.private_copy().snapshot())
    assert maze.unwrapped.point_env is inner and inner.mujoco_renderer is renderer is not None
    assert maze.private_copy().unwrapped.point_env.mujoco_renderer is None


@pytest.mark.parametrize("name", SUITE)
def test_dm_control_suite_obeys_the_law(name):
    assert assert_law(make_suite_env(name)).adapter.name == "dm_control"


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITE + MORE_SUITE)
def test_a_thousand_steps_of_the_suite_are_repeated_bit_for_bit(name):
    assert check_clones(make_suite_env(name), steps=1000).exact


def test_diverged_copies_of_the_suite_say_so_where_the_env_itself_raises():
    env = Cloneable(make_suite_env("cheetah-run"))
    env.reset(seed=0)
    for twin in (env.private_copy(), unpack(pack(env))):
        twin.unwrapped._env.physics.data.qvel[:] = 1e12
        assert not twin.has_diverged()
        twin.step(env.action_space.high)
        assert twin.has_diverged()
        twin.restore(env.snapshot())
        assert not twin.has_diverged()


def test_composer_envs_are_refused_and_replay_serves_them():
    composer = make_suite_env("reach_site_features")
    with pytest.raises(NotCloneableError, match="not composer envs"):
        Cloneable(composer)
    with pytest.warns(UserWarning, match="repeats all actions"):
        replayed = Cloneable(composer, ReplayAdapter())
    assert check_clones(replayed, steps=20).exact


def test_atari_obeys_the_law_also_with_sticky_actions_outside():
    game = make_atari_env("ALE/Breakout-v5", repeat_action_probability=0.0)
    cloneable = assert_law(wrappers.StickyAction(game, 0.25), num=30)
    assert cloneable.adapter.name == "atari"
    assert assert_law(make_atari_env("Pong-v4")).adapter.name == "atari"  # random frame skip


def test_sticky_actions_inside_the_emulator_are_refused_with_the_cure():
    game = make_atari_env("ALE/Pong-v5")
    with pytest.raises(NotCloneableError, match=r"StickyAction\(env, 0.25\)"):
        Cloneable(game)


@pytest.mark.parametrize("env_id", BOX2D)
def test_box2d_obeys_the_law_by_replay(env_id):
    assert assert_law(make_box2d(env_id)).adapter.name == "box2d replay"


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [*BOX2D, "BipedalWalkerHardcore-v3"])
def test_a_thousand_steps_of_box2d_are_repeated_bit_for_bit(env_id):
    assert check_clones(make_box2d(env_id), steps=1000).exact


def test_replay_warns_of_its_cost_once_and_finds_lost_edits():
    pytest.importorskip("Box2D", reason="needs mppi-agent[box2d]")
    with pytest.warns(UserWarning, match="K \\* t env steps") as caught:
        env = Cloneable(gym.make("LunarLander-v3"))
        env.reset(seed=0)
        env.private_copy()
    assert len(caught) == 1
    env.unwrapped.gravity = -3.0  # the constructor does not know
    assert check_clones(env, steps=20).verdict is Verdict.IMPOSSIBLE


class Counter(gym.Env, EzPickle):
    """Holds a generator of Python, which nothing can copy."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self):
        EzPickle.__init__(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        start = self.np_random.normal()
        self.numbers = (start + number for number in range(1000))
        return np.array([next(self.numbers)]), {}

    def step(self, action):
        place = next(self.numbers) + float(action[0])
        return np.array([place]), place, place > 20, False, {}


def test_replay_serves_an_env_that_nothing_else_can_copy():
    plain = Counter()
    plain.reset(seed=0)
    with pytest.raises(NotCloneableError, match=r"'numbers' \(generator\)[\s\S]*ReplayAdapter"):
        Cloneable(plain)
    with pytest.warns(UserWarning, match="repeats all actions"):
        cloneable = Cloneable(Counter(), ReplayAdapter())
    assert_law(cloneable, num=40)
    act(cloneable, sample_actions(cloneable, 3))


class OldGenerator(Counter):
    """Draws from numpy's old generator, whose state holds an array."""

    def reset(self, *, seed=None, options=None):
        outcome = super().reset(seed=seed)
        self.np_random = np.random.RandomState(seed)
        return outcome

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation + self.np_random.normal(), reward, *rest


def test_replay_knows_other_noise_of_any_generator():
    with pytest.warns(UserWarning, match="repeats all actions"):
        cloneable = Cloneable(OldGenerator(), ReplayAdapter())
    cloneable.reset(seed=0)
    for action in sample_actions(cloneable, 3):
        cloneable.step(action)
    assert len(cloneable.unwrapped.step.__self__.history().actions) == 3
    other = cloneable.private_copy()
    other.restore(with_noise(cloneable.snapshot(), 7))
    other.step(sample_actions(cloneable, 1)[0])
    assert len(other.unwrapped.step.__self__.history().actions) == 5  # other noise, one action


def test_replay_needs_to_know_the_constructor():
    class NoRecipe(gym.Env):
        observation_space, action_space = Counter.observation_space, Counter.action_space

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1), {}

    with pytest.warns(UserWarning, match="repeats all actions"):
        cloneable = Cloneable(NoRecipe(), ReplayAdapter())
    with pytest.raises(NotCloneableError, match=r"not made by gym\.make"):
        cloneable.private_copy()
