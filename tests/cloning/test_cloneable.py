"""The clone law, on every family of envs and wrappers."""

from __future__ import annotations

import copy
import pickle
import socket
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.utils import EzPickle

from mppi_agent.cloning import (
    Cloneable,
    NotCloneableError,
    find_cloneable,
    pack,
    register_adapter,
    registry,
    unpack,
)

ENVS = [
    "Pendulum-v1",
    "MountainCarContinuous-v0",
    "MountainCar-v0",
    "CartPole-v1",
    "Acrobot-v1",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Walker2d-v5",
    "Swimmer-v5",
    "Reacher-v5",
    "Pusher-v5",
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
    "Ant-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
]


def act(env: gym.Env, actions: list[Any]) -> list[Any]:
    """Step through `actions`, resetting after an end; return all that the env said."""
    said = []
    for action in actions:
        outcome = env.step(action)
        said.append(copy.deepcopy(outcome))
        if outcome[2] or outcome[3]:
            said.append(copy.deepcopy(env.reset()))
    return said


def sample_actions(env: gym.Env, num: int, seed: int = 0) -> list[Any]:
    space = copy.deepcopy(env.action_space)
    space.seed(seed)
    return [space.sample() for _ in range(num)]


def assert_law(env: gym.Env, num: int = 12, warm_up: int = 7) -> Cloneable:
    """Replay on the env, on a copy made before, and on one that did other things meanwhile."""
    cloneable = env if isinstance(env, Cloneable) else Cloneable(env)
    cloneable.reset(seed=3)
    early = cloneable.private_copy()
    act(cloneable, sample_actions(cloneable, warm_up, seed=1))
    state = cloneable.snapshot()
    actions = sample_actions(cloneable, num)
    expected = act(cloneable, actions)
    early.reset(seed=9)
    act(early, sample_actions(cloneable, 5, seed=2))
    for target in (cloneable, early, unpack(pack(cloneable))):
        for _ in range(2):
            target.restore(pickle.loads(pickle.dumps(state)))
            np.testing.assert_equal(target.last_observation, state.observation)
            np.testing.assert_equal(act(target, actions), expected)
    return cloneable


@pytest.mark.parametrize("env_id", ENVS)
def test_restored_env_repeats_itself_bit_for_bit(env_id):
    assert_law(gym.make(env_id))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Hopper-v5"])
def test_law_holds_across_ends_and_time_limits(env_id):
    assert_law(gym.make(env_id, max_episode_steps=15), num=80)


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


def test_copy_keeps_edits_of_model_and_attributes_where_deepcopy_loses_them():
    env = gym.make("HalfCheetah-v5")
    env.reset(seed=0)
    env.unwrapped.model.body_mass[:] *= 1.5
    env.unwrapped._ctrl_cost_weight = 7.0
    cloneable = Cloneable(env)
    cloneable.reset(seed=0)
    trap = copy.deepcopy(env.unwrapped)
    assert trap._ctrl_cost_weight != 7.0  # the trap that this package exists for
    for twin in (cloneable.private_copy(), unpack(pack(cloneable))):
        assert twin.unwrapped._ctrl_cost_weight == 7.0
        np.testing.assert_array_equal(twin.unwrapped.model.body_mass, env.unwrapped.model.body_mass)
    assert cloneable.private_copy().unwrapped.model is env.unwrapped.model


def test_acting_on_a_copy_leaves_the_original_alone():
    for env_id in ("Pusher-v5", "Pendulum-v1", "Reacher-v5"):
        acted, untouched = Cloneable(gym.make(env_id)), Cloneable(gym.make(env_id))
        acted.reset(seed=0)
        untouched.reset(seed=0)
        twin = acted.private_copy()
        for seed in range(3):
            twin.reset(seed=seed)
            act(twin, sample_actions(twin, 5))
        twin.close()
        actions = sample_actions(acted, 5)
        np.testing.assert_equal(act(acted, actions), act(untouched, actions))
        np.testing.assert_equal(acted.reset(), untouched.reset())


