"""The vector backend: any env whose step is array operations, dicts and divergence included."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import EnvStepDynamics, VectorDynamics


class DriftTask:
    """The array form of `Drift`."""

    def __init__(self, end_at: float, shows_dict: bool) -> None:
        self.end_at, self.shows_dict = end_at, shows_dict

    def step(self, physics, actions):
        new = physics + actions.astype(np.float64)
        with np.errstate(invalid="ignore"):
            new = np.where(np.abs(actions) > 1, np.nan, new)  # too strong: it breaks
        plain = new.astype(np.float32)
        seen = {"x": plain, "twice": 2 * plain} if self.shows_dict else plain
        ends = (new[:, 0] > self.end_at).astype(int)  # whole numbers will do
        return new, seen, new.sum(axis=1), ends


class Drift(gym.Env):
    """Adds up its actions, ends beyond a limit, breaks where an action exceeds 1."""

    action_space = gym.spaces.Box(-2, 2, (2,), dtype=np.float32)

    def __init__(self, end_at: float = np.inf, shows_dict: bool = False) -> None:
        box = gym.spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32)
        self.observation_space = gym.spaces.Dict({"x": box, "twice": box}) if shows_dict else box
        self.task = DriftTask(end_at, shows_dict)
        self.x = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-0.1, 0.1, 2)
        plain = self.x.astype(np.float32)
        return {"x": plain, "twice": 2 * plain} if self.task.shows_dict else plain, {}

    def step(self, action):
        new, seen, rewards, terminated = self.task.step(self.x[None], action[None])
        self.x = new[0]
        first = {k: v[0] for k, v in seen.items()} if self.task.shows_dict else seen[0]
        return first, float(rewards[0]), bool(terminated[0]), False, {}

    def get_state(self):
        return self.x.copy()

    def set_state(self, state):
        self.x = state

    def vector_task(self):
        return self.task


def make(**kwargs: Any) -> tuple[Cloneable, VectorDynamics, EnvStepDynamics]:
    env = Cloneable(Drift(**kwargs))
    env.reset(seed=0)
    return env, VectorDynamics(env), EnvStepDynamics(env)


def draw(shape: tuple[int, ...], limit: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-limit, limit, (*shape, 2))


def assert_equal(one: Any, other: Any) -> None:
    for name in one.__dataclass_fields__:
        np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("shows_dict", [False, True])
def test_rollout_equals_the_oracle_through_ends_and_divergence(shows_dict):
    _, fast, oracle = make(end_at=1.5, shows_dict=shows_dict)
    states = oracle.initial_states(3, np.random.default_rng(0))
    actions = draw((3, 10, 12), limit=1.05)
    checked = oracle.rollout(states, actions, keep_observations=True)
    assert checked.terminated.any() and checked.diverged.any()
    assert not (checked.terminated & checked.diverged).any()
    assert_equal(fast.rollout(states, actions, keep_observations=True), checked)
    assert_equal(
        fast.rollout(states[:1], actions[:1, :2]), oracle.rollout(states[:1], actions[:1, :2])
    )


def test_both_backends_draw_the_same_initial_states():
    _, fast, oracle = make()
    ours = fast.initial_states(4, np.random.default_rng(3))
    theirs = oracle.initial_states(4, np.random.default_rng(3))
    np.testing.assert_equal([s.physics for s in ours], [s.physics for s in theirs])
    assert not np.array_equal(ours[0].physics, ours[1].physics)


@pytest.mark.parametrize("shows_dict", [False, True])
def test_a_restored_simulation_repeats_itself_in_another_place(shows_dict):
    _, fast, _ = make(shows_dict=shows_dict)
    simulations = fast.simulations(3)
    simulations.restore(fast.initial_states(3, np.random.default_rng(0)))
    actions = draw((2, 3))
    first = simulations.step(actions[0])
    kept = simulations.snapshot()
    np.testing.assert_equal(
        kept[1].observation,
        {k: v[1] for k, v in first.observations.items()} if shows_dict else first.observations[1],
    )
    second = simulations.step(actions[1])
    simulations.restore(kept[:1], np.array([2]))
    again = simulations.step(actions[1][:1], np.array([2]))
    assert again.rewards[0] == second.rewards[0]
    np.testing.assert_array_equal(
        simulations.snapshot()[2].physics, simulations.snapshot()[0].physics
    )


def test_stepping_some_simulations_leaves_the_others_alone():
    _, fast, _ = make()
    simulations = fast.simulations(4)
    simulations.restore(fast.initial_states(4, np.random.default_rng(0)))
    before = simulations.snapshot()
    chosen = np.array([3, 1])
    actions = draw((2,))
    outcome = simulations.step(actions, chosen)
    after = simulations.snapshot()
    for index in (0, 2):
        np.testing.assert_equal(after[index].physics, before[index].physics)
        np.testing.assert_equal(after[index].observation, before[index].observation)
    np.testing.assert_allclose(after[3].physics, before[3].physics + actions[0], atol=1e-7)
    np.testing.assert_array_equal(outcome.observations[1], after[1].observation)


def test_snapshots_and_start_states_do_not_change_when_the_simulation_goes_on():
    _, fast, _ = make(shows_dict=True)
    states = fast.initial_states(2, np.random.default_rng(0))
    simulations = fast.simulations(2)
    simulations.restore(states)
    kept = [*states, *simulations.snapshot()]
    copies = [(s.physics.copy(), s.observation["x"].copy()) for s in kept]
    simulations.step(draw((2,)))
    for state, (physics, seen) in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(state.physics, physics)
        np.testing.assert_array_equal(state.observation["x"], seen)


def test_a_snapshot_of_a_simulation_can_be_stepped_by_the_env_itself():
    env, fast, _ = make()
    simulations = fast.simulations(1)
    simulations.restore([env.snapshot()])
    actions = draw((2, 1))
    simulations.step(actions[0])
    env.restore(simulations.snapshot()[0])
    outcome = simulations.step(actions[1])
    observation, reward, _, _, _ = env.step(actions[1, 0].astype(np.float32))
    np.testing.assert_array_equal(outcome.observations[0], observation)
    assert outcome.rewards[0] == reward


def test_the_time_limit_is_known_and_does_not_end_a_rollout():
    env = Cloneable(gym.make("Pendulum-v1", max_episode_steps=5))
    env.reset(seed=0)
    fast = VectorDynamics(env)
    assert fast.max_episode_steps == 5
    batch = fast.rollout([env.snapshot()], np.zeros((1, 2, 12, 1)))
    assert (batch.lengths == 12).all() and not batch.terminated.any()


def test_simulating_leaves_the_env_alone():
    acted, fast, _ = make()
    untouched, _, _ = make()
    fast.initial_states(2, np.random.default_rng(0))
    fast.rollout([acted.snapshot()], draw((1, 3, 4)))
    fast.close()
    action = np.ones(2, dtype=np.float32)
    np.testing.assert_equal(acted.step(action), untouched.step(action))
    np.testing.assert_equal(acted.reset(), untouched.reset())


def test_what_does_not_fit_is_refused():
    env, fast, _ = make()
    simulations = fast.simulations(2)
    with pytest.raises(ValueError, match="2 simulations need as many states, got 1"):
        simulations.restore([env.snapshot()])
    simulations.restore([env.snapshot()] * 2)
    with pytest.raises(ValueError, match="2 simulations need as many actions"):
        simulations.step(draw((3,)))
    with pytest.raises(ValueError, match="finite"):
        simulations.step(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r"shape \(n, n, n, 2\)"):
        fast.rollout([env.snapshot()], np.zeros((1, 2, 5, 1)))
    plain = Cloneable(gym.make("FrozenLake-v1"))
    with pytest.raises(ValueError, match="FrozenLakeEnv has no vector task"):
        VectorDynamics(plain)


def test_states_of_another_env_are_refused_although_their_size_fits():
    pendulum, car = (
        VectorDynamics(Cloneable(gym.make(env_id)))
        for env_id in ("Pendulum-v1", "MountainCarContinuous-v0")
    )
    states = car.initial_states(1, np.random.default_rng(0))
    message = r"captured from .*MountainCarEnv, this env is .*PendulumEnv"
    with pytest.raises(ValueError, match=message):
        pendulum.rollout(states, np.zeros((1, 1, 1, 1), dtype=np.float32))
