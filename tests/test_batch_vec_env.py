"""The batch as a VecEnv against DummyVecEnv of the same env, seeds and actions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mppi_agent import BatchVecEnv, dynamics
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import VectorDynamics
from tests.gps.toy_envs import CutsItself, Target, make_target

NUM = 5


def assert_infos_agree(ours: dict, theirs: dict) -> None:
    for key in ("TimeLimit.truncated", "terminal_observation"):
        np.testing.assert_array_equal(ours.get(key), theirs.get(key))
    assert ("episode" in ours) == ("episode" in theirs)
    if "episode" in ours:
        assert ours["episode"]["l"] == theirs["episode"]["l"]
        assert ours["episode"]["r"] == pytest.approx(theirs["episode"]["r"], abs=2e-6)
        assert ours["episode"].keys() == theirs["episode"].keys()


@pytest.mark.parametrize(
    ("env_id", "limit"), [("HalfCheetah-v5", 25), ("Hopper-v5", 30), ("Pendulum-v1", 25)]
)
def test_every_step_equals_dummy_vec_env_across_ends_and_resets(env_id, limit):
    ours = BatchVecEnv(gym.make(env_id, max_episode_steps=limit), NUM)
    theirs = DummyVecEnv([lambda: Monitor(gym.make(env_id, max_episode_steps=limit))] * NUM)
    rng = np.random.default_rng(0)
    num_ends = 0
    for seed in (7, None):  # the second reset goes on with the generators of the first
        for env in (ours, theirs):
            if seed is not None:
                env.seed(seed)
        np.testing.assert_array_equal(ours.reset(), theirs.reset())
        for _ in range(2 * limit + 5):
            actions = rng.uniform(
                ours.action_space.low, ours.action_space.high, (NUM, *ours.action_space.shape)
            ).astype(np.float32)
            observations, rewards, dones, infos = ours.step(actions)
            expected = theirs.step(actions)
            np.testing.assert_array_equal(observations, expected[0])
            np.testing.assert_allclose(rewards, expected[1], rtol=1e-6)
            np.testing.assert_array_equal(dones, expected[2])
            assert (observations.dtype, rewards.dtype) == (expected[0].dtype, expected[1].dtype)
            for one, other in zip(infos, expected[3], strict=True):
                assert_infos_agree(one, other)
            num_ends += int(dones.sum())
    assert num_ends >= 4 * NUM
    ours.close()
    theirs.close()


def test_an_env_that_cuts_its_own_episodes_is_reset_there():
    ours = BatchVecEnv(CutsItself(Target(), limit=5), 2)
    theirs = DummyVecEnv([lambda: Monitor(CutsItself(Target(), limit=5))] * 2)
    for env in (ours, theirs):
        env.seed(0)
        env.reset()
    rng = np.random.default_rng(0)
    for _ in range(12):
        actions = rng.uniform(-1, 1, (2, 1)).astype(np.float32)
        (*_, dones, infos), expected = ours.step(actions), theirs.step(actions)
        np.testing.assert_array_equal(dones, expected[2])
        for one, other in zip(infos, expected[3], strict=True):
            assert_infos_agree(one, other)
    ours.close()
    theirs.close()


class Chatty(gym.Env):
    """Shows a dict, takes discrete actions, draws noise, reads options, and describes itself."""

    observation_space = gym.spaces.Dict(
        {"x": gym.spaces.Box(-9, 9, (2,)), "n": gym.spaces.Discrete(99)}
    )
    action_space = gym.spaces.Discrete(3)
    n = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n = (options or {}).get("n", int(self.np_random.integers(5)))
        return self.see(), {"began_at": self.n}

    def step(self, action):
        self.n += int(action) + int(self.np_random.integers(2))
        return self.see(), float(self.n), self.n > 9, False, {}

    def see(self):
        return {"x": np.full(2, self.n / 10, np.float32), "n": self.n}

    def describe(self, prefix, *, suffix=""):
        return f"{prefix}{self.n}{suffix}"


def test_dict_observations_options_and_env_methods_on_an_env_without_a_batch_task():
    env = Cloneable(Chatty())
    ours = BatchVecEnv(env, 3)
    theirs = DummyVecEnv([Chatty] * 3)
    for vec_env in (ours, theirs):
        vec_env.seed(0)
        vec_env.set_options([{"n": 4}, {}, {"n": 2}])
    np.testing.assert_equal(ours.reset(), dict(theirs.reset()))
    assert ours.reset_infos == theirs.reset_infos
    for t in range(12):
        actions = np.array([t % 3, 1, 2])
        one, other = ours.step(actions), theirs.step(actions)
        np.testing.assert_equal(one[0], dict(other[0]))
        np.testing.assert_array_equal(one[1], other[1])
        for info, expected in zip(one[3], other[3], strict=True):
            np.testing.assert_equal({key: info.get(key) for key in expected}, expected)
        assert ours.reset_infos == theirs.reset_infos
        assert ours.get_attr("n") == theirs.get_attr("n")
        assert ours.env_method("describe", "<", suffix=">", indices=[2, 0]) == theirs.env_method(
            "describe", "<", suffix=">", indices=[2, 0]
        )
    assert ours.env_is_wrapped(Monitor) == [True] * 3
    assert ours.env_is_wrapped(gym.wrappers.TimeLimit, indices=1) == [False]
    assert ours.render_mode is None
    with pytest.raises(NotImplementedError, match="set it on the env that you pass"):
        ours.set_attr("n", 3)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        ours.get_attr("nothing_of_the_kind")


def test_a_diverged_simulation_is_cut_and_starts_anew():
    env = make_target(limit=10, break_at=2.0)
    ours = BatchVecEnv(env, 2, seed=0)
    ours.reset()
    sound, *_ = ours.step(np.zeros((2, 1)))
    observations, rewards, dones, infos = ours.step(np.array([[0.0], [2.5]]))
    np.testing.assert_array_equal(dones, [False, True])
    assert rewards[1] == 0.0 and rewards[0] != 0.0
    assert infos[1]["diverged"] and infos[1]["TimeLimit.truncated"]
    np.testing.assert_array_equal(infos[1]["terminal_observation"], sound[1])
    assert infos[1]["episode"]["l"] == 2
    assert "diverged" not in infos[0]
    assert np.isfinite(observations).all() and abs(observations[1, 0]) <= 0.1


def test_seeds_decide_the_starts_and_simulations_do_not_share_a_generator():
    def starts(seed: int | None) -> np.ndarray:
        env = BatchVecEnv(make_target(limit=1), 4, seed=seed)
        drawn = [env.reset()] + [env.step(np.zeros((4, 1)))[0] for _ in range(20)]
        return np.array(drawn)[:, :, 0]

    first, again, other = starts(0), starts(0), starts(1)
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.concatenate([first.ravel(), other.ravel()]))) == 2 * first.size


def test_what_a_caller_does_with_the_results_does_not_reach_the_simulations():
    ours, untouched = (BatchVecEnv(make_target(), 3, seed=0) for _ in range(2))
    for env in (ours, untouched):
        observations = env.reset()
        if env is ours:
            observations[:] = np.nan
    actions = np.zeros((3, 1))
    for _ in range(25):
        one, other = ours.step(actions), untouched.step(actions)
        np.testing.assert_array_equal(one[0], other[0])
        one[0][:] = np.nan
        one[1][:] = np.nan


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="n_envs must be >= 1, got 0"):
        BatchVecEnv("Pendulum-v1", 0)
    with pytest.raises(ValueError, match="no env is registered as 'Pendulumm-v1'; did you mean"):
        BatchVecEnv("Pendulumm-v1", 2)
    with pytest.raises(ValueError, match="make both from the same env"):
        BatchVecEnv("Pendulum-v1", 2, dynamics=VectorDynamics(make_target()))
    env = BatchVecEnv(Target(), 2)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros((2, 1)))
    env.reset()
    with pytest.raises(ValueError, match="2 simulations need as many actions"):
        env.step(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="actions must be finite, got 2 NaN"):
        env.step(np.full((2, 1), np.nan))


def test_ppo_trains_on_it_and_evaluates_under_normalisation():
    env = VecNormalize(BatchVecEnv(make_target(limit=10), 16, seed=0))
    model = PPO("MlpPolicy", env, n_steps=20, batch_size=80, n_epochs=2, seed=0, device="cpu")
    model.learn(20 * 16 * 2)
    assert model.num_timesteps == 640
    assert {info["l"] for info in model.ep_info_buffer} == {10}
    returns, lengths = evaluate_policy(
        model, env, n_eval_episodes=20, return_episode_rewards=True, warn=True
    )
    assert lengths == [10] * 20 and all(r < 0 for r in returns)


def test_arrays_of_the_env_are_those_of_each_simulation_as_it_is_now():
    ours = BatchVecEnv("Reacher-v5", 3)
    theirs = DummyVecEnv([lambda: gym.make("Reacher-v5")] * 3)
    for env in (ours, theirs):
        env.seed(0)
        env.reset()
        rng = np.random.default_rng(0)
        for _ in range(10):
            env.step(rng.uniform(-1, 1, (3, 2)).astype(np.float32))
    found, expected = (env.env_method("get_body_com", "fingertip") for env in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-4)  # the env shows those of a substep ago
    assert not np.allclose(found[0], found[1])
    ours.close()
    theirs.close()


def test_states_of_simulations_are_exact_with_what_lags_behind_in_the_simulator():
    batch, env = BatchVecEnv("Ant-v5", 2), Cloneable(gym.make("Ant-v5"))
    batch.seed(0)
    batch.reset()
    rng = np.random.default_rng(0)
    for _ in range(8):
        batch.step(rng.uniform(-1, 1, (2, 8)).astype(np.float32))
    states = batch.env_method("snapshot")
    actions = rng.uniform(-1, 1, (2, 8)).astype(np.float32)
    observations, rewards, _, _ = batch.step(actions)
    for index, state in enumerate(states):
        env.restore(state)
        observation, reward, *_ = env.step(actions[index])
        np.testing.assert_array_equal(observation, observations[index])
        assert reward == pytest.approx(rewards[index], rel=1e-6)  # float32 of SB3
    batch.close()


def test_simulations_of_one_env_are_not_compared_with_one_another(monkeypatch):
    asked = []
    env = BatchVecEnv("Pendulum-v1", 3)
    monkeypatch.setattr("mppi_agent.dynamics.sub_env", lambda env, index=0: asked.append(index))
    dynamics._require_alike(env, None)
    assert asked == []
    env.close()
