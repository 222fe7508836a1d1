"""Attributes that share something, and classes that are defined where they are used."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from clone_law import act, assert_law, sample_actions

from mppi_agent.cloning import Cloneable, check_clones
from mppi_agent.dynamics import EnvStepDynamics, ProcessPoolDynamics


class Point(gym.Env):
    """Moves a point, (position, velocity), in whichever attributes a subclass keeps it."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place(self.np_random.normal(size=2))
        return self.look(), {}

    def step(self, action):
        self.push(float(action[0]))
        return self.look(), -float(np.square(self.look()).sum()), False, False, {}


class Body:
    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def push(self, force: float) -> None:
        self.x[1] += 0.1 * force
        self.x[0] += 0.1 * self.x[1]


class Views(Point):
    def __init__(self, order: str = "C") -> None:
        self.state = np.zeros((2, 1), order=order)
        self.q, self.v = self.state[:1], self.state[1:]

    def place(self, x):
        self.state[:, 0] = x

    def push(self, force):
        self.v += 0.1 * force
        self.q += 0.1 * self.v

    def look(self):
        return self.state[:, 0].copy()


class HelperHoldsTheArray(Point):
    def __init__(self) -> None:
        self.p = np.zeros(2)
        self.body = Body(self.p)

    def place(self, x):
        self.p[:] = x

    def push(self, force):
        self.body.push(force)

    def look(self):
        return self.p.copy()


class ListOfDicts(Point):
    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = [{"q": 0.0, "v": 0.0}]
        self.first = self.bodies[0]

    def place(self, x):
        self.first["q"], self.first["v"] = x.tolist()

    def push(self, force):
        for body in self.bodies:
            body["v"] += 0.1 * force
            body["q"] += 0.1 * body["v"]

    def look(self):
        return np.array([self.first["q"], self.first["v"]])


class StoredMethods(HelperHoldsTheArray):
    def __init__(self) -> None:
        super().__init__()
        self.do_push = self.body.push
        self.rng = np.random.default_rng(0)
        self.draw = self.rng.normal

    def push(self, force):
        self.do_push(force + 0.1 * self.draw())


@pytest.mark.parametrize(
    "make", [Views, lambda: Views("F"), HelperHoldsTheArray, ListOfDicts, StoredMethods]
)
def test_what_attributes_share_stays_shared(make):
    assert_law(make())
    checked, untouched = make(), make()
    for env in (checked, untouched):
        env.reset(seed=0)
    assert check_clones(checked).exact and check_clones(checked).exact
    actions = sample_actions(checked, 5)
    np.testing.assert_equal(act(checked, actions), act(untouched, actions))


def test_views_are_kept_through_many_restores():
    env = Cloneable(Views())
    env.reset(seed=0)
    for _ in range(3):
        env.restore(env.snapshot())
        twin = env.private_copy()
        for one in (env.unwrapped, twin.unwrapped):
            assert np.shares_memory(one.q, one.state) and np.shares_memory(one.v, one.state)
        assert not np.shares_memory(twin.unwrapped.state, env.unwrapped.state)


def test_restoring_leaves_classes_of_the_script_as_they_are():
    class Model:  # travels by value, as those of a script or a notebook do
        gain = 1.0

        def __init__(self) -> None:
            self.x = 0.0

        def push(self, force: float) -> float:
            self.x += self.gain * force
            return self.x

    class Env(Point):
        def __init__(self) -> None:
            self.model = Model()

        def place(self, x):
            self.model.x = float(x[0])

        def push(self, force):
            self.model.push(force)

        def look(self):
            return np.full(2, self.model.x)

    env = Cloneable(Env())
    env.reset(seed=0)
    state, push = env.snapshot(), Model.push
    assert check_clones(env).exact
    Model.gain = 10.0
    env.restore(state)
    assert Model.push is push and Model.gain == 10.0
    assert env.step(np.ones(1))[0][0] == state.observation[0] + 10.0


def test_classes_of_a_function_are_simulated_in_other_processes():
    class Scaled(gym.RewardWrapper):
        def reward(self, reward):
            return 0.5 * reward

    class Local(HelperHoldsTheArray):
        pass

    env = Cloneable(Scaled(Local()))
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (1, 4, 6, 1))
    expected = EnvStepDynamics(env).rollout([env.snapshot()], actions)
    with ProcessPoolDynamics(env, 2) as pool:
        np.testing.assert_equal(pool.rollout([env.snapshot()], actions).rewards, expected.rewards)
