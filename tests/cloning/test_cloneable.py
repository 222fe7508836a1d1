"""What a Cloneable copies, keeps, refuses and leaves alone."""

from __future__ import annotations

import copy
import socket
import threading
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
import pytest
from clone_law import act, assert_law, sample_actions
from gymnasium import wrappers
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.utils import EzPickle

from mppi_agent.cloning import (
    Cloneable,
    MujocoAdapter,
    NotCloneableError,
    find_cloneable,
    pack,
    register_adapter,
    registry,
    unpack,
)
from mppi_agent.cloning.check import check_clones
from mppi_agent.dynamics import EnvStepDynamics


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


class Viewer:
    """An object of the user's that holds a window and something that counts."""

    def __init__(self) -> None:
        self.screen = pygame.Surface((4, 4))
        self.frames = 0


class Drawn(gym.Env):
    """Moves a rectangle of pygame, which is state, on a surface, which is not."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self) -> None:
        self.viewer = Viewer()
        self.player = pygame.Rect(0, 0, 2, 2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.player.topleft = (0, 0)
        return np.array(self.player.topleft), {}  # whole numbers, in a space of floats

    def step(self, action):
        self.player.move_ip(*(int(a) for a in np.sign(action)))
        self.viewer.frames += 1
        place = np.array(self.player.topleft) + 0.5
        return place, float(self.viewer.frames), False, False, {}


def test_windows_inside_objects_stay_and_what_pygame_counts_with_is_state():
    env = Drawn()
    screen = env.viewer.screen
    assert check_clones(env).exact
    assert env.viewer.screen is screen
    assert Cloneable(env).private_copy().unwrapped.viewer.screen is None


def test_whole_numbers_of_a_reset_are_floats_where_the_space_has_floats():
    env = Cloneable(Drawn())
    env.reset(seed=0)
    assert env.last_observation.dtype == np.float32
    with closing(EnvStepDynamics(env)) as dynamics:
        simulations = dynamics.simulations(1)
        simulations.restore([env.snapshot()])
        assert simulations.step(np.ones((1, 2), np.float32)).observations[0, 0] == 1.5


def test_files_open_for_writing_are_named(tmp_path):
    env = Drawn()
    with (tmp_path / "log.csv").open("w+") as env.log:
        with pytest.raises(NotCloneableError, match=r"'log' .*open for writing"):
            Cloneable(env)


def test_an_env_that_was_never_reset_goes_on_from_a_state():
    env, fresh = (Cloneable(gym.make("Hopper-v5")) for _ in range(2))
    env.reset(seed=0)
    fresh.restore(env.snapshot())
    actions = sample_actions(env, 3)
    np.testing.assert_equal(act(fresh, actions), act(env, actions))


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


def test_a_tuple_that_comes_to_hold_what_changes_is_copied_from_then_on():
    env = Walk()
    env.limits = (0.0, 1.0)
    cloneable = Cloneable(env)
    cloneable.reset(seed=0)
    constant = cloneable.snapshot()
    env.limits = (0.0, [1.0])
    changing = cloneable.snapshot()
    env.limits[1][0] = 2.0
    cloneable.restore(changing)
    assert env.limits == (0.0, [1.0])
    env.limits[1][0] = 3.0
    cloneable.restore(changing)
    assert env.limits == (0.0, [1.0])
    cloneable.restore(constant)
    assert env.limits == (0.0, 1.0)


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


class Sealed(RemoteWithProtocol):
    """Cannot be copied by its attributes, which its methods know how to save."""

    def __init__(self) -> None:
        super().__init__()
        self.link = socket.socket()

    def __del__(self) -> None:
        if hasattr(self, "link"):
            self.link.close()


def test_a_registered_env_is_made_anew_where_its_attributes_cannot_be_copied():
    gym.register("Sealed-v0", Sealed)  # whose constructor knows no render_mode
    try:
        env = Cloneable(gym.make("Sealed-v0", disable_env_checker=True))
        env.reset(seed=0)
        copy = env.private_copy()
        np.testing.assert_array_equal(copy.step(np.ones(1))[0], env.step(np.ones(1))[0])
    finally:
        del gym.registry["Sealed-v0"]


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
    with pytest.raises(TypeError, match="lacks name, matches"):
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


class Locked(HopperEnv):
    """Holds a lock, which can be neither copied nor pickled."""

    def __init__(self):
        self.lock = threading.Lock()
        super().__init__()


class LockedAdapter(MujocoAdapter):
    exclude = MujocoAdapter.exclude | {"lock"}


def test_member_that_cannot_be_pickled_is_named_and_can_be_excluded():
    env = Cloneable(Locked())
    env.reset(seed=0)
    with pytest.raises(NotCloneableError, match=r"'lock' \(lock\)"):
        env.snapshot()
    excluded = Cloneable(Locked(), LockedAdapter())
    assert excluded.private_copy().unwrapped.lock is excluded.unwrapped.lock
    excluded.reset(seed=0)
    state = excluded.snapshot()
    expected = act(excluded, sample_actions(excluded, 3))
    excluded.restore(state)
    np.testing.assert_equal(act(excluded, sample_actions(excluded, 3)), expected)


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


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Tuple([gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3)]),
        gym.spaces.Sequence(gym.spaces.Discrete(3)),
    ],
)
def test_observations_that_are_no_arrays_are_refused(space):
    env = gym.make("Pendulum-v1")
    env.observation_space = space
    with pytest.raises(NotCloneableError, match=r"neither arrays nor .*FlattenObservation"):
        Cloneable(env)


class Simulator:
    def __init__(self) -> None:
        self.x = np.zeros(2)

    def push(self, force: float) -> None:
        self.x += force


class Delegating(gym.Env):
    """Asks its simulator for what it does not have itself."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self) -> None:
        self._sim = Simulator()

    def __getattr__(self, name):
        return getattr(self._sim, name)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._sim.x = self.np_random.normal(size=2)
        return self.x.copy(), {}

    def step(self, action):
        self.push(float(action[0]))
        return self.x.copy(), 0.0, False, False, {}


def test_an_env_that_hands_attributes_on_travels_to_other_processes():
    assert_law(Delegating())
