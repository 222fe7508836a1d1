"""Several models as one Dynamics, against plain loops over them and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from mppi_agent.dynamics import EnsembleDynamics
from mppi_agent.dynamics.ensemble import closed_loop, tail_mean
from mppi_agent.expert import MPPIAgent
from mppi_agent.interfaces import Dynamics
from mppi_agent.planning import MPPI, BoxScaling, MPPIConfig, discounted_returns
from tests.gps.toy_envs import make_target, target_dynamics

STATES = [make_target().snapshot()] * 2


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 3, (*shape, 1))


def members(*targets: float, **kwargs: float) -> list[Dynamics]:
    return [target_dynamics(target=target, **kwargs) for target in targets]


@pytest.mark.parametrize(("tail", "num_worst"), [(1.0, 4), (0.5, 2), (0.3, 2), (1e-9, 1)])
def test_returns_are_the_mean_of_the_worst_members_in_a_plain_loop(tail, num_worst):
    targets = (0.0, 1.0, 2.0, 1.5)
    ensemble = EnsembleDynamics(members(*targets), tail=tail, discount=0.9)
    actions = draw((2, 7, 5))
    batch = ensemble.rollout(STATES, actions)
    of_members = ensemble.returns(STATES, actions)
    np.testing.assert_allclose(tail_mean(of_members, tail), discounted_returns(batch, 0.9))
    for s, k in np.ndindex(2, 7):
        plain = sorted(
            -sum(0.9**h * (actions[s, k, h, 0] - target) ** 2 for h in range(5))
            for target in targets
        )
        found = sum(0.9**h * batch.rewards[s, k, h] for h in range(5))
        assert found == pytest.approx(sum(plain[:num_worst]) / num_worst, rel=1e-6)
    assert batch.sim_steps == 4 * 2 * 7 * 5


def test_an_ensemble_of_one_is_the_member_itself():
    (alone,) = members(1.0, end_at=0.6)
    actions = draw((2, 5, 8))
    one = EnsembleDynamics([alone]).rollout(STATES, actions, keep_observations=True)
    other = alone.rollout(STATES, actions, keep_observations=True)
    for name in one.__dataclass_fields__:
        np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.terminated.any() and not one.terminated.all()


def test_ends_and_divergence_of_some_members():
    early, late = target_dynamics(offset=1.0, end_at=0.05), target_dynamics(offset=1.0)
    broken = target_dynamics(break_at=2.5)
    start = make_target(end_at=9.0).snapshot()
    actions = np.full((1, 2, 4, 1), 1.5)
    actions[0, 1, 2] = 2.9
    worst = EnsembleDynamics([late, early], tail=0.5).rollout([start], actions)
    assert worst.terminated[0, 0] and worst.lengths[0, 0] < 4
    np.testing.assert_array_equal(worst.rewards[0, 0, worst.lengths[0, 0] :], 0.0)
    mean = EnsembleDynamics([late, early]).rollout([start], actions)
    assert mean.lengths[0, 0] == 4 and mean.terminated[0, 0]  # on one of the two
    np.testing.assert_allclose(mean.rewards[0, 0, -1], 0.5)
    both = EnsembleDynamics([late, broken]).rollout([start], actions)
    np.testing.assert_array_equal(both.diverged, [[False, True]])


@pytest.mark.parametrize("tail", [1.0, 1e-9])
def test_closed_loops_run_on_every_member(tail):
    ensemble = EnsembleDynamics(members(0.0, 1.0, 2.0), tail=tail)
    actions = draw((2, 5, 4))
    acted = np.zeros((10, 4, 1))

    def act(step, observations, running):
        acted[running, step] = actions.reshape(10, 4, 1)[running, step]
        return acted[running, step]

    loop = closed_loop(ensemble)
    found = loop(STATES, (5, 4), act, keep_observations=True)
    expected = ensemble.rollout(STATES, actions, keep_observations=True)
    for name in found.__dataclass_fields__:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), err_msg=name)
    loop.close()


class Follower:
    """Pushes on the way that it is going."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return 5 * observation[..., :1], state


