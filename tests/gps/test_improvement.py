"""The policy update: it raises what pays, keeps to its trust region and gives units back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from toy_envs import make_policy

from mppi_agent.gps.action_heads import GaussianHead
from mppi_agent.gps.improvement import (
    LEAST_EXPLAINED,
    TrustRegionUpdate,
    UpdateConfig,
    clipped_loss,
    path_integral_loss,
)
from mppi_agent.gps.policies import normalised_units
from mppi_agent.gps.sampler import SampleBatch

TARGET = 1.5
OBSERVATIONS = np.array([[0.0, 1.0]], dtype=np.float32)


def bandit(policy: Any, rng: np.random.Generator, num: int = 256, valid: Any = None) -> SampleBatch:
    """Draw one-step episodes from the policy, paid for actions near the target."""
    observations = np.repeat(OBSERVATIONS, num, axis=0)
    mean, std, values = look(policy)
    actions = (mean + std * rng.standard_normal((num, 1))).astype(np.float32)
    valid = np.ones(num, dtype=bool) if valid is None else valid
    return SampleBatch(
        observations=observations[None],
        actions=actions[None],
        rewards=-((np.clip(actions[:, 0], -1, 3) - TARGET) ** 2)[None],
        values=np.full((1, num), values),
        next_values=np.zeros((1, num)),
        ends=np.ones((1, num), dtype=bool),
        valid=valid[None],
        episode_returns=[],
        sim_steps=num,
    )


def look(policy: Any, observations: np.ndarray = OBSERVATIONS) -> tuple[float, float, float]:
    """Return the policy's mean, std and value, in env and reward units."""
    tensor = th.as_tensor(observations)
    with th.no_grad():
        distribution = policy.get_distribution(tensor).distribution
        value = policy.predict_values(tensor)
    return distribution.mean[0, 0].item(), distribution.stddev[0, 0].item(), value[0, 0].item()


def make(**settings: Any) -> tuple[Any, TrustRegionUpdate]:
    th.manual_seed(0)
    loss = settings.pop("policy_loss", None)
    config = UpdateConfig(**{"batch_size": 64, "n_epochs": 4, "min_std": 0.05} | settings)
    return make_policy(), TrustRegionUpdate(np.random.default_rng(0), config, loss)


def run(policy: Any, update: TrustRegionUpdate, rounds: int, learning_rate: float = 1e-2):
    rng = np.random.default_rng(1)
    figures = []
    for _ in range(rounds):
        samples = bandit(policy, rng)
        advantages = samples.advantages(0.99, 0.95)
        figures.append(update.update(policy, samples, advantages, learning_rate=learning_rate))
    return figures


def weights(policy: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in policy.state_dict().items()}


def test_the_mean_moves_to_the_rewarded_action_and_the_value_to_its_return():
    policy, update = make(target_kl=0.1)
    before = look(policy)
    assert abs(before[0] - TARGET) > 1
    figures = run(policy, update, 40)
    mean, std, value = look(policy)
    assert abs(mean - TARGET) < 0.25
    assert std < before[1]
    # With noise of that std around the target, the expected return is minus its square.
    assert abs(value - -(std**2)) < 0.3
    assert figures[-1]["value_loss"] < figures[0]["value_loss"]


def test_the_std_does_not_fall_below_its_floor():
    policy, update = make(target_kl=0.5, min_std=0.3)
    run(policy, update, 40, learning_rate=3e-2)
    half_range = 2.0
    assert look(policy)[1] >= 0.3 * half_range - 1e-6


def test_the_step_size_follows_the_measured_kl_divergence():
    policy, update = make(target_kl=1e-5)
    scales = [f["step_scale"] for f in run(policy, update, 5, learning_rate=3e-2)]
    assert all(later < earlier for earlier, later in pairwise(scales))
    assert scales[-1] < 0.3
    policy, update = make(target_kl=10.0)
    scales = [f["step_scale"] for f in run(policy, update, 3, learning_rate=1e-5)]
    assert scales[0] > 1 and scales[-1] > scales[0]


@pytest.mark.parametrize("target_kl", [0.1, 0.01])
def test_the_kl_divergence_settles_around_its_target(target_kl):
    policy, update = make(target_kl=target_kl)
    figures = run(policy, update, 30)
    settled = np.median([figure["kl"] for figure in figures[10:]])
    assert target_kl / 5 < settled < 5 * target_kl


