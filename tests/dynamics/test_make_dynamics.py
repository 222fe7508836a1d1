"""The choice of a backend, and the fallback where a fast one disagrees with `env.step`."""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from mppi_agent.cloning import Cloneable, MujocoAdapter, NotCloneableError
from mppi_agent.dynamics import (
    EnvStepDynamics,
    MujocoBatchDynamics,
    ProcessPoolDynamics,
    VectorDynamics,
    make_dynamics,
    mismatch,
    sub_env,
)
from mppi_agent.dynamics.perturbation import Perturbation, perturbed_dynamics
from mppi_agent.dynamics.tasks import classic_control, locomotion, pendulums


def wrap(env: gym.Env, limit: int = 100) -> Cloneable:
    cloneable = Cloneable(wrappers.TimeLimit(env, limit))
    cloneable.reset(seed=0)
    return cloneable


class OwnCheetah(HalfCheetahEnv):
    """Joins the batch by `batch_task()`, changed as `changes` says."""

    changes: dict[str, Any] = {}  # noqa: RUF012

    def batch_task(self):
        return replace(locomotion.half_cheetah(self), **self.changes)


class OwnHopper(HopperEnv):
    def batch_task(self):
        task = locomotion.hopper(self)
        return replace(task, health=replace(task.health, ends_episode=False))


class NeverFalling(pendulums.InvertedPendulum):
    def terminated(self, after):
        return np.zeros(len(after["qpos"]), dtype=bool)


class OwnInvertedPendulum(InvertedPendulumEnv):
    def batch_task(self):
        return NeverFalling()


class StatelessPendulum(PendulumEnv):
    """Has a task, yet does not say what its state is."""

    changes: dict[str, Any] = {}  # noqa: RUF012

    def vector_task(self):
        return replace(classic_control.pendulum(self), **self.changes)


class OwnPendulum(StatelessPendulum):
    def get_state(self):
        return np.array(self.state)

    def set_state(self, state):
        self.state, self.last_u = state, None


def changed(kind: type, **changes: Any) -> gym.Env:
    env = kind()
    env.changes = changes
    return env


@pytest.mark.parametrize(
    ("env_id", "backend"),
    [
        ("HalfCheetah-v5", MujocoBatchDynamics),
        ("InvertedPendulum-v5", MujocoBatchDynamics),
        ("Pendulum-v1", VectorDynamics),
        ("MountainCarContinuous-v0", VectorDynamics),
        ("CartPole-v1", VectorDynamics),
        ("MountainCar-v0", VectorDynamics),
        ("Acrobot-v1", VectorDynamics),
        ("Ant-v5", MujocoBatchDynamics),
    ],
)
def test_the_fastest_exact_backend_is_chosen(env_id, backend):
    env = Cloneable(gym.make(env_id))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dynamics = make_dynamics(env, num_workers=1)
    assert type(dynamics) is backend
    assert dynamics.action_space == env.action_space
    assert dynamics.observation_space == env.observation_space
    assert dynamics.max_episode_steps == env.spec.max_episode_steps
    dynamics.close()


def test_more_workers_are_processes_where_the_env_steps_itself():
    env = Cloneable(wrappers.TimeAwareObservation(gym.make("CartPole-v1")))
    dynamics = make_dynamics(env, num_workers=2)
    assert isinstance(dynamics, ProcessPoolDynamics) and dynamics.num_workers == 2
    dynamics.close()


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward),
        lambda env: wrappers.RescaleAction(env, np.float32(-0.5), np.float32(0.5)),
        lambda env: wrappers.FlattenObservation(env),
        lambda env: wrappers.TimeAwareObservation(env),
    ],
)
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_a_wrapper_that_changes_anything_leads_to_env_step(env_id, wrapper):
    dynamics = make_dynamics(Cloneable(wrapper(gym.make(env_id))), num_workers=1)
    assert type(dynamics) is EnvStepDynamics