@pytest.mark.parametrize("tail", [1.0, 1e-9])
@pytest.mark.parametrize("reacts", ["policy", "reflexes"])
def test_plans_that_react_are_judged_on_every_member(tail, reacts):
    config = MPPIConfig(
        num_samples=16, horizon=4, iterations=1, reflex_std=0.3 * (reacts == "reflexes")
    )
    ensemble = EnsembleDynamics(members(0.0, 2.0), tail=tail, discount=config.discount)
    policy = Follower() if reacts == "policy" else None
    agent = MPPIAgent(make_target(), config, policy=policy, dynamics=ensemble)
    alone = agent.label(STATES[:1], np.full((1, 4, 1), 0.3))
    both = agent.label(STATES, np.full((2, 4, 1), 0.3))
    np.testing.assert_allclose(both.nominal_returns, np.repeat(alone.nominal_returns, 2))
    # What is observed is the same on both members here, and so is what they do.
    actions = agent.scaling.to_env(alone.controls)[:, None]
    expected = tail_mean(ensemble.returns(STATES[:1], actions), tail)
    np.testing.assert_allclose(alone.best_returns, expected[:, 0], rtol=1e-5)


def test_derivatives_are_taken_on_the_nominal_member():
    config = MPPIConfig(num_samples=8, horizon=5, iterations=1, lqr_steps=2, noise_std=0.01)
    found = {}
    for name, models in {"alone": members(1.0), "ensemble": members(1.0, 1.0, 1.0)}.items():
        agent = MPPIAgent(make_target(), config, dynamics=EnsembleDynamics(models), seed=0)
        found[name] = agent.label(STATES[:1]).best_returns
    np.testing.assert_allclose(found["ensemble"], found["alone"], atol=1e-6)
    assert found["alone"] > -1e-3  # the optimum is 0


@pytest.mark.parametrize(("tail", "best"), [(1.0, 2 / 3), (1e-9, 1.0)])
def test_a_planner_finds_the_robust_action(tail, best):
    # Two models want 0, one wants 2: the mean is best served by 2 / 3, the worst case by 1.
    ensemble = EnsembleDynamics(members(0.0, 0.0, 2.0), tail=tail)
    planner = MPPI(
        MPPIConfig(num_samples=64, horizon=3, iterations=8, noise_decay=0.6),
        ensemble,
        BoxScaling(np.array([-1.0]), np.array([3.0])),
    )
    plan = planner.plan(STATES[:1], np.zeros((1, 1, 3, 1)), np.random.default_rng(0))
    np.testing.assert_allclose(1.0 + 2.0 * plan.controls, best, atol=0.05)


def test_simulations_take_the_members_in_turn():
    models = members(0.0, 1.0, 2.0)
    simulations = EnsembleDynamics(models).simulations(8)
    references = [model.simulations(1) for model in models]
    rng = np.random.default_rng(0)
    starts = models[0].initial_states(8, rng)
    simulations.restore(starts)
    for indices in (None, np.array([7, 0, 4]), np.array([5])):
        chosen = np.arange(8) if indices is None else indices
        before = simulations.snapshot(indices)
        actions = draw((len(chosen),), seed=len(chosen))
        step = simulations.step(actions, indices)
        for place, index in enumerate(chosen):
            reference = references[index % 3]
            reference.restore([before[place]])
            expected = reference.step(actions[[place]])
            assert step.rewards[place] == expected.rewards[0]
            np.testing.assert_array_equal(step.observations[place], expected.observations[0])
    assert EnsembleDynamics(models).simulations(2).num == 2
    with pytest.raises(ValueError, match="8 simulations need as many states, got 3"):
        simulations.restore(starts[:3])
    with pytest.raises(ValueError, match="8 simulations need as many actions"):
        simulations.step(np.zeros((2, 1)))


def test_bad_ensembles_are_refused():
    with pytest.raises(ValueError, match="at least one Dynamics"):
        EnsembleDynamics([])
    with pytest.raises(ValueError, match=r"tail must be in \(0, 1\], got 0"):
        EnsembleDynamics(members(1.0), tail=0)
    with pytest.raises(ValueError, match=r"discount must be in \(0, 1\], got 1.1"):
        EnsembleDynamics(members(1.0), discount=1.1)
    with pytest.raises(ValueError, match=r"got max_episode_steps \[10, 20\]"):
        EnsembleDynamics([target_dynamics(limit=10), target_dynamics(limit=20)])