def test_diverged_samples_change_nothing_whatever_they_hold():
    results = []
    for garbage in (0.0, 77.0, np.nan):
        policy, update = make()
        valid = np.arange(256) % 4 != 0
        samples = bandit(policy, np.random.default_rng(1), valid=valid)
        for name in ("observations", "actions", "rewards"):
            getattr(samples, name)[0, ~valid] = garbage
        advantages = samples.advantages(0.99, 0.95)
        figures = update.update(policy, samples, advantages, learning_rate=1e-2)
        assert np.isfinite(list(figures.values())).all()
        results.append(weights(policy))
    for other in results[1:]:
        np.testing.assert_equal(other, results[0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_round_in_which_all_samples_diverged_leaves_the_policy_sound():
    policy, update = make()
    samples = bandit(policy, np.random.default_rng(1), valid=np.zeros(256, dtype=bool))
    update.update(policy, samples, samples.advantages(0.99, 0.95), learning_rate=1e-2)
    assert all(np.isfinite(value).all() for value in weights(policy).values())


def test_equal_rewards_teach_the_actions_nothing():
    policy, update = make(vf_coef=0.5)
    samples = bandit(policy, np.random.default_rng(1))
    samples.rewards[:] = 3.0
    before = look(policy)
    update.update(policy, samples, samples.advantages(0.99, 0.95), learning_rate=1e-2)
    after = look(policy)
    np.testing.assert_allclose(after[:2], before[:2], atol=1e-3)


def test_the_update_does_not_depend_on_the_reward_scale():
    results = []
    for scale in (1.0, 1000.0):
        policy, update = make()
        with th.no_grad():
            policy.value_net.weight.zero_()
        samples = bandit(policy, np.random.default_rng(1))
        samples.rewards[:] *= scale
        update.update(policy, samples, samples.advantages(1.0, 1.0), learning_rate=1e-2)
        results.append(look(policy))
    np.testing.assert_allclose(results[0][:2], results[1][:2], rtol=1e-3)
    np.testing.assert_allclose(1000 * results[0][2], results[1][2], rtol=1e-2)


def test_same_generator_same_weights():
    results = []
    for _ in range(2):
        policy, update = make()
        run(policy, update, 3)
        results.append(weights(policy))
    np.testing.assert_equal(*results)


def test_the_policy_is_in_evaluation_mode_afterwards():
    policy, update = make()
    run(policy, update, 1)
    assert not policy.training


def test_the_clipped_loss_stops_paying_beyond_its_range():
    log_ratio = th.tensor([0.5, -0.5, 0.05], requires_grad=True)
    advantages = th.tensor([1.0, -1.0, 2.0])
    loss = clipped_loss(0.2)(log_ratio, advantages)
    loss.backward()
    assert log_ratio.grad is not None
    np.testing.assert_allclose(log_ratio.grad[:2], 0)
    np.testing.assert_allclose(log_ratio.grad[2], -2 * np.exp(0.05) / 3, rtol=1e-6)
    expected = -(1.2 * 1.0 + 0.8 * -1.0 + np.exp(0.05) * 2.0) / 3
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-6)


@pytest.mark.parametrize("ess_fraction", [0.1, 0.5])
def test_path_integral_weights_have_the_wanted_effective_sample_size(ess_fraction):
    num = 200
    advantages = th.as_tensor(np.random.default_rng(0).standard_normal(num), dtype=th.float32)
    log_ratio = th.zeros(num, requires_grad=True)
    path_integral_loss(ess_fraction)(log_ratio, advantages).backward()
    assert log_ratio.grad is not None
    found = -log_ratio.grad.numpy()
    assert (found >= 0).all()  # nothing is pushed away
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(1 / np.square(found).sum(), ess_fraction * num, rtol=0.01)
    # exp(A / temperature): the log of the weights is a straight line in the advantages.
    slope, *_ = np.polyfit(advantages.numpy(), np.log(found), 1)
    np.testing.assert_allclose(
        np.log(found[0] / found[1]), slope * (advantages[0] - advantages[1]).item(), rtol=1e-3
    )


def test_path_integral_weights_teach_too():
    policy, update = make(target_kl=0.1, policy_loss=path_integral_loss(0.3))
    before = look(policy)[0]
    run(policy, update, 30)
    assert abs(look(policy)[0] - TARGET) < 0.5 * abs(before - TARGET)


def scaled_policy() -> Any:
    space = spaces.Box(np.float32([-1.0, 0.0]), np.float32([3.0, 0.2]))
    th.manual_seed(3)
    policy = make_policy(action_space=space)
    with th.no_grad():
        policy.action_net.bias.copy_(th.tensor([0.5, 0.1]))
        policy.value_net.bias.fill_(40.0)
    return policy


def outputs(policy: Any) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    seen = th.as_tensor(np.random.default_rng(0).standard_normal((8, 2)), dtype=th.float32)
    with th.no_grad():
        distribution = policy.get_distribution(seen).distribution
        return distribution.mean, distribution.stddev, policy.predict_values(seen)


def test_normalised_units_are_standardised_returns_and_half_ranges():
    policy = scaled_policy()
    head = GaussianHead(policy.action_space)
    half_range, centre = head.half_range, head.centre
    np.testing.assert_allclose(half_range, [2.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(centre, [1.0, 0.1], rtol=1e-6)
    mean, std, values = outputs(policy)
    with normalised_units(policy, 30.0, 20.0):
        inner_mean, inner_std, inner_values = outputs(policy)
    np.testing.assert_allclose(inner_mean, (mean - centre) / half_range, atol=1e-5)
    np.testing.assert_allclose(inner_std, std / half_range, rtol=1e-5)
    np.testing.assert_allclose(inner_values, (values - 30) / 20, atol=1e-5)
    actions = head.as_targets(policy, np.array([[3.0, 0.0], [1.0, 0.1]], dtype=np.float32))
    np.testing.assert_allclose(actions, [[1, -1], [0, 0]], atol=1e-6)


def test_normalised_units_leave_the_outputs_unchanged_even_after_an_error():
    policy = scaled_policy()
    before = outputs(policy)
    with normalised_units(policy, 30.0, 20.0):
        pass
    with pytest.raises(KeyboardInterrupt), normalised_units(policy, -1e4, 500.0):
        raise KeyboardInterrupt
    for found, expected in zip(outputs(policy), before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    with normalised_units(policy, 30.0, 20.0):
        pass
    np.testing.assert_allclose(policy.value_net.bias.item(), 40.0, rtol=1e-4)


def test_what_is_learnt_inside_normalised_units_is_seen_outside():
    policy = scaled_policy()
    mean, _, values = outputs(policy)
    with normalised_units(policy, 30.0, 20.0), th.no_grad():
        policy.value_net.bias.add_(1.0)
        policy.action_net.bias.add_(0.5)
    after_mean, _, after_values = outputs(policy)
    np.testing.assert_allclose(after_values - values, np.full((8, 1), 20.0), rtol=1e-4)
    np.testing.assert_allclose(after_mean - mean, np.tile([1.0, 0.05], (8, 1)), rtol=1e-3)


def paid_by_place(policy: Any, rng: np.random.Generator, num: int = 256) -> SampleBatch:
    """Draw one-step episodes that are paid for where they are, not for what is done."""
    places = rng.uniform(-1, 1, num).astype(np.float32)
    seen = np.stack([places, np.ones_like(places)], axis=1)
    with th.no_grad():
        values = policy.predict_values(th.as_tensor(seen)).numpy().ravel()
    return SampleBatch(
        observations=seen[None],
        actions=rng.normal(1.0, 1.0, (1, num, 1)).astype(np.float32),
        rewards=(1000.0 * places)[None].astype(np.float64),
        values=values[None].astype(np.float64),
        next_values=np.zeros((1, num)),
        ends=np.ones((1, num), dtype=bool),
        valid=np.ones((1, num), dtype=bool),
        episode_returns=[],
        sim_steps=num,
    )


def acquaint(policy: Any, update: TrustRegionUpdate) -> int:
    rng = np.random.default_rng(1)
    return update.acquaint_values(
        policy,
        lambda p: paid_by_place(p, rng),
        discount=0.99,
        gae_lambda=0.95,
        learning_rate=1e-2,
    )


def test_values_get_to_know_a_policy_that_stays_as_it_is():
    policy, update = make()
    before = weights(policy)
    sim_steps = acquaint(policy, update)
    assert 256 < sim_steps < 20 * 256  # not at once, and not for ever
    assert update.explained_variance >= LEAST_EXPLAINED
    fresh = paid_by_place(policy, np.random.default_rng(2))
    residual = fresh.rewards - fresh.values
    assert residual.var() < (1 - LEAST_EXPLAINED) * fresh.rewards.var()
    after = weights(policy)
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    # Changing units and back may cost the action head its last bit.
    for name in {name for name in changed if "value" not in name}:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, err_msg=name)
    assert any("value" in name for name in changed)


def test_values_that_share_weights_with_the_policy_do_without():
    policy, update = make()
    policy.mlp_extractor.policy_net.append(th.nn.Dropout(0.1))
    assert acquaint(policy, update) == 0


def test_everything_that_is_learnt_from_lies_on_the_device_of_the_policy(monkeypatch):
    # Tensors on "meta" have shapes and no numbers, and no others may join them: any other device.
    monkeypatch.setattr(th.Tensor, "item", lambda tensor: 0.0)
    policy, update = make()
    samples = bandit(policy, np.random.default_rng(0))
    policy.to("meta")
    for values_only in (False, True):
        advantages = samples.advantages(0.99, 0.95)
        update.update(policy, samples, advantages, learning_rate=1e-2, values_only=values_only)
    assert {value.device.type for value in policy.state_dict().values()} == {"meta"}