def test_wrappers_that_only_watch_do_no_harm():
    env = wrappers.RecordEpisodeStatistics(gym.make("InvertedPendulum-v5"))
    assert type(make_dynamics(Cloneable(env), num_workers=1)) is MujocoBatchDynamics


def test_a_right_task_of_ones_own_is_used():
    assert type(make_dynamics(wrap(OwnCheetah()), num_workers=1)) is MujocoBatchDynamics
    assert type(make_dynamics(wrap(OwnPendulum()), num_workers=1)) is VectorDynamics


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: changed(OwnCheetah, control_weight=0.2), "OwnCheetah .* rewards by"),
        (lambda: changed(OwnCheetah, forward_weight=1.0001), "rewards by .* at step"),
        (lambda: changed(OwnCheetah, velocity_limit=0.5), "observations by"),
        (OwnInvertedPendulum, "termination: .* steps instead of"),
        (lambda: changed(OwnPendulum, mass=1.01), "OwnPendulum differs from env.step in"),
    ],
)
def test_a_wrong_task_of_ones_own_is_noticed_and_not_used(env, message):
    with pytest.warns(UserWarning, match=message):
        dynamics = make_dynamics(wrap(env()), num_workers=1)
    assert type(dynamics) is EnvStepDynamics


def test_a_wrong_end_of_a_robust_walker_is_noticed_too():
    env = wrap(OwnHopper())
    fast = MujocoBatchDynamics(env, num_threads=1)
    assert mismatch(fast, EnvStepDynamics(env)) is not None


def test_a_vector_task_without_a_state_vector_is_refused_with_the_cure():
    with pytest.raises(ValueError, match="get_state"):
        make_dynamics(wrap(StatelessPendulum()), num_workers=1)


class NanCheetah(OwnCheetah):
    """Its task pays nothing that is a number."""

    def batch_task(self):
        return replace(locomotion.half_cheetah(self), forward_weight=float("nan"))


def test_a_task_that_returns_nan_is_noticed():
    env = wrap(NanCheetah())
    fast = MujocoBatchDynamics(env, num_threads=1)
    assert mismatch(fast, EnvStepDynamics(env)) is not None


class VectorCartPole(CartPoleEnv):
    """A Discrete env with a task, wrong or right: the question is only whether it is asked."""

    def get_state(self):
        return np.asarray(self.state, dtype=np.float64)

    def set_state(self, state):
        self.state, self.steps_beyond_terminated = tuple(state), None

    def vector_task(self):
        return self

    def step(self, *arguments):
        if len(arguments) == 1:
            return super().step(*arguments)
        physics, actions = arguments
        outcomes = []
        for state, action in zip(physics, actions, strict=True):
            self.set_state(state)
            seen, reward, terminated, _, _ = super().step(int(action))
            outcomes.append((self.get_state(), seen, reward, terminated))
        return tuple(np.array(column) for column in zip(*outcomes, strict=True))


def test_a_discrete_env_may_bring_a_vector_task():
    assert type(make_dynamics(wrap(VectorCartPole()), num_workers=1)) is VectorDynamics


def test_agreement_is_measured_on_the_env_as_it_is():
    env = wrap(HalfCheetahEnv(ctrl_cost_weight=0.9))
    env.unwrapped.model.body_mass[:] *= 1.2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dynamics = make_dynamics(env, num_workers=1)
    assert type(dynamics) is MujocoBatchDynamics
    assert mismatch(dynamics, EnvStepDynamics(wrap(HalfCheetahEnv()))) is not None
    assert mismatch(dynamics, EnvStepDynamics(env), seed=7) is None


