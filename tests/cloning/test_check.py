"""check_clones finds broken clones and leaves no trace."""

from __future__ import annotations

import copy
import threading

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

from mppi_agent import MPPIAgent, MPPIConfig
from mppi_agent.cloning import (
    Cloneable,
    MujocoAdapter,
    NotCloneableError,
    Verdict,
    check_clones,
    require_cloneable,
)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1", "Ant-v5", "FrozenLake-v1"])
def test_exact_envs_pass(env_id):
    report = check_clones(env_id, steps=60)
    assert report.exact, str(report)
    assert report.num_compared > 100
    assert report.verdict is Verdict.EXACT and "bit-exact" in str(report)


class Forgetful(gym.Env):
    """Keeps part of its state where nobody looks, as a C library would."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)
    hidden = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        type(self).hidden = 0
        return np.zeros(1), {}

    def step(self, action):
        type(self).hidden += 1
        return np.full(1, float(self.hidden)), 0.0, False, False, {"count": self.hidden}


def test_hidden_state_is_found_and_named():
    report = check_clones(Forgetful(), steps=30)
    assert not report.exact
    assert {mismatch.quantity for mismatch in report.mismatches} >= {"observation"}
    assert "observation on" in str(report)
    with pytest.raises(NotCloneableError, match=r"does not repeat[\s\S]*observation"):
        require_cloneable(Cloneable(Forgetful()))


class Rounding(Forgetful):
    """Restores its place not quite as it was."""

    hidden_error = 1e-9

    def reset(self, *, seed=None, options=None):
        gym.Env.reset(self, seed=seed)
        self.place = self.np_random.normal(size=1)
        return self.place.copy(), {}

    def step(self, action):
        self.place = self.place + 0.1 * (action - 0.5)
        return self.place.copy(), float(self.place[0]), False, False, {}

    def get_state(self):
        return self.place.copy()

    def set_state(self, state):
        self.place = state + self.hidden_error


def test_three_verdicts_and_the_worst_mismatch():
    report = check_clones(Rounding(), steps=30)
    assert report.verdict is Verdict.TOLERABLE and not report.exact
    assert report.worst.amount == pytest.approx(1e-9, rel=1e-3)
    assert report.worst.quantity in ("observation", "reward") and report.worst.step >= 1
    assert f"worst      {report.worst}" in str(report)
    sizes = [mismatch.relative for mismatch in report.mismatches]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 10
    assert check_clones(Rounding(), steps=30, tolerance=1e-12).verdict is Verdict.IMPOSSIBLE
    assert check_clones(Forgetful(), steps=30).verdict is Verdict.IMPOSSIBLE


def test_an_env_that_no_adapter_serves_is_reported_with_reason_and_cures():
    class Connected(Rounding):
        get_state = None

        def __init__(self):
            self.lock = threading.Lock()

    report = check_clones(Connected())
    assert report.verdict is Verdict.IMPOSSIBLE and report.adapter is None
    assert "'lock' (lock)" in report.reason
    assert "get_state()" in str(report) and "ReplayAdapter" in str(report)


def test_planning_is_refused_without_and_warned_of_with_the_override():
    config = MPPIConfig(num_samples=8, horizon=3)
    with pytest.raises(NotCloneableError, match="allow_inexact=True"):
        MPPIAgent(Swaying(), config, seed=0)
    with pytest.warns(UserWarning, match="planning with inexact clones of Swaying"):
        expert = MPPIAgent(Cloneable(Swaying(), allow_inexact=True), config, seed=0)
    observation, _ = expert.env.reset(seed=0)
    expert.predict(observation)
    expert.close()
    assert Cloneable(Swaying(), allow_inexact=True).private_copy().allow_inexact
    with pytest.warns(UserWarning, match="within tolerance"):
        require_cloneable(Cloneable(Rounding()))


@pytest.mark.slow
def test_override_reaches_training():
    from mppi_agent import MPPIGPS

    env = gym.wrappers.TimeLimit(Swaying(), 50)
    with pytest.raises(NotCloneableError, match="allow_inexact=True"):
        MPPIGPS("MlpPolicy", Cloneable(env), device="cpu").learn(64)
    with pytest.warns(UserWarning, match="planning with inexact clones of Swaying"):
        MPPIGPS("MlpPolicy", Cloneable(env, allow_inexact=True), device="cpu").learn(64)


class Swaying(Rounding):
    """Restores its place far off."""

    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    hidden_error = 1e-2


class Fragile(Rounding):
    """Raises in each step after a restore."""

    def set_state(self, state):
        self.place = None


def test_step_that_raises_after_a_restore_is_a_mismatch():
    report = check_clones(Fragile(), steps=30)
    assert report.verdict is Verdict.IMPOSSIBLE
    assert "TypeError from step" in report.worst.quantity


def test_step_that_raises_by_itself_is_named_as_such():
    class Broken(Rounding):
        def step(self, action):
            raise RuntimeError("out of fuel")

    with pytest.raises(ValueError, match=r"Broken failed by itself[\s\S]*out of fuel"):
        check_clones(Broken())


def test_infos_that_differ_are_said_and_forgiven():
    class Timed(Rounding):
        hidden_error = 0.0
        num_steps = 0

        def step(self, action):
            type(self).num_steps += 1
            return *super().step(action)[:4], {"steps_of_all": type(self).num_steps}

    report = check_clones(Timed(), steps=30)
    assert report.verdict is Verdict.TOLERABLE
    assert report.worst.quantity == "info['steps_of_all']"


class Counting(Rounding):
    """Ends by a counter that its state forgets, long after any check."""

    hidden_error = 0.0

    def reset(self, *, seed=None, options=None):
        self.num_steps, self.goal = 0, np.zeros(1)
        return super().reset(seed=seed)

    def step(self, action):
        self.num_steps += 1
        return *super().step(action)[:3], self.num_steps >= 500, {}


def test_attributes_that_a_state_forgets_are_named():
    report = check_clones(Counting())
    assert report.exact and report.not_restored == ("num_steps",)
    assert "set_state() does not restore num_steps" in str(report)
    with pytest.warns(UserWarning, match="clones of Counting: set_state.* num_steps"):
        require_cloneable(Cloneable(Counting()))
    assert check_clones("Pendulum-v1").not_restored == ()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"reward": np.zeros(1)}, r"reward has shape \(1,\)"),
        ({"num": 4}, r"step\(\) of Odd returned \['ndarray', .*wanted \(observation, reward"),
        ({"info": None}, r"reset\(\) of Odd returned \['ndarray', 'NoneType'\], wanted"),
        ({"no_info": True}, r"reset\(\) of Odd returned \[[-0-9. ]+\], wanted.*GymV21"),
    ],
)
def test_what_is_not_as_gymnasium_has_it_is_named(part, said):
    class Odd(Rounding):
        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            return observation if "no_info" in part else (observation, part.get("info", info))

        def step(self, action):
            observation, reward, *rest = super().step(action)
            outcome = (observation, part.get("reward", reward), *rest)
            return outcome[: part.get("num", 5)]

    with pytest.raises((TypeError, ValueError), match=said):
        check_clones(Odd())


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="steps must be >= 2, got 1"):
        check_clones("Pendulum-v1", steps=1)
    with pytest.raises(ValueError, match="tolerance must be >= 0"):
        check_clones("Pendulum-v1", tolerance=-1.0)


def test_check_leaves_env_generator_counters_and_logs_as_found():
    from stable_baselines3.common.monitor import Monitor

    def make() -> Monitor:
        made = gym.make("Pendulum-v1", max_episode_steps=25)
        env = Monitor(wrappers.NormalizeObservation(wrappers.RecordEpisodeStatistics(made)))
        env.reset(seed=0)
        for _ in range(10):
            env.step(np.zeros(1, dtype=np.float32))
        return env

    checked, untouched = make(), make()
    assert check_clones(checked, steps=50).exact
    for _ in range(15):
        outcomes = [env.step(np.ones(1, dtype=np.float32))[:4] for env in (checked, untouched)]
        np.testing.assert_equal(outcomes[0], outcomes[1])
    assert outcomes[0][3]
    assert checked.get_episode_lengths() == [25]
    assert checked.get_episode_rewards() == untouched.get_episode_rewards()
    np.testing.assert_equal(checked.reset()[0], untouched.reset()[0])


def test_check_of_an_env_never_reset_leaves_it_never_reset():
    env = gym.make("Pendulum-v1")
    require_cloneable(Cloneable(env))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(1, dtype=np.float32))
    assert copy.copy(env.unwrapped.__dict__).get("_np_random") is None


class MovingGoal(HopperEnv):
    """Moves a body of its model in each reset, as Adroit does."""

    def reset_model(self):
        self.model.body_mass[2] = 1.0 + self.np_random.random()
        return super().reset_model()


def test_reset_that_writes_to_the_shared_model_is_found_and_curable():
    report = check_clones(MovingGoal(), steps=30)
    assert "shared model.body_mass" in str(report)
    cured = Cloneable(MovingGoal(), MujocoAdapter(model_fields=("body_mass",)))
    assert check_clones(cured, steps=30).exact
    cured.reset(seed=0)
    mass = cured.unwrapped.model.body_mass[2]
    twin = cured.private_copy()
    twin.reset(seed=1)
    assert twin.unwrapped.model.body_mass[2] != mass == cured.unwrapped.model.body_mass[2]
    twin.restore(cured.snapshot())
    assert twin.unwrapped.model.body_mass[2] == mass


class ChangingGravity(HopperEnv):
    """Changes an option of its model in each reset."""

    def reset_model(self):
        self.model.opt.gravity[2] = -9.0 - self.np_random.random()
        return super().reset_model()


def test_options_of_the_model_are_looked_at_too_and_curable():
    report = check_clones(ChangingGravity(), steps=30)
    assert "shared model.opt.gravity" in str(report)
    cured = Cloneable(ChangingGravity(), MujocoAdapter(model_fields=("opt.gravity",)))
    assert check_clones(cured, steps=30).exact


def test_a_check_leaves_the_model_as_it_was():
    env = MovingGoal()
    env.reset(seed=0)
    env.model.opt.timestep *= 0.5
    mass, timestep = env.model.body_mass.copy(), env.model.opt.timestep
    check_clones(env, steps=30)
    np.testing.assert_array_equal(env.model.body_mass, mass)
    assert env.model.opt.timestep == timestep


@pytest.mark.parametrize("name", ["body_mas", "nq", "opt.gravitation", "opt.timestep"])
def test_a_model_field_that_is_no_array_is_named(name):
    env = Cloneable(HopperEnv(), MujocoAdapter(model_fields=(name,)))
    with pytest.raises(ValueError, match=f"model_fields names '{name}'"):
        env.reset(seed=0)
        env.snapshot()
