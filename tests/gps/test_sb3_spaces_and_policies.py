"""Spaces, VecEnv wrappers and policies that SB3's tests try, tried with MPPIGPS.

The name behind "SB3:" is the test there that ours stands for.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import IdentityEnvBox, SimpleMultiObsEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    is_vecenv_wrapped,
)
from stable_baselines3.common.vec_env.vec_transpose import VecTransposeImage
from torch import nn
from toy_envs import Target, TargetOf, make_target
from toy_models import pendulum, same, small, weights

from mppi_agent.cloning import Cloneable, NotCloneableError, find_cloneable
from mppi_agent.gps import MPPIGPS


class SeededIdentity(IdentityEnvBox):
    """SB3's env with its states drawn from the env's own generator, which can be cloned."""

    def _choose_next_state(self):
        self.state = self.np_random.uniform(-1, 1, 1).astype(np.float32)


def image_env(*, channels_first: bool = False) -> TargetOf:
    """The state as a bright column; the planner sees the state, the student the pixels."""
    shape = (1, 36, 36) if channels_first else (36, 36, 1)

    def see(seen):
        image = np.zeros((36, 36), dtype=np.uint8)
        image[:, int(np.clip(18 + 9 * seen[0], 0, 35))] = 255
        return image.reshape(shape)

    return TargetOf(spaces.Box(0, 255, shape, dtype=np.uint8), see=see)


def dict_env() -> gym.Env:
    """SB3's env of an image and a vector, with nothing drawn from global generators."""
    return gym.wrappers.TimeLimit(SimpleMultiObsEnv(discrete_actions=False, random_start=False), 6)


@pytest.mark.parametrize("make_env", [SeededIdentity, pendulum, make_target])
def test_simple_envs_are_trained_and_predicted_in(make_env):
    """SB3: test_ppo and its kin in test_run, test_auto_wrap, test_identity."""
    model = small(make_env()).learn(8)
    env = model.get_env()
    observation = env.reset()
    action, state = model.predict(observation)
    assert action.shape == (1, 1) and env.action_space.contains(action[0]) and state is None
    single, _ = model.predict(observation[0], deterministic=True)
    assert single.shape == (1,)
    np.testing.assert_allclose(single, model.predict(observation, deterministic=True)[0][0])


def test_an_env_id_is_made_as_sb3_makes_it():
    """SB3: test_auto_wrap; rendering is for whoever records the student, copies never render."""
    env = small("Pendulum-v1").get_env()
    assert env.render_mode == "rgb_array" and env.env_is_wrapped(Monitor) == [True]
    assert find_cloneable(env.envs[0]).private_copy().render_mode is None


def test_an_env_that_draws_from_elsewhere_is_refused_with_a_report():
    """SB3's own IdentityEnvBox draws its states from its action space, which is no state."""
    with pytest.raises(NotCloneableError, match="does not repeat what the env did"):
        small(IdentityEnvBox(ep_length=10)).learn(8)


def test_mixing_up_the_apis_of_gym_and_vec_env_is_explained():
    """SB3: test_mixing_gym_vecenv_api."""
    env = make_target()
    with pytest.raises(ValueError, match="a tuple"):
        small(env).predict(env.reset())


@pytest.mark.parametrize("device", ["cpu", "auto", th.device("cpu")])
def test_devices_are_named_as_in_sb3(device, tmp_path):
    """SB3: test_predict."""
    model = small(device=device)
    assert model.policy.device == model.device
    model.save(tmp_path / "model")
    assert MPPIGPS.load(tmp_path / "model", device=device).policy.device == model.device


