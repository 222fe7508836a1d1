"""Closed-loop samples and their advantages, against slow loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from toy_envs import Target, make_policy, plain_view, see, target_dynamics

from mppi_agent.gps.sampler import ClosedLoopSampler, SampleBatch


def random_batch(rng: np.random.Generator, num_steps: int = 12, num: int = 7) -> SampleBatch:
    """Return samples with ends, terminations and divergence all over the place."""
    shape = (num_steps, num)
    values = rng.standard_normal(shape)
    valid = rng.random(shape) > 0.1
    terminated = (rng.random(shape) < 0.1) & valid
    ends = terminated | ~valid | (rng.random(shape) < 0.1)
    next_values = np.concatenate([values[1:], rng.standard_normal((1, num))])
    next_values[ends] = rng.standard_normal(ends.sum())  # of the last observation, not the next
    next_values[terminated | ~valid] = 0.0
    return SampleBatch(
        observations=np.zeros((*shape, 1), dtype=np.float32),
        actions=np.zeros((*shape, 1), dtype=np.float32),
        rewards=np.where(valid, rng.standard_normal(shape), 0.0),
        values=values,
        next_values=next_values,
        ends=ends,
        valid=valid,
        episode_returns=[],
        sim_steps=num_steps * num,
    )


def slow_advantages(batch: SampleBatch, discount: float, gae_lambda: float) -> np.ndarray:
    """Add up the discounted errors of each sample until its simulation ends, as defined."""
    num_steps, num = batch.rewards.shape
    advantages = np.zeros((num_steps, num))
    for t, n in np.ndindex(num_steps, num):
        for later in range(t, num_steps):
            if not batch.valid[later, n]:
                break  # a diverged step tells nothing, and nothing is told beyond it
            error = (
                batch.rewards[later, n]
                + discount * batch.next_values[later, n]
                - batch.values[later, n]
            )
            advantages[t, n] += (discount * gae_lambda) ** (later - t) * error
            if batch.ends[later, n]:
                break
    return advantages


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.97, 0.9), (1.0, 1.0), (0.9, 0.0)])
def test_advantages_equal_the_slow_loop(seed, discount, gae_lambda):
    batch = random_batch(np.random.default_rng(seed))
    assert batch.ends.any() and not batch.valid.all()
    np.testing.assert_allclose(
        batch.advantages(discount, gae_lambda),
        slow_advantages(batch, discount, gae_lambda),
        atol=1e-12,
    )


def test_with_lambda_one_an_advantage_is_the_return_less_the_value():
    batch = random_batch(np.random.default_rng(3), num_steps=4, num=1)
    free = np.zeros((4, 1), dtype=bool)
    batch = SampleBatch(**vars(batch) | {"ends": free, "valid": ~free})
    batch.next_values[:3] = batch.values[1:]
    r, v_end, v = batch.rewards[:, 0], batch.next_values[3, 0], batch.values[:, 0]
    expected = r[0] + 0.9 * r[1] + 0.81 * r[2] + 0.729 * r[3] + 0.9**4 * v_end - v[0]
    np.testing.assert_allclose(batch.advantages(0.9, 1.0)[0, 0], expected)


def test_diverged_samples_are_never_scored_whatever_they_hold():
    batch = random_batch(np.random.default_rng(0))
    expected = batch.advantages(0.97, 0.9)
    assert (expected[~batch.valid] == 0).all()
    for garbage in (1e9, np.inf, np.nan):
        fields = {
            name: np.where(batch.valid, getattr(batch, name), garbage)
            for name in ("rewards", "next_values")
        }
        np.testing.assert_array_equal(
            SampleBatch(**vars(batch) | fields).advantages(0.97, 0.9), expected
        )


class Starts:
    """Restarts simulations from drawn states and remembers which."""

    def __init__(self, dynamics: Any, reset_share: float = 1.0) -> None:
        self.pool = dynamics.initial_states(20, np.random.default_rng(0))
        self.reset_share = reset_share
        self.given: list[Any] = []

    def __call__(self, num: int, rng: np.random.Generator):
        picks = rng.integers(len(self.pool), size=num)
        states = [self.pool[pick] for pick in picks]
        self.given.append((states, is_reset := rng.random(num) < self.reset_share))
        return states, is_reset


def make_sampler(num: int = 5, limit: int = 6, seed: int = 0, reset_share: float = 1.0, **kwargs):
    dynamics = target_dynamics(limit, **kwargs)
    starts = Starts(dynamics, reset_share)
    sampler = ClosedLoopSampler(
        dynamics.simulations(num), starts, limit, np.random.default_rng(seed)
    )
    return sampler, starts


def make_noisy_policy(seed: int = 0) -> Any:
    th.manual_seed(seed)
    policy = make_policy()
    with th.no_grad():
        policy.log_std.fill_(0.5)
    return policy


def values_at(policy: Any, x: np.ndarray) -> np.ndarray:
    with th.no_grad():
        return policy.predict_values(th.as_tensor(see(x[:, None]))).numpy().ravel()


def replay(batch: SampleBatch, t: int, n: int) -> tuple[float, float, bool]:
    """Step the toy by hand from sample (t, n): next x, reward, terminated."""
    action = np.clip(batch.actions[t, n, 0], -1.0, 3.0)
    x = 0.9 * batch.observations[t, n, 0] + 0.1 * action
    return x, -((action - 1.5) ** 2), x > 0.15


def test_every_sample_is_what_the_env_does_and_restarts_bootstrap():
    sampler, starts = make_sampler(end_at=0.15)
    policy = make_noisy_policy()
    batch = sampler.sample(policy, plain_view(), 40)
    restarts = iter([state for states, _ in starts.given[1:] for state in states])
    terminated = np.zeros((40, 5), dtype=bool)
    for t in range(40):
        for n in range(5):
            x, reward, terminated[t, n] = replay(batch, t, n)
            np.testing.assert_allclose(batch.rewards[t, n], reward, atol=1e-5)
            if terminated[t, n]:
                assert batch.next_values[t, n] == 0 and batch.ends[t, n]
            else:
                # Also where the time limit ended it: at its own last state, not the new one.
                expected = values_at(policy, np.array([x]))[0]
                np.testing.assert_allclose(batch.next_values[t, n], expected, atol=1e-5)
            if t + 1 < 40:
                start = next(restarts).observation[0] if batch.ends[t, n] else x
                np.testing.assert_allclose(batch.observations[t + 1, n, 0], start, atol=1e-6)
    expected = values_at(policy, batch.observations[..., 0].ravel()).reshape(40, 5)
    np.testing.assert_allclose(batch.values, expected, atol=1e-5)
    assert terminated.any() and (batch.ends & ~terminated).any()
    assert batch.valid.all() and batch.sim_steps == 200


def test_no_simulation_outlives_the_longest_episode():
    sampler, _ = make_sampler(limit=6)
    batch = sampler.sample(make_noisy_policy(), plain_view(), 30)
    for n in range(5):
        ends = np.flatnonzero(batch.ends[:, n])
        assert ends[0] < 6  # the first ones are staggered
        assert (np.diff(ends) == 6).all()
    assert len({int(np.flatnonzero(batch.ends[:, n])[0]) for n in range(5)}) > 1


def test_simulations_carry_on_from_one_round_to_the_next():
    policy = make_noisy_policy()
    once, twice = make_sampler()[0], make_sampler()[0]
    whole = once.sample(policy, plain_view(), 10)
    parts = [twice.sample(policy, plain_view(), 5) for _ in range(2)]
    for name in ("observations", "actions", "rewards", "values", "ends", "valid"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(joined, getattr(whole, name), atol=1e-6, err_msg=name)
    np.testing.assert_allclose(parts[0].next_values[-1], whole.next_values[4], atol=1e-6)
    returns = [r for part in parts for r in part.episode_returns]
    np.testing.assert_allclose(returns, whole.episode_returns)


def test_diverged_simulations_are_restarted_and_marked():
    sampler, _ = make_sampler(num=20, break_at=2.0)
    batch = sampler.sample(make_noisy_policy(), plain_view(), 20)
    drawn = np.clip(batch.actions[..., 0], -1, 3)
    np.testing.assert_array_equal(batch.valid, drawn <= 2.0)
    assert not batch.valid.all()
    assert batch.ends[~batch.valid].all()
    assert (batch.rewards[~batch.valid] == 0).all()
    for name in ("observations", "values", "next_values", "rewards"):
        assert np.isfinite(getattr(batch, name)).all(), name
    assert np.isfinite(batch.advantages(0.99, 0.95)).all()


def test_episode_returns_are_of_whole_episodes_from_resets():
    sampler, _ = make_sampler(num=4, limit=5)
    batch = sampler.sample(make_noisy_policy(), plain_view(), 25)
    expected = []
    for t in range(25):
        for n in range(4):
            begins = np.flatnonzero(batch.ends[:t, n])
            if batch.ends[t, n] and len(begins):
                expected.append(batch.rewards[begins[-1] + 1 : t + 1, n].sum())
    np.testing.assert_allclose(batch.episode_returns, expected, atol=1e-6)
    archived, _ = make_sampler(num=4, limit=5, reset_share=0.0)
    assert archived.sample(make_noisy_policy(), plain_view(), 25).episode_returns == []


def test_actions_are_kept_as_drawn_and_clipped_for_the_env():
    sampler, _ = make_sampler(num=50)
    policy = make_noisy_policy()
    with th.no_grad():
        policy.log_std.fill_(2.0)
    batch = sampler.sample(policy, plain_view(), 4)
    assert np.abs(batch.actions).max() > 3
    clipped = np.clip(batch.actions[..., 0], Target.action_space.low, Target.action_space.high)
    np.testing.assert_allclose(batch.rewards, -((clipped - 1.5) ** 2), rtol=1e-5)


def test_the_generator_decides_all():
    drawn = []
    for seed in (0, 0, 1):
        sampler, _ = make_sampler(seed=seed)
        drawn.append(sampler.sample(make_noisy_policy(), plain_view(), 8).actions)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
