"""The env-step oracle against hand-stepped envs, and the open-loop driver against the oracle."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.env_step import EnvStepDynamics
from mppi_agent.dynamics.process_pool import ProcessPoolDynamics
from mppi_agent.dynamics.rollout import open_loop_rollout, validate_actions
from mppi_agent.interfaces import RolloutBatch
from mppi_agent.planning.returns import discounted_returns
from tests.gps.toy_envs import CutsItself, Target


def make(env_id: str, **kwargs: Any) -> tuple[Cloneable, EnvStepDynamics]:
    env = Cloneable(gym.make(env_id, **kwargs))
    env.reset(seed=0)
    return env, EnvStepDynamics(env)


def draw(dynamics: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng, space = np.random.default_rng(seed), dynamics.action_space
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=shape)
    return rng.uniform(space.low, space.high, size=(*shape, *space.shape))


def assert_equal(one: RolloutBatch, other: RolloutBatch) -> None:
    for name in one.__dataclass_fields__:
        np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1", "Hopper-v5", "Humanoid-v5"])
def test_rollout_is_what_the_env_itself_does(env_id):
    env, dynamics = make(env_id)
    states = dynamics.initial_states(2, np.random.default_rng(0))
    actions = draw(dynamics, (2, 3, 40))
    batch = dynamics.rollout(states, actions, keep_observations=True)
    assert batch.sim_steps == batch.lengths.sum()
    for s, k in np.ndindex(2, 3):
        env.restore(states[s])
        for step, action in enumerate(actions[s, k].astype(env.action_space.dtype)):
            observation, reward, terminated, _, _ = env.step(action)
            np.testing.assert_array_equal(batch.observations[s, k, step], observation)
            assert batch.rewards[s, k, step] == reward
            if terminated:
                break
        assert batch.terminated[s, k] == terminated
        assert batch.lengths[s, k] == step + 1
        assert (batch.rewards[s, k, step + 1 :] == 0).all()
        np.testing.assert_array_equal(batch.final_observations[s, k], observation)
        assert (batch.observations[s, k, step:] == observation).all()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1", "Hopper-v5"])
@pytest.mark.parametrize("num", [6, 8])
def test_open_loop_driver_equals_the_oracle(env_id, num):
    _, dynamics = make(env_id)
    states = dynamics.initial_states(2, np.random.default_rng(1))
    actions = draw(dynamics, (2, 3, 60))
    simulations = dynamics.simulations(num)
    for keep in (True, False):
        checked = dynamics.rollout(states, actions, keep_observations=keep)
        assert_equal(
            open_loop_rollout(simulations, states, actions, keep_observations=keep), checked
        )
    if env_id != "Pendulum-v1":
        assert checked.terminated.all()
    with pytest.raises(ValueError, match="6 rollouts need as many"):
        open_loop_rollout(dynamics.simulations(5), states, actions)


def test_a_time_limit_does_not_end_a_rollout():
    env, dynamics = make("Pendulum-v1", max_episode_steps=5)
    assert dynamics.max_episode_steps == 5
    batch = dynamics.rollout([env.snapshot()], draw(dynamics, (1, 2, 20)))
    assert (batch.lengths == 20).all() and not batch.terminated.any()
    assert (batch.rewards != 0).all()


def test_rollouts_leave_the_env_alone():
    acted, dynamics = make("Hopper-v5")
    untouched, _ = make("Hopper-v5")
    dynamics.rollout([acted.snapshot()], draw(dynamics, (1, 2, 10)))
    dynamics.initial_states(3, np.random.default_rng(0))
    for _ in range(3):
        action = np.ones(3, dtype=np.float32)
        np.testing.assert_equal(acted.step(action), untouched.step(action))
    np.testing.assert_equal(acted.reset(), untouched.reset())


def test_initial_states_follow_the_generator():
    _, dynamics = make("Pendulum-v1")
    drawn = [dynamics.initial_states(3, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    first, again, others = [[state.observation.tolist() for state in states] for states in drawn]
    assert first == again
    assert first != others
    assert first[0] != first[1]


def test_simulations_step_snapshot_and_restore_by_index():
    _, dynamics = make("InvertedDoublePendulum-v5")
    states = dynamics.initial_states(3, np.random.default_rng(0))
    simulations = dynamics.simulations(3)
    simulations.restore(states)
    actions = draw(dynamics, (3, 3))
    first = simulations.step(actions[0])
    middle = simulations.snapshot(np.array([1]))
    np.testing.assert_array_equal(middle[0].observation, first.observations[1])
    second = simulations.step(actions[1])
    simulations.restore(middle, np.array([2]))  # simulation 2 repeats what simulation 1 did
    repeated = simulations.step(actions[1][[1]], np.array([2]))
    np.testing.assert_array_equal(repeated.observations[0], second.observations[1])
    assert repeated.rewards[0] == second.rewards[1]
    simulations.close()
    with pytest.raises(RuntimeError, match="closed"):
        simulations.step(actions[0])


class Fragile(gym.Env):
    """Breaks, ends or carries on, as the action says; shows a dict."""

    observation_space = gym.spaces.Dict(
        {"x": gym.spaces.Box(-np.inf, np.inf, (2,)), "n": gym.spaces.Discrete(100)}
    )
    action_space = gym.spaces.Discrete(3, start=-1)

    def __init__(self) -> None:
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.see(), {}

    def step(self, action):
        self.count += 1
        assert isinstance(action, int)
        reward = float("nan") if action == -1 else float(self.count)
        return self.see(), reward, action == 1, False, {}

    def see(self):
        return {"x": np.full(2, self.count, dtype=np.float32), "n": self.count}


def test_divergence_and_dict_observations():
    env = Cloneable(Fragile())
    env.reset(seed=0)
    dynamics = EnvStepDynamics(env)
    assert dynamics.max_episode_steps is None
    actions = np.array([[[0, 0, 0], [0, -1, 0], [0, 1, 0]]])
    batch = dynamics.rollout([env.snapshot()], actions, keep_observations=True)
    np.testing.assert_array_equal(batch.rewards[0], [[1, 2, 3], [1, 0, 0], [1, 2, 0]])
    np.testing.assert_array_equal(batch.diverged, [[False, True, False]])
    np.testing.assert_array_equal(batch.terminated, [[False, False, True]])
    np.testing.assert_array_equal(batch.lengths, [[3, 2, 2]])
    np.testing.assert_array_equal(batch.final_observations["n"], [[3, 1, 2]])
    np.testing.assert_array_equal(batch.observations["n"][0], [[1, 2, 3], [1, 1, 1], [1, 2, 2]])
    assert batch.observations["x"].shape == (1, 3, 3, 2)
    driven = open_loop_rollout(
        dynamics.simulations(3), [env.snapshot()], actions, keep_observations=True
    )
    assert_equal(driven, batch)


def test_mujoco_divergence_is_seen_although_it_resets_itself():
    env, dynamics = make("HalfCheetah-v5")
    state = env.snapshot()
    env.unwrapped.data.qvel[:] = 1e12
    wild = env.snapshot()
    batch = dynamics.rollout([wild, state], np.zeros((2, 1, 3, 6)))
    np.testing.assert_array_equal(batch.diverged[:, 0], [True, False])
    assert np.isfinite(batch.rewards).all() and np.isfinite(batch.final_observations).all()


def test_useless_actions_are_refused():
    env, dynamics = make("Pendulum-v1")
    state = env.snapshot()
    good = np.zeros((1, 2, 3, 1))
    for actions, states, message in [
        (good[..., 0], [state], r"shape \(n, n, n, 1\), got \(1, 2, 3\)"),
        (good * np.nan, [state], "finite, got 6"),
        (good.astype(str), [state], "convertible"),
        (good, [state, state], "must be 1 states; got 2"),
        (good[:, :0], [state], "at least one"),
    ]:
        with pytest.raises(ValueError, match=message):
            dynamics.rollout(states, actions)
    discrete = gym.spaces.Discrete(2)
    with pytest.raises(ValueError, match="lie in 0 to 1"):
        validate_actions(np.array([0, 2]), discrete, 1)
    with pytest.raises(ValueError, match="convertible to int64"):
        validate_actions(np.array([0.0, 1.0]), discrete, 1)
    with pytest.raises(ValueError, match="3 simulations need as many"):
        validate_actions(np.array([0, 1]), discrete, 1, num=3)
    several = gym.spaces.MultiDiscrete([2, 3], start=[0, 1])
    np.testing.assert_array_equal(validate_actions(np.array([[1, 3]]), several, 1), [[1, 3]])
    for wrong in ([2, 3], [0, 0], [0, 4]):
        with pytest.raises(ValueError, match=r"discrete actions must lie in \[0 1\] to \[1 3\]"):
            validate_actions(np.array([wrong]), several, 1)


@pytest.mark.parametrize("make_backend", [EnvStepDynamics, lambda env: ProcessPoolDynamics(env, 2)])
def test_simulations_end_where_the_env_cuts_its_episodes(make_backend):
    env = Cloneable(CutsItself(Target(), limit=5))
    env.reset(seed=0)
    start = env.snapshot()
    for _ in range(3):
        env.step(np.zeros(1, dtype=np.float32))
    dynamics = make_backend(env)
    actions = draw(dynamics, (2, 3, 8))
    for batch in (
        dynamics.rollout([start, env.snapshot()], actions),
        open_loop_rollout(dynamics.simulations(6), [start, env.snapshot()], actions),
    ):
        np.testing.assert_array_equal(batch.lengths, [[5] * 3, [2] * 3])
        assert not batch.terminated.any() and not batch.diverged.any()
        assert (batch.rewards[0, :, :5] != 0).all() and (batch.rewards[0, :, 5:] == 0).all()
        bare, valued = (discounted_returns(batch, 0.9, v) for v in (None, np.ones((2, 3))))
        np.testing.assert_allclose(valued - bare, [[0.9**5] * 3, [0.9**2] * 3])
    dynamics.close()


def test_simulations_look_beyond_a_time_limit():
    env = Cloneable(gym.wrappers.TimeLimit(CutsItself(Target(), limit=6), 5))
    env.reset(seed=0)
    dynamics = EnvStepDynamics(env)
    assert dynamics.max_episode_steps == 5
    simulations = dynamics.simulations(1)
    simulations.restore([env.snapshot()])
    assert [simulations.step(np.zeros((1, 1))).ended.item() for _ in range(5)] == [False] * 5
    dynamics.close()


class Scalar(gym.Env):
    """Takes a number that is no category, and pays it."""

    observation_space = gym.spaces.Box(-1, 1, (1,), dtype=np.float64)
    action_space = gym.spaces.Box(-1, 1, ())

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action):
        return np.zeros(1), float(action), False, False, {}


def test_a_scalar_of_a_box_is_not_taken_for_a_category():
    env = Cloneable(gym.wrappers.TimeLimit(Scalar(), 10))
    env.reset(seed=0)
    actions = np.array([0.25, -0.5, 0.75], dtype=np.float32).reshape(1, 1, 3)
    batch = EnvStepDynamics(env).rollout([env.snapshot()], actions)
    np.testing.assert_array_equal(batch.rewards, actions)


@pytest.mark.parametrize(("repeats", "steps"), [(1, 25), (2, 13), (5, 5)])
def test_the_time_limit_of_repeated_steps_is_counted_in_the_steps_of_the_whole(repeats, steps):
    def make_repeated():
        made = gym.make("Pendulum-v1", max_episode_steps=25)
        return gym.wrappers.RepeatAction(made, repeats) if repeats > 1 else made

    env, length, is_over = make_repeated(), 0, False
    env.reset(seed=0)
    while not is_over:
        _, _, _, is_over, _ = env.step(np.zeros(1, dtype=np.float32))
        length += 1
    assert length == steps
    cloneable = Cloneable(make_repeated())
    assert EnvStepDynamics(cloneable).max_episode_steps == steps
    cloneable.reset(seed=0)
    assert EnvStepDynamics(cloneable).max_episode_steps == steps


class Settles(gym.Wrapper):
    """Lets the env come to rest in `reset`, which takes steps."""

    def reset(self, **kwargs):
        outcome = self.env.reset(**kwargs)
        for _ in range(5):
            self.env.step(np.zeros(1, dtype=np.float32))
        return outcome


@pytest.mark.parametrize(
    ("wrap", "steps"),
    [
        (Settles, 20),
        (lambda env: Settles(gym.wrappers.RepeatAction(env, 4)), 2),
        (lambda env: gym.wrappers.TimeLimit(gym.wrappers.RepeatAction(env, 4), 10), 7),
        (lambda env: gym.wrappers.TimeLimit(gym.wrappers.RepeatAction(env, 4), 5), 5),
    ],
)
def test_steps_of_a_reset_and_a_second_limit_count_as_they_do_in_the_env(wrap, steps):
    def make_wrapped():
        return wrap(gym.make("Pendulum-v1", max_episode_steps=25))

    env, length, is_over = make_wrapped(), 0, False
    env.reset(seed=0)
    while not is_over:
        is_over = env.step(np.zeros(1, dtype=np.float32))[3]
        length += 1
    assert length == steps
    assert EnvStepDynamics(Cloneable(make_wrapped())).max_episode_steps == steps


class OneBuffer(Target):
    """Writes every observation into one and the same array, whichever instance it is."""

    seen = np.zeros(2, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        self.seen[:], info = super().reset(seed=seed)
        return self.seen, info

    def step(self, action):
        self.seen[:], *rest = super().step(action)
        return self.seen, *rest


def test_observations_of_each_simulation_are_its_own_where_envs_share_a_buffer():
    ours, theirs = (EnvStepDynamics(Cloneable(kind())) for kind in (OneBuffer, Target))
    states = ours.initial_states(3, np.random.default_rng(0))
    actions = np.arange(3, dtype=np.float32)[:, None]
    stepped = []
    for dynamics, starts in (
        (ours, states),
        (theirs, theirs.initial_states(3, np.random.default_rng(0))),
    ):
        simulations = dynamics.simulations(3)
        simulations.restore(starts)
        stepped.append(simulations.step(actions).observations)
    np.testing.assert_array_equal(*stepped)