def test_training_is_deterministic_to_the_last_action():
    """SB3: test_deterministic_training_common."""
    rollouts = []
    for _ in range(2):
        model = small(seed=7).learn(12)
        env = model.get_env()
        seen, rewards = env.reset(), []
        for _ in range(8):
            seen, reward, _, _ = env.step(model.predict(seen, deterministic=False)[0])
            rewards.append(reward[0])
        rollouts.append(rewards)
    assert rollouts[0] == rollouts[1]


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Box(-1, 3, (2, 2), dtype=np.float32),
        spaces.Box(-1, 3, (1,), dtype=np.float64),
        spaces.Box(np.array([-1, 0]), np.array([3, 0.5]), dtype=np.float64),
    ],
    ids=["matrix", "float64", "unequal bounds"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_boxes_of_any_shape_and_precision_work(action_space, dtype):
    """SB3: test_action_spaces, test_float64_action_space."""
    env = TargetOf(spaces.Box(-10, 10, (2,), dtype=dtype), action_space)
    model = small(env).learn(12)
    action, _ = model.predict(np.zeros(2, dtype=dtype))
    assert action.shape == action_space.shape and action_space.contains(
        action.astype(action_space.dtype)
    )


def test_noise_that_is_not_drawn_anew_is_refused():
    """SB3: test_sde does not apply."""
    with pytest.raises(ValueError, match="leave use_sde out of policy_kwargs"):
        small(policy_kwargs={"use_sde": True})


def test_dict_observations_with_an_image_are_learnt_from(tmp_path):
    """SB3: test_dict_spaces, test_consistency."""
    model = small(dict_env(), "MultiInputPolicy", policy_kwargs={"net_arch": [8]}).learn(8)
    observation = model.get_env().reset()
    before = model.predict(observation, deterministic=True)[0]
    model.save(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", env=dict_env(), device="cpu")
    np.testing.assert_array_equal(before, loaded.predict(observation, deterministic=True)[0])
    loaded.learn(4, reset_num_timesteps=False)


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_a_dict_asks_for_the_policy_that_reads_it(policy):
    """SB3: test_policy_hint."""
    with pytest.raises(ValueError, match="must use `MultiInputPolicy`"):
        small(dict_env(), policy)


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match="Policy MlpPolice unknown"):
        small(policy="MlpPolice")


def test_nested_dicts_are_refused():
    """SB3: test_dict_nested."""
    inner = spaces.Dict({"x": spaces.Dict({"y": Target.observation_space})})
    with pytest.raises(NotImplementedError, match="Nested"):
        small(TargetOf(inner, see=lambda seen: {"x": {"y": seen}}), "MultiInputPolicy")


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_student_of_pixels_learns_from_a_planner_of_states(channels_first, tmp_path):
    """SB3: test_cnn, test_channel_first_env, test_save_load_env_cnn."""
    env = image_env(channels_first=channels_first)
    model = small(env, "CnnPolicy", policy_kwargs={}).learn(8)
    assert is_vecenv_wrapped(model.get_env(), VecTransposeImage) is not channels_first
    seen, _ = env.reset()
    answer = model.predict(seen, deterministic=True)[0]
    model.save(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(answer, loaded.predict(seen, deterministic=True)[0])
    np.testing.assert_allclose(
        loaded.predict_values(seen[None]), model.predict_values(seen[None]), rtol=1e-5
    )
    assert len(model.replay_buffer) > 0


def test_images_may_come_normalised():
    """SB3: test_image_like_input."""
    space = spaces.Box(0, 1, (1, 36, 36), dtype=np.float32)
    env = TargetOf(space, see=lambda seen: np.full((1, 36, 36), 0.5, dtype=np.float32))
    kwargs = {"normalize_images": False, "net_arch": [8]}
    extractor = {"features_extractor_kwargs": {"normalized_image": True}}
    assert small(env, "CnnPolicy", policy_kwargs=kwargs | extractor).learn(8)


def test_frames_are_stacked_inside_each_env():
    """SB3: test_dict_vec_framestack; frames must be part of what a planner restores."""
    venv = make_vec_env(make_target, 1)
    with pytest.raises(ValueError, match=r"VecFrameStack.*gymnasium wrapper of the same purpose"):
        small(VecFrameStack(venv, n_stack=3))
    stacked = gym.wrappers.FrameStackObservation(TargetOf(), 3)
    model = small(stacked).learn(12)
    assert model.observation_space.shape == (3, 2)


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_frames_inside_each_env_are_those_of_vec_frame_stack(kind):
    """SB3: test_vec_stacked_obs; the two recipes of the docs."""

    def make_inner() -> gym.Env:
        return TargetOf() if kind == "vector" else image_env()

    def make_stacked() -> gym.Env:
        env = gym.wrappers.FrameStackObservation(make_inner(), 3, padding_type="zero")
        if kind == "vector":
            return gym.wrappers.FlattenObservation(env)
        height, width, channels = make_inner().observation_space.shape
        space = spaces.Box(0, 255, (height, width, 3 * channels), np.uint8)
        return gym.wrappers.TransformObservation(env, lambda seen: np.concatenate(seen, -1), space)

    theirs = VecFrameStack(DummyVecEnv([make_inner]), n_stack=3)
    ours = DummyVecEnv([make_stacked])
    for env in (theirs, ours):
        env.seed(0)
    assert theirs.observation_space.shape == ours.observation_space.shape
    np.testing.assert_array_equal(theirs.reset(), ours.reset())
    rng = np.random.default_rng(0)
    for _ in range(8):  # past the end of an episode of six steps
        action = rng.uniform(-1, 3, (1, 1)).astype(np.float32)
        seen = [env.step(action)[0] for env in (theirs, ours)]
        np.testing.assert_array_equal(*seen)


def test_vec_monitor_counts_episodes(recwarn, tmp_path):
    """SB3: test_vec_monitor_ppo."""
    venv = VecMonitor(DummyVecEnv([lambda: make_target(6)] * 2), str(tmp_path / "monitor.csv"))
    model = small(venv).learn(24)
    assert len(model.ep_info_buffer) == 4
    assert not [w for w in recwarn if "Monitor" in str(w.message)]


def test_statistics_are_synchronised_with_evaluations():
    """SB3: test_sync_vec_normalize, test_vec_normalize in test_dict_env."""
    envs = [VecNormalize(DummyVecEnv([dict_env_of_cloneables])) for _ in range(2)]
    for env in envs:
        env.norm_obs_keys = ["vec"]
    model = small(envs[0], "MultiInputPolicy", policy_kwargs={"net_arch": [8]})
    envs[1].training = False
    model.learn(8, EvalCallback(envs[1], eval_freq=8, n_eval_episodes=1, verbose=0, warn=False))
    np.testing.assert_array_equal(envs[0].obs_rms["vec"].mean, envs[1].obs_rms["vec"].mean)
    assert envs[0].obs_rms["vec"].count > 8


def dict_env_of_cloneables() -> Cloneable:
    return Cloneable(dict_env())


@pytest.mark.slow
def test_dicts_come_from_other_processes_too():
    """SB3: test_multiprocessing."""
    venv = make_vec_env(dict_env_of_cloneables, 2, vec_env_cls=SubprocVecEnv)
    try:
        model = small(venv, "MultiInputPolicy", policy_kwargs={"net_arch": [8]})
        assert model.learn(16).num_timesteps == 16
    finally:
        venv.close()


@pytest.mark.parametrize(
    "net_arch", [[], [4], {"vf": [8], "pi": [4, 4]}, {"vf": [], "pi": [4]}], ids=str
)
def test_any_architecture_is_built(net_arch):
    """SB3: test_flexible_mlp."""
    small(policy_kwargs={"net_arch": net_arch}).learn(8)


@pytest.mark.parametrize("optimizer", [th.optim.AdamW, RMSpropTFLike])
def test_optimisers_are_chosen_by_the_user(optimizer):
    """SB3: test_custom_optimizer, test_tf_like_rmsprop_optimizer."""
    kwargs = {"optimizer_class": optimizer, "optimizer_kwargs": {"weight_decay": 1e-3}}
    model = small(policy_kwargs={**kwargs, "net_arch": [8]}).learn(12)
    assert type(model.policy.optimizer) is optimizer
    assert model.policy.optimizer.param_groups[0]["weight_decay"] == 1e-3


class BatchNormDropout(BaseFeaturesExtractor):
    def __init__(self, observation_space: gym.Space) -> None:
        super().__init__(observation_space, spaces.utils.flatdim(observation_space))
        self.norm = nn.BatchNorm1d(self.features_dim)
        self.dropout = nn.Dropout(0.5)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.dropout(self.norm(observations))


class MyPolicy(ActorCriticPolicy):
    """A policy class of the user's own."""


def batch_norm_model(**kwargs) -> MPPIGPS:
    settings = {"features_extractor_class": BatchNormDropout, "net_arch": [8]}
    return small(policy=MyPolicy, policy_kwargs=settings, **kwargs)


def statistics(model: MPPIGPS) -> np.ndarray:
    return model.policy.features_extractor.norm.running_mean.numpy().copy()


def test_policies_and_extractors_of_ones_own_are_trained():
    """SB3: test_a2c_ppo_train_with_batch_norm."""
    model = batch_norm_model(expert_episodes=0)
    before, weight = statistics(model), weights(model)
    model.learn(24)
    assert isinstance(model.policy, MyPolicy)
    assert not np.array_equal(statistics(model), before)
    assert not same(weights(model), weight)


def test_collecting_planning_and_predicting_leave_batch_norm_and_dropout_alone():
    """SB3: test_a2c_ppo_collect_rollouts_with_batch_norm, test_predict_with_dropout_batch_norm."""
    model = batch_norm_model()
    before = statistics(model)
    model.learn(4)  # the first round samples, plans and evaluates, but does not train
    seen = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    answers = [model.predict(seen, deterministic=True)[0] for _ in range(3)]
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])
    np.testing.assert_array_equal(statistics(model), before)