def test_copies_never_render_and_the_renderer_of_the_original_stays():
    env = Cloneable(gym.make("Hopper-v5", render_mode="rgb_array"))
    env.reset(seed=0)
    twin = env.private_copy()
    assert twin.render_mode is None
    assert twin.unwrapped.mujoco_renderer is None
    twin.step(np.zeros(3, dtype=np.float32))
    renderer = env.unwrapped.mujoco_renderer
    env.restore(twin.snapshot())
    assert env.unwrapped.mujoco_renderer is renderer is not None
    assert env.render_mode == "rgb_array"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: wrappers.FrameStackObservation(env, 4),
        lambda env: wrappers.TimeAwareObservation(env),
        lambda env: wrappers.StickyAction(env, 0.5),
        lambda env: wrappers.DelayObservation(env, 3),
        lambda env: wrappers.MaxAndSkipObservation(env, 2),
        lambda env: wrappers.RescaleAction(env, -0.5, 0.5),
        lambda env: wrappers.FlattenObservation(wrappers.ClipAction(env)),
        lambda env: wrappers.TimeLimit(wrappers.FrameStackObservation(env, 2), 9),
        lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward),
    ],
)
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_law_holds_through_stateful_wrappers(env_id, wrap):
    assert_law(wrap(gym.make(env_id)))


def test_passive_wrappers_are_stripped_and_states_still_fit():
    from stable_baselines3.common.monitor import Monitor

    env = Cloneable(Monitor(wrappers.RecordEpisodeStatistics(gym.make("Pendulum-v1"))))
    env.reset(seed=0)
    twin = env.private_copy()
    assert "Monitor" not in str(twin) and "RecordEpisode" not in str(twin)
    env.restore(twin.snapshot())
    state = env.snapshot()
    actions = sample_actions(env, 6)
    expected = [outcome[:4] for outcome in act(env, actions)]
    twin.restore(state)
    np.testing.assert_equal([outcome[:4] for outcome in act(twin, actions)], expected)


def test_restore_wakes_a_monitor_whose_episode_had_ended():
    from stable_baselines3.common.monitor import Monitor

    env = Cloneable(Monitor(gym.make("Pendulum-v1", max_episode_steps=3)))
    env.reset(seed=0)
    state = env.snapshot()
    for action in sample_actions(env, 3):
        env.step(action)
    with pytest.raises(RuntimeError, match="needs reset"):
        env.step(env.action_space.low)
    env.restore(state)
    env.step(env.action_space.low)


def test_copies_do_not_learn_normalization_statistics():
    env = Cloneable(wrappers.NormalizeReward(wrappers.NormalizeObservation(gym.make("Hopper-v5"))))
    env.reset(seed=0)
    act(env, sample_actions(env, 5))
    twin = env.private_copy()
    twin.restore(env.snapshot())
    before = twin.env.env.obs_rms.mean.copy()
    twin.step(np.ones(3, dtype=np.float32))
    np.testing.assert_array_equal(twin.env.env.obs_rms.mean, before)
    np.testing.assert_array_equal(env.env.env.obs_rms.mean, before)
    env.step(np.ones(3, dtype=np.float32))
    assert (env.env.env.obs_rms.mean != before).any()


class Walk(gym.Env, EzPickle):
    """A random walk with all sorts of attributes; a copy made by its constructor is wrong."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, speed: float = 1.0) -> None:
        EzPickle.__init__(self, speed)
        self.speed = speed
        self.place = np.zeros(2)
        self.history: list[Any] = []
        self.gain = lambda action: action * self.speed
        self.rng_alias: np.random.Generator | None = None
        self.mode = "slow"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2)
        self.history = [{"place": self.place}]
        self.rng_alias = self.np_random
        self.__dict__.pop("boost", None)
        return self.place.copy(), {}

    def step(self, action):
        if hasattr(self, "boost"):
            self.place *= self.boost
        if len(self.history) == 4:
            self.boost = 1.1
        self.place += self.gain(action[0]) + self.np_random.normal(size=2)
        self.place[0] += self.rng_alias.random()
        self.history.append({"place": self.place.copy()})
        return self.place.copy(), float(len(self.history)), False, False, {}


def test_custom_env_is_cloned_by_its_attributes():
    env = Walk()
    env.speed = 3.0
    cloneable = assert_law(env, num=8, warm_up=2)
    assert cloneable.adapter.name == "deepcopy"
    twin = cloneable.private_copy()
    twin.speed = twin.unwrapped.speed = 5.0
    assert twin.unwrapped.gain(1.0) == 5.0
    assert env.gain(1.0) == 3.0


class Remote(Walk):
    """A walk that cannot be copied: it holds a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.link = socket.socket()

    def __del__(self) -> None:
        if hasattr(self, "link"):
            self.link.close()


