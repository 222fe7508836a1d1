"""Exported policies act as `model.predict` does, on batches of any size."""

from __future__ import annotations

from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from test_sb3_spaces_and_policies import dict_env, image_env
from toy_envs import make_target
from toy_models import make, pendulums, small, weights

from mppi_agent.cloning import Cloneable
from mppi_agent.gps import MPPIGPS
from mppi_agent.gps.export import export_onnx, export_torchscript


def run_torchscript(model, path, observations, **kwargs):
    export_torchscript(model, path / "policy.pt", **kwargs)
    module = th.jit.load(path / "policy.pt")
    if isinstance(observations, dict):
        return module({key: th.as_tensor(value) for key, value in observations.items()}).numpy()
    return module(th.as_tensor(observations)).numpy()


def run_onnx(model, path, observations, **kwargs):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    export_onnx(model, path / "policy.onnx", **kwargs)
    session = onnxruntime.InferenceSession(path / "policy.onnx")
    if not isinstance(observations, dict):
        observations = {"observation": observations}
    (actions,) = session.run(["action"], observations)
    return actions


FORMATS = pytest.mark.parametrize("run", [run_torchscript, run_onnx])


def draw(space, num, seed=0):
    """Return a batch of observations, as `predict` takes them."""
    space = deepcopy(space)
    space.seed(seed)
    drawn = [space.sample() for _ in range(num)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([one[key] for one in drawn]) for key in space.spaces}
    return np.stack(drawn)


def assert_acts_alike(run, model, path):
    for num in (1, 40):
        observations = draw(model.observation_space, num)
        wanted, _ = model.predict(observations, deterministic=True)
        actions = run(model, path, observations)
        assert actions.shape == wanted.shape
        np.testing.assert_allclose(actions, wanted, rtol=0, atol=1e-5)
    assert num == 1 or np.ptp(wanted.astype(float), axis=0).max() > 0  # it looks at what it gets


@FORMATS
def test_vectors_go_through_the_policys_normalisation_and_actions_are_clipped(run, tmp_path):
    model = small(make_target(limit=6), init_std=0.5).learn(24)
    normalizer = model.policy.pi_features_extractor.normalizer
    assert normalizer.count > 0
    th.nn.init.normal_(model.policy.action_net.weight, std=2.0)
    assert_acts_alike(run, model, tmp_path)
    actions = run(model, tmp_path, draw(model.observation_space, 50))
    assert {-1.0, 3.0} <= set(actions.ravel().tolist())  # both bounds of the env


@FORMATS
def test_dicts_with_an_image_keep_their_keys(run, tmp_path):
    model = small(dict_env(), "MultiInputPolicy").learn(8)
    th.nn.init.normal_(model.policy.action_net.weight)
    assert_acts_alike(run, model, tmp_path)


@FORMATS
def test_images_are_scaled_as_the_policy_scales_them(run, tmp_path):
    model = small(image_env(), "CnnPolicy").learn(8)
    th.nn.init.normal_(model.policy.action_net.weight)
    assert_acts_alike(run, model, tmp_path)


@FORMATS
def test_a_loaded_model_is_exported_like_the_one_that_was_saved(run, tmp_path):
    model = small().learn(16)
    model.save(tmp_path / "model")
    assert_acts_alike(run, MPPIGPS.load(tmp_path / "model"), tmp_path)


@FORMATS
@pytest.mark.parametrize("of_dicts", [False, True])
def test_vec_normalize_becomes_part_of_what_is_exported(run, of_dicts, tmp_path):
    make_env = (lambda: Cloneable(dict_env())) if of_dicts else (lambda: make_target(limit=6))
    venv = DummyVecEnv([make_env])
    env = VecNormalize(venv, norm_obs_keys=["vec"] if of_dicts else None, clip_obs=1.5)
    model = small(env, "MultiInputPolicy" if of_dicts else "MlpPolicy").learn(16)
    th.nn.init.normal_(model.policy.action_net.weight)
    raw = draw(model.observation_space, 20)
    wanted, _ = model.predict(env.normalize_obs(raw), deterministic=True)
    actions = run(model, tmp_path, raw, vec_normalize=env)
    np.testing.assert_allclose(actions, wanted, rtol=0, atol=1e-5)
    without, _ = model.predict(raw, deterministic=True)
    assert np.abs(without - wanted).max() > 1e-3


@FORMATS
@pytest.mark.parametrize(
    "make_model",
    [
        lambda: SAC("MlpPolicy", "Pendulum-v1", seed=0),
        lambda: PPO("MlpPolicy", "Acrobot-v1", seed=0, n_steps=8, batch_size=8),
        lambda: DQN("MlpPolicy", "Acrobot-v1", seed=0),
    ],
    ids=["squashed", "categorical", "values"],
)
def test_other_algorithms_of_sb3_are_exported_too(run, make_model, tmp_path):
    assert_acts_alike(run, make_model(), tmp_path)


def test_exporting_changes_nothing_in_the_model(tmp_path):
    model = small()
    before = weights(model)
    validates = th.distributions.Distribution._validate_args
    model.policy.set_training_mode(True)
    export_torchscript(model, tmp_path / "policy.pt")
    assert model.policy.training and all(p.requires_grad for p in model.policy.parameters())
    after = weights(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert th.distributions.Distribution._validate_args == validates


def test_a_compiled_policy_is_exported(tmp_path):
    model = small()
    plain = model.predict(draw(model.observation_space, 3), deterministic=True)[0]
    model.policy = th.compile(model.policy, backend="eager")
    actions = run_torchscript(model, tmp_path, draw(model.observation_space, 3))
    np.testing.assert_allclose(actions, plain, rtol=0, atol=1e-5)


def test_wrong_arguments_are_named_with_the_cure(tmp_path):
    model = small()
    with pytest.raises(TypeError, match=r"got PosixPath; load a file with MPPIGPS\.load"):
        export_torchscript(tmp_path / "model.zip", tmp_path / "policy.pt")
    with pytest.raises(TypeError, match="vec_normalize must be a VecNormalize, got DummyVecEnv"):
        export_torchscript(model, tmp_path / "policy.pt", vec_normalize=pendulums())
    with pytest.raises(ValueError, match=r"the wrapper that the model was trained behind"):
        export_torchscript(model, tmp_path / "policy.pt", vec_normalize=VecNormalize(pendulums()))
    gsde = PPO("MlpPolicy", "Pendulum-v1", use_sde=True, n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="use_sde=True is not supported"):
        export_torchscript(gsde, tmp_path / "policy.pt")
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("mppi_agent.gps.export.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'mppi-agent\[onnx\]'"):
        export_onnx(make(gym.make("Pendulum-v1")), tmp_path / "policy.onnx")


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_models_are_exported_right_after_they_have_learnt(algorithm, tmp_path):
    settings = {"n_steps": 8, "batch_size": 8} if algorithm is PPO else {"learning_starts": 2}
    model = algorithm("MlpPolicy", pendulums(1), device="cpu", **settings).learn(8)
    export_torchscript(model, tmp_path / "policy.pt")
    observation = np.array([[1.0, 0.0, 0.5]], dtype=np.float32)
    exported = th.jit.load(str(tmp_path / "policy.pt"))(th.as_tensor(observation))
    expected, _ = model.predict(observation, deterministic=True)
    np.testing.assert_allclose(exported.numpy(), expected, atol=1e-5)
