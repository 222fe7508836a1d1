"""Policies: the normaliser's statistics, and weights that PPO takes as they are."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from toy_envs import make_policy, make_target

from mppi_agent.gps.policies import (
    CnnPolicy,
    MlpPolicy,
    MultiInputPolicy,
    RunningNormalizer,
    default_policy_kwargs,
    update_normalizers,
)


def batches(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=3) + rng.uniform(0.1, 5, 3) * rng.standard_normal((num, 3))).astype(
            np.float32
        )
        for num in (1, 200, 7, 64)
    ]


def test_statistics_equal_numpys_over_all_batches_together():
    normalizer = RunningNormalizer(3)
    seen = batches()
    for batch in seen:
        normalizer.update(th.as_tensor(batch))
    whole = np.concatenate(seen).astype(np.float64)
    assert normalizer.count == len(whole)
    np.testing.assert_allclose(normalizer.mean, whole.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(normalizer.var, whole.var(axis=0), rtol=1e-4)
    scaled = normalizer(th.as_tensor(whole, dtype=th.float32)).numpy()
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-3)


def test_statistics_change_in_update_only_and_outputs_are_clipped():
    normalizer = RunningNormalizer(3, clip=5.0)
    normalizer.update(th.as_tensor(batches()[1]))
    before = {name: value.clone() for name, value in normalizer.state_dict().items()}
    extreme = normalizer.train()(th.full((4, 3), 1e6))
    assert (extreme == 5).all()
    for name, value in normalizer.state_dict().items():
        assert th.equal(value, before[name])
    assert set(before) == {"mean", "var", "count"}


def test_statistics_that_are_loaded_or_copied_count():
    source, target = RunningNormalizer(3), RunningNormalizer(3)
    seen = th.as_tensor(batches()[1])
    source.update(seen)
    target.load_state_dict(source.state_dict())
    expected = ((seen - seen.mean(dim=0)) / seen.std(dim=0, unbiased=False)).clamp(-10, 10)
    for normalizer in (source, target, copy.deepcopy(target)):
        np.testing.assert_allclose(normalizer(seen), expected, atol=1e-4)


def test_a_feature_that_never_changes_does_no_harm():
    normalizer = RunningNormalizer(2)
    normalizer.update(th.tensor([[1.0, 7.0], [2.0, 7.0]]))
    assert th.isfinite(normalizer(th.tensor([[1.5, 7.0]]))).all()


def test_both_heads_of_a_policy_see_the_same_statistics():
    policy = make_policy()
    seen = np.random.default_rng(0).normal(3.0, 2.0, (500, 2)).astype(np.float32)
    update_normalizers(policy, seen)
    normalizer = policy.features_extractor.normalizer
    assert normalizer.count == 500  # shared by both heads, updated once
    np.testing.assert_allclose(normalizer.mean, seen.mean(axis=0), rtol=1e-4)
    apart = MlpPolicy(
        policy.observation_space,
        policy.action_space,
        lambda _: 1e-3,
        **default_policy_kwargs(MlpPolicy),
        share_features_extractor=False,
    )
    update_normalizers(apart, seen)
    for extractor in (apart.pi_features_extractor, apart.vf_features_extractor):
        assert extractor.normalizer.count == 500


def test_dict_observations_are_normalised_entry_by_entry_and_images_are_not():
    space = spaces.Dict(
        {
            "place": spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32),
            "kind": spaces.Discrete(3),
            "image": spaces.Box(0, 255, (3, 36, 36), dtype=np.uint8),
        }
    )
    policy = MultiInputPolicy(
        space, make_policy().action_space, lambda _: 1e-3, **default_policy_kwargs(MultiInputPolicy)
    )
    rng = np.random.default_rng(0)
    seen = {
        "place": rng.normal(5, 3, (40, 2)).astype(np.float32),
        "kind": rng.integers(3, size=40),
        "image": rng.integers(256, size=(40, 3, 36, 36)).astype(np.uint8),
    }
    update_normalizers(policy, seen)
    normalizers = policy.features_extractor.normalizers
    assert set(normalizers) == {"place", "kind"}
    np.testing.assert_allclose(normalizers["place"].mean, seen["place"].mean(axis=0), rtol=1e-4)
    shares = np.bincount(seen["kind"], minlength=3) / 40
    np.testing.assert_allclose(normalizers["kind"].mean, shares, rtol=1e-4)
    action, _ = policy.predict(seen, deterministic=True)
    assert action.shape == (40, 1) and np.isfinite(action).all()


def ppo_with(policy: Any, env: gym.Env, alias: str = "MlpPolicy", **kwargs: Any) -> PPO:
    model = PPO(alias, env, n_steps=8, batch_size=8, device="cpu", **kwargs)
    model.policy.load_state_dict(policy.state_dict())
    return model


def test_ppo_takes_the_weights_as_they_are():
    env = make_target()
    arch = {"pi": [16], "vf": [8]}
    policy = make_policy(net_arch=arch)
    update_normalizers(policy, np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    kwargs = default_policy_kwargs(MlpPolicy) | {"net_arch": arch}
    model = ppo_with(policy, env, policy_kwargs=kwargs)
    seen = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)
    ours, _ = policy.predict(seen, deterministic=True)
    theirs, _ = model.predict(seen, deterministic=True)
    np.testing.assert_array_equal(ours, theirs)
    with th.no_grad():
        values = [p.predict_values(th.as_tensor(seen)) for p in (policy, model.policy)]
    np.testing.assert_array_equal(*values)
    model.learn(8)


@pytest.mark.parametrize("action_space", [None, gym.spaces.Discrete(3)], ids=["Box", "Discrete"])
def test_the_noise_free_action_is_the_mode_of_the_distribution(action_space):
    policy = make_policy(action_space=action_space)
    seen = th.as_tensor(np.random.default_rng(0).normal(size=(20, 2)), dtype=th.float32)
    with th.no_grad():
        policy.action_net.weight.normal_()
        mode = policy.get_distribution(seen).mode()
        assert th.equal(policy._predict(seen, deterministic=True), mode)
        drawn = policy._predict(seen, deterministic=False)
    assert not th.equal(drawn, mode)


@pytest.mark.parametrize("kind", [ActorCriticPolicy, MlpPolicy])
def test_sb3s_class_gets_the_defaults_of_ours(kind):
    assert default_policy_kwargs(kind) == default_policy_kwargs(MlpPolicy) != {}


def test_policies_of_ones_own_get_no_defaults():
    class OwnPolicy(ActorCriticPolicy):
        pass

    assert default_policy_kwargs(OwnPolicy) == {}


@pytest.mark.parametrize("kind", [MlpPolicy, CnnPolicy, MultiInputPolicy])
def test_the_aliases_get_an_extractor(kind):
    assert "features_extractor_class" in default_policy_kwargs(kind)