@pytest.mark.parametrize("env_id", ["Hopper-v5", "CartPole-v1", "FrozenLake-v1"])
def test_choosing_leaves_the_env_alone(env_id):
    chosen, untouched = (Cloneable(gym.make(env_id)) for _ in range(2))
    for env in (chosen, untouched):
        env.reset(seed=0)
        env.action_space.seed(0)
    make_dynamics(chosen, num_workers=1)
    for _ in range(3):
        actions = [env.action_space.sample() for env in (chosen, untouched)]
        np.testing.assert_array_equal(*actions)
        np.testing.assert_equal(chosen.step(actions[0]), untouched.step(actions[1]))
    np.testing.assert_equal(chosen.reset(), untouched.reset())


class ChangingCheetah(HalfCheetahEnv):
    """Brings its task, and another body with each reset."""

    def reset_model(self):
        self.model.body_mass[2] = 1.0 + self.np_random.random()
        return super().reset_model()

    def batch_task(self):
        return locomotion.half_cheetah(self)


def test_an_env_that_brings_its_task_must_be_cloneable_all_the_same():
    env = Cloneable(ChangingCheetah())
    env.reset(seed=0)
    mass = env.unwrapped.model.body_mass.copy()
    with pytest.raises(NotCloneableError, match=r"shared model.body_mass"):
        make_dynamics(env, num_workers=1)
    np.testing.assert_array_equal(env.unwrapped.model.body_mass, mass)


def test_the_coarse_model_of_a_backend_is_another_model():
    env = Cloneable(gym.make("Hopper-v5"))
    env.reset(seed=0)
    dynamics = make_dynamics(env, num_workers=1)
    coarse = dynamics.coarse(1)
    assert mismatch(coarse, EnvStepDynamics(env)) is not None
    assert mismatch(dynamics, EnvStepDynamics(env)) is None
    with pytest.raises(ValueError, match="substeps must be >= 1 or None, got 0"):
        dynamics.coarse(0)


def test_the_cloneable_of_an_env_is_found():
    inner = Cloneable(gym.make("Pendulum-v1"))
    assert sub_env(inner) is inner
    assert sub_env(wrappers.RecordEpisodeStatistics(inner)) is inner
    venv = VecNormalize(DummyVecEnv([lambda: inner]))
    assert sub_env(venv) is inner
    with pytest.raises(TypeError, match="wrap the env first"):
        sub_env(gym.make("Pendulum-v1"))
    with pytest.raises(TypeError, match="wrapper_class=Cloneable"):
        sub_env(make_vec_env("Pendulum-v1", 2))


def test_the_env_of_another_process_comes_as_an_exact_copy():
    venv = make_vec_env(
        "Pendulum-v1",
        1,
        env_kwargs={"g": 4.0},
        wrapper_class=Cloneable,
        vec_env_cls=SubprocVecEnv,
    )
    try:
        venv.seed(3)
        observation = venv.reset()
        copy = sub_env(venv)
        assert copy.unwrapped.g == 4.0
        np.testing.assert_array_equal(copy.last_observation, observation[0])
        action = np.array([0.7], dtype=np.float32)
        shown, rewards, _, _ = venv.step(action[None])
        here, reward, _, _, _ = copy.step(action)
        np.testing.assert_array_equal(here, shown[0])
        np.testing.assert_allclose(reward, rewards[0], rtol=1e-6)
    finally:
        venv.close()


def test_envs_of_another_process_that_are_not_cloneable_are_refused():
    venv = make_vec_env("Pendulum-v1", 1, vec_env_cls=SubprocVecEnv)
    try:
        with pytest.raises(TypeError, match="wrapper_class=Cloneable"):
            sub_env(venv)
    finally:
        for process in venv.processes:
            process.terminate()


class LightCartPole(CartPoleEnv):
    """No array form is known of a subclass, so that its steps are simulated."""

    def __init__(self, gravity: float = 9.8) -> None:
        super().__init__()
        self.gravity = gravity


