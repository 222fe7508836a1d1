"""The fast ways to evaluate a policy say what SB3's own methods say."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from toy_envs import Target, make_policy

from mppi_agent.gps.inference import mean_actions, values
from mppi_agent.gps.policies import MlpPolicy


def observations(num: int = 300) -> th.Tensor:
    return th.as_tensor(np.random.default_rng(0).normal(size=(num, 2)), dtype=th.float32)


def sb3s(activation: type[th.nn.Module], arch: list[int]) -> ActorCriticPolicy:
    th.manual_seed(0)
    spaces = Target.observation_space, Target.action_space
    return ActorCriticPolicy(*spaces, lambda _: 0.0, net_arch=arch, activation_fn=activation)


@pytest.mark.parametrize("arch", [[], [16], [128, 128]])
@pytest.mark.parametrize("activation", [th.nn.Tanh, th.nn.ReLU])
def test_actions_and_values_are_sb3s_but_for_rounding(activation, arch):
    policy, seen = sb3s(activation, arch), observations()
    before = seen.clone()
    with th.no_grad():
        policy.action_net.weight.normal_()
        actions = policy._predict(seen, deterministic=True)
        expected = policy.predict_values(seen)
    np.testing.assert_allclose(mean_actions(policy, seen), actions, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values(policy, seen), expected, rtol=1e-5, atol=1e-6)
    assert th.equal(seen, before)


def test_ours_is_served_with_its_normalisation():
    policy, seen = make_policy(), observations()
    with th.no_grad():
        policy.features_extractor.update(100.0 + 10.0 * seen)
        policy.action_net.weight.normal_()
        actions = policy._predict(100.0 + 10.0 * seen, deterministic=True)
    assert actions.std() > 0.1
    found = mean_actions(policy, 100.0 + 10.0 * seen)
    np.testing.assert_allclose(found, actions, rtol=1e-5, atol=1e-6)


class Opposite(MlpPolicy):
    """Its methods say something else than its layers."""

    def _predict(self, observation, deterministic=False):
        return -super()._predict(observation, deterministic)

    def predict_values(self, obs):
        return -super().predict_values(obs)


class Squashed(MlpPolicy):
    """Its actions are another function of what its last layer says."""

    def _get_action_dist_from_latent(self, latent_pi):
        mean = th.tanh(3 * self.action_net(latent_pi))
        return self.action_dist.proba_distribution(mean, self.log_std)


def test_a_policy_with_a_distribution_of_its_own_is_asked():
    policy = Squashed(Target.observation_space, Target.action_space, lambda _: 0.0)
    seen = observations()
    with th.no_grad():
        policy.action_net.weight.normal_()
        expected = policy.get_distribution(seen).mode()
    np.testing.assert_array_equal(mean_actions(policy, seen), expected)


def test_a_policy_that_answers_in_its_own_way_is_asked():
    th.manual_seed(0)
    policy = Opposite(Target.observation_space, Target.action_space, lambda _: 0.0)
    seen = observations()
    with th.no_grad():
        actions = policy._predict(seen, deterministic=True)
        assert th.equal(mean_actions(policy, seen), actions) and actions.any()
        assert th.equal(values(policy, seen), policy.predict_values(seen))