class RemoteWithProtocol(Walk):
    """The same, with methods that save it."""

    def get_state(self) -> dict[str, Any]:
        attributes = ("place", "history", "rng_alias", "boost")
        return {name: getattr(self, name) for name in attributes if hasattr(self, name)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.__dict__.pop("boost", None)
        self.__dict__.update(state)


def test_user_protocol_comes_first():
    env = RemoteWithProtocol()
    assert assert_law(env, num=8, warm_up=2).adapter.name == "user_protocol"
    assert Cloneable(gym.make("Hopper-v5")).adapter.name == "mujoco"  # set_state(qpos, qvel)


def test_uncopyable_attribute_is_named_with_the_cures():
    with pytest.raises(NotCloneableError, match=r"Remote .*'link' \(socket\)[\s\S]*get_state"):
        Cloneable(Remote())


def test_uncopyable_wrapper_is_named():
    class Phone(gym.Wrapper):
        def __init__(self, env: gym.Env) -> None:
            super().__init__(env)
            self.line = socket.socket()

    env = Phone(gym.make("Pendulum-v1"))
    with pytest.raises(NotCloneableError, match=r"Phone .*'line'"):
        Cloneable(env)
    env.line.close()


def test_registered_adapter_takes_precedence(monkeypatch):
    from mppi_agent.cloning.deepcopy import DeepcopyAdapter

    class Mine(DeepcopyAdapter):
        name = "mine"

        def matches(self, env):
            return type(env).__name__ == "PendulumEnv"

    monkeypatch.setattr(registry, "_registered", [])
    register_adapter(Mine())
    assert assert_law(gym.make("Pendulum-v1")).adapter.name == "mine"
    with pytest.raises(TypeError, match="lacks matches"):
        register_adapter(object())


def test_find_cloneable_walks_the_chain():
    inner = Cloneable(gym.make("Pendulum-v1"))
    assert find_cloneable(wrappers.ClipReward(wrappers.ClipAction(inner), 0, 1)) is inner
    with pytest.raises(TypeError, match=r"Cloneable\(env\)"):
        find_cloneable(gym.make("Pendulum-v1"))


def test_misuse_is_refused_with_the_cure():
    env = Cloneable(gym.make("Pendulum-v1"))
    with pytest.raises(RuntimeError, match="reset"):
        env.snapshot()
    with pytest.raises(ValueError, match="contains a Cloneable already"):
        Cloneable(wrappers.ClipAction(env))
    env.reset(seed=0)
    with pytest.raises(NotCloneableError, match=r"AddRenderObservation\(Cloneable\(env\)\)"):
        made = gym.make("Pendulum-v1", render_mode="rgb_array")
        made.reset()
        made.unwrapped.render = lambda: np.zeros((2, 2, 3), np.uint8)
        Cloneable(wrappers.AddRenderObservation(made))
    other = Cloneable(wrappers.FrameStackObservation(gym.make("Pendulum-v1"), 2))
    other.reset(seed=0)
    with pytest.raises(ValueError, match="another chain of wrappers"):
        env.restore(other.snapshot())
    hopper, ant = Cloneable(gym.make("Hopper-v5")), Cloneable(gym.make("Ant-v5"))
    hopper.reset(seed=0)
    with pytest.raises(ValueError, match=r"captured from .*HopperEnv, this env is .*AntEnv"):
        ant.restore(hopper.snapshot())


class Watching(HopperEnv):
    """Keeps a view of simulator memory; a copied view would show the original's."""

    def reset_model(self):
        self.heights = self.data.qpos
        return super().reset_model()

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self.heights[1]), terminated, truncated, info


def test_views_of_simulator_memory_follow_the_copy():
    cloneable = assert_law(Watching())
    twin = cloneable.private_copy()
    assert np.shares_memory(twin.unwrapped.heights, twin.unwrapped.data.qpos)
    assert not np.shares_memory(twin.unwrapped.heights, cloneable.unwrapped.data.qpos)