class HeavyHopper(HopperEnv):
    """Another body from the start on; its steps are simulated, too."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.model.body_mass[:] *= scale


def several(*makers, vec_env_cls=DummyVecEnv):
    def wrapped(maker):
        return lambda: Cloneable(wrappers.TimeLimit(maker(), 100))

    return vec_env_cls([wrapped(maker) for maker in makers])


@pytest.mark.parametrize(
    ("makers", "said"),
    [
        ([PendulumEnv, lambda: PendulumEnv(g=4.0)], "env 1 .*: rewards by"),
        (
            [HalfCheetahEnv] * 2 + [lambda: HalfCheetahEnv(ctrl_cost_weight=0.5)],
            "env 2 .*: rewards",
        ),
        ([HeavyHopper, lambda: HeavyHopper(2.0)], "env 1 .*: "),
        ([PendulumEnv, lambda: wrappers.RepeatAction(PendulumEnv(), 2)], "env 1 .*: rewards"),
        ([PendulumEnv, HopperEnv], r"env 1 .*: observation_space Box.*\(11,\), float64\) instead"),
        ([PendulumEnv, OwnPendulum], "env 1 .*captured from .*OwnPendulum"),
    ],
)
def test_envs_that_differ_are_refused(makers, said):
    with pytest.raises(ValueError, match=said + ".*let reset draw what varies"):
        make_dynamics(several(*makers), num_workers=1)
    make_dynamics(several(*makers[:1] * 2), num_workers=1).close()


def test_envs_of_other_processes_that_differ_are_refused():
    makers = [PendulumEnv, lambda: PendulumEnv(g=4.0)]
    venv = several(*makers, vec_env_cls=SubprocVecEnv)
    try:
        with pytest.raises(ValueError, match="env 1 of the VecEnv is not like env 0"):
            make_dynamics(venv, num_workers=1)
    finally:
        venv.close()


def test_envs_may_differ_in_what_is_part_of_their_state():
    venv = several(LightCartPole, lambda: LightCartPole(3.0))
    venv.seed(0)
    venv.reset()
    states = venv.env_method("snapshot")
    with closing(make_dynamics(venv, num_workers=1)) as dynamics:
        actions = np.ones((2, 1, 8), dtype=int)
        batch = dynamics.rollout(states, actions, keep_observations=True)
    for env, observations in zip(venv.envs, batch.observations, strict=True):
        for shown in observations[0]:
            np.testing.assert_array_equal(env.step(1)[0], shown)


class SlowCheetah(OwnCheetah):
    """Changes the rule, but has its parent's task."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward if reward < 1000 else 0.0, *rest


class SlowPendulum(OwnPendulum):
    def step(self, action):
        return super().step(action)


def test_the_task_of_a_parent_does_not_serve_a_step_of_ones_own():
    for env, name in ((SlowCheetah(), "batch_task"), (SlowPendulum(), "vector_task")):
        with pytest.warns(UserWarning, match=rf"define {name}\(\) in the class that defines step"):
            assert type(make_dynamics(wrap(env), num_workers=1)) is EnvStepDynamics


def test_model_fields_that_are_state_are_not_simulated_in_a_batch():
    env = Cloneable(gym.make("Hopper-v5"), MujocoAdapter(model_fields=("body_mass",)))
    env.reset(seed=0)
    dynamics = make_dynamics(env, num_workers=1)
    assert type(dynamics) is EnvStepDynamics
    light = env.snapshot()
    env.unwrapped.model.body_mass[:] *= 2.0
    heavy = env.snapshot()
    actions = np.ones((2, 1, 5, 3), dtype=np.float32)
    rewards = dynamics.rollout([light, heavy], actions).rewards[:, 0]
    assert np.abs(rewards[0] - rewards[1]).max() > 1e-3
    with pytest.raises(ValueError, match=r"hold body_mass of its model.* undo the perturbation"):
        perturbed_dynamics(env, Perturbation(mass=1.5))
    with closing(perturbed_dynamics(env, Perturbation(gain=0.5), num_workers=1)) as weak:
        weakened = weak.rollout([light, heavy], actions).rewards[:, 0]
    assert np.abs(weakened - rewards).max(axis=1).min() > 1e-3
