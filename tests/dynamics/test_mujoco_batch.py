"""The MuJoCo batch: threads, closed loop, snapshots, divergence and the coarse model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics
from mppi_agent.dynamics.mujoco_batch import coarse_model, quiet_physics
from mppi_agent.interfaces import EnvState


def make(env_id: str = "Hopper-v5", **kwargs: Any) -> Cloneable:
    env = Cloneable(gym.make(env_id, **kwargs))
    env.reset(seed=0)
    return env


def draw(dynamics: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    space = dynamics.action_space
    return np.random.default_rng(seed).uniform(space.low, space.high, (*shape, *space.shape))


def assert_equal(one: Any, other: Any) -> None:
    for name in one.__dataclass_fields__:
        np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)


def wild_state(env: Cloneable) -> Any:
    """Return a state that MuJoCo cannot integrate; `env` is reset afterwards."""
    env.unwrapped.data.qvel[:] = 1e12
    state = env.snapshot()
    env.reset(seed=0)
    return state


@pytest.mark.parametrize("substeps", [None, 2])
def test_results_do_not_depend_on_the_number_of_threads(substeps):
    env = make()
    batches = []
    for num_threads in (1, 2, 5):
        dynamics = MujocoBatchDynamics(env, num_threads=num_threads, substeps=substeps)
        states = dynamics.initial_states(3, np.random.default_rng(0))
        actions = draw(dynamics, (3, 4, 40))
        batches.append(dynamics.rollout(states, actions, keep_observations=True))
    assert_equal(batches[1], batches[0])
    assert_equal(batches[2], batches[0])


def test_stepping_closed_loop_is_the_open_loop_rollout():
    env = make("HalfCheetah-v5")
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    states = dynamics.initial_states(4, np.random.default_rng(0))
    actions = draw(dynamics, (4, 1, 20))
    batch = dynamics.rollout(states, actions, keep_observations=True)
    simulations = dynamics.simulations(4)
    simulations.restore(states)
    for step in range(20):
        outcome = simulations.step(actions[:, 0, step])
        np.testing.assert_array_equal(outcome.observations, batch.observations[:, 0, step])
        np.testing.assert_array_equal(outcome.rewards, batch.rewards[:, 0, step])
        assert not outcome.terminated.any() and not outcome.diverged.any()


def test_rollouts_do_not_depend_on_what_was_simulated_before():
    env = make()
    used, fresh = (MujocoBatchDynamics(env, num_threads=1) for _ in range(2))
    states = fresh.initial_states(2, np.random.default_rng(0))
    used.rollout([wild_state(env), states[1]], draw(used, (2, 3, 30), seed=5))
    actions = draw(fresh, (2, 3, 30))
    assert_equal(used.rollout(states, actions), fresh.rollout(states, actions))


def test_stepping_some_simulations_leaves_the_others_alone():
    env = make()
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    states = dynamics.initial_states(4, np.random.default_rng(0))
    actions = draw(dynamics, (6, 4))
    together, apart = dynamics.simulations(4), dynamics.simulations(4)
    together.restore(states)
    apart.restore(states)
    before = apart.snapshot(np.array([0, 2]))
    chosen = np.array([1, 3])
    for step in range(5):
        whole = together.step(actions[step])
        part = apart.step(actions[step][chosen], chosen)
        assert_equal(part, type(whole)(**{n: v[chosen] for n, v in vars(whole).items()}))
    for then, now in zip(before, apart.snapshot(np.array([0, 2])), strict=True):
        np.testing.assert_array_equal(now.physics, then.physics)
        np.testing.assert_array_equal(now.observation, then.observation)


def test_simulations_are_stepped_in_the_order_of_their_indices():
    dynamics = MujocoBatchDynamics(make(), num_threads=1)
    states = dynamics.initial_states(4, np.random.default_rng(0))
    actions = draw(dynamics, (4,))
    whole, part = dynamics.simulations(4), dynamics.simulations(4)
    whole.restore(states)
    part.restore(states)
    chosen = np.array([3, 0, 1])
    expected = whole.step(actions).observations[chosen]
    np.testing.assert_array_equal(part.step(actions[chosen], chosen).observations, expected)


@pytest.mark.parametrize(
    "env_id",
    ["Hopper-v5", "InvertedDoublePendulum-v5", "Pusher-v5", "Ant-v5", "Humanoid-v5"],
)
def test_a_restored_simulation_repeats_itself_in_another_place(env_id):
    env = make(env_id)
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    simulations = dynamics.simulations(3)
    simulations.restore(dynamics.initial_states(3, np.random.default_rng(0)))
    actions = draw(dynamics, (8, 3))
    for step in range(3):
        outcome = simulations.step(actions[step])
    kept = simulations.snapshot()
    np.testing.assert_array_equal([s.observation for s in kept], outcome.observations)
    expected = [simulations.step(actions[step]) for step in range(3, 8)]
    simulations.restore(kept[::-1])
    for step, before in zip(range(3, 8), expected, strict=True):
        after = simulations.step(actions[step][::-1])
        for name, value in vars(before).items():
            np.testing.assert_array_equal(getattr(after, name), value[::-1], err_msg=name)


@pytest.mark.parametrize("env_id", ["InvertedDoublePendulum-v5", "Ant-v5", "Humanoid-v5"])
def test_a_snapshot_of_a_simulation_can_be_stepped_by_the_env_itself(env_id):
    env = make(env_id)
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    simulations = dynamics.simulations(1)
    simulations.restore(dynamics.initial_states(1, np.random.default_rng(0)))
    actions = draw(dynamics, (4, 1))
    simulations.step(actions[0])
    env.restore(simulations.snapshot()[0])
    for step in range(1, 4):
        outcome = simulations.step(actions[step])
        observation, reward, _, _, _ = env.step(actions[step, 0].astype(np.float32))
        np.testing.assert_array_equal(outcome.observations[0], observation)
        np.testing.assert_allclose(outcome.rewards[0], reward, rtol=1e-13)


def test_snapshots_do_not_change_when_the_simulation_goes_on():
    dynamics = MujocoBatchDynamics(make(), num_threads=1)
    simulations = dynamics.simulations(2)
    simulations.restore(dynamics.initial_states(2, np.random.default_rng(0)))
    state = simulations.snapshot()[0]
    physics, observation = state.physics.copy(), state.observation.copy()
    simulations.step(draw(dynamics, (2,)))
    np.testing.assert_array_equal(state.physics, physics)
    np.testing.assert_array_equal(state.observation, observation)


def test_restoring_what_does_not_fit_is_refused():
    dynamics = MujocoBatchDynamics(make(), num_threads=1)
    simulations = dynamics.simulations(2)
    states = dynamics.initial_states(2, np.random.default_rng(0))
    other = make("Hopper-v5", xml_file="walker2d_v5.xml").snapshot()
    with pytest.raises(ValueError, match=r"state has \d+ numbers, this model's has \d+"):
        simulations.restore([other, other])
    with pytest.raises(ValueError, match="2 simulations need as many states, got 1"):
        simulations.restore(states[:1])
    with pytest.raises(ValueError, match="1 simulations need as many states, got 2"):
        simulations.restore(states, np.array([1]))
    simulations.restore([], np.array([], dtype=int))


def test_states_of_another_env_or_version_are_refused_although_their_size_fits(monkeypatch):
    dynamics = MujocoBatchDynamics(make("Walker2d-v5"), num_threads=1)
    simulations, actions = dynamics.simulations(1), draw(dynamics, (1, 2, 3))
    other = make("HalfCheetah-v5").snapshot()
    own = dynamics.initial_states(1, np.random.default_rng(0))[0]
    assert len(other.physics) == len(own.physics)
    message = r"captured from .*HalfCheetahEnv, this env is .*Walker2dEnv"
    with pytest.raises(ValueError, match=message):
        simulations.restore([other])
    with pytest.raises(ValueError, match=message):
        dynamics.rollout([other], actions)
    with pytest.raises(TypeError, match=r"takes states that Cloneable\.snapshot\(\) returned"):
        dynamics.rollout([EnvState(own.observation, own.physics)], actions)
    monkeypatch.setattr(mujoco, "__version__", "2.3.4")
    with pytest.raises(ValueError, match=r"captured with MuJoCo .*, this is 2\.3\.4"):
        simulations.restore([own])


@pytest.mark.parametrize("shape", [(0, 4, 5), (1, 0, 5), (1, 4, 0)])
def test_no_states_no_samples_and_no_steps_are_refused(shape):
    dynamics = MujocoBatchDynamics(make(), num_threads=1)
    states = dynamics.initial_states(shape[0], np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one state, sample and step"):
        dynamics.rollout(states, draw(dynamics, shape))


@pytest.mark.parametrize("actions", [np.full((1, 2, 3, 3), "left"), np.full((1, 2, 3, 3), 1j)])
def test_actions_that_are_no_numbers_are_refused(actions):
    dynamics = MujocoBatchDynamics(make(), num_threads=1)
    states = dynamics.initial_states(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="convertible to float32, got dtype"):
        dynamics.rollout(states, actions)


def test_threads_that_silence_mujoco_at_once_leave_its_handler_as_it_was():
    before = mujoco.get_mju_user_warning()
    first, second = quiet_physics(), quiet_physics()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert mujoco.get_mju_user_warning() is not None
    second.__exit__(None, None, None)
    assert mujoco.get_mju_user_warning() == before


def test_diverged_simulations_are_marked_masked_and_silent(capfd, monkeypatch, tmp_path):
    env = make("HalfCheetah-v5")
    dynamics = MujocoBatchDynamics(env, num_threads=2)
    wild, state = wild_state(env), env.snapshot()
    actions = draw(dynamics, (3, 2, 5))
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    batch = dynamics.rollout([state, wild, state], actions, keep_observations=True)
    assert capfd.readouterr() == ("", "")
    assert not list(Path(tmp_path).iterdir())  # MuJoCo would write MUJOCO_LOG.TXT
    np.testing.assert_array_equal(batch.diverged, [[False] * 2, [True] * 2, [False] * 2])
    assert (batch.lengths[1] == 1).all() and (batch.rewards[1] == 0).all()
    assert np.isfinite(batch.observations).all()
    assert not batch.terminated.any()
    sound = MujocoBatchDynamics(env, num_threads=1).rollout([state, state], actions[[0, 2]])
    np.testing.assert_array_equal(batch.rewards[[0, 2]], sound.rewards)


def test_a_diverged_simulation_is_sound_again_once_restored():
    env = make("HalfCheetah-v5")
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    wild, state = wild_state(env), env.snapshot()
    simulations = dynamics.simulations(2)
    simulations.restore([wild, state])
    actions = draw(dynamics, (2,))
    np.testing.assert_array_equal(simulations.step(actions).diverged, [True, False])
    simulations.restore([state], np.array([0]))
    assert not simulations.step(actions[:1], np.array([0])).diverged.any()


def test_the_handler_of_mujoco_warnings_is_put_back():
    env = make()
    before = mujoco.get_mju_user_warning()
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    dynamics.rollout([wild_state(env)], draw(dynamics, (1, 2, 3)))
    assert mujoco.get_mju_user_warning() == before


@pytest.mark.parametrize("substeps", [1, 2, 3])
def test_the_coarse_model_keeps_the_control_step(substeps):
    env = make()
    dt_s = env.unwrapped.dt
    coarse = coarse_model(env.unwrapped.model, dt_s, substeps)
    np.testing.assert_allclose(coarse.opt.timestep * substeps, dt_s)
    dynamics = MujocoBatchDynamics(env, num_threads=1, substeps=substeps)
    simulations = dynamics.simulations(1)
    simulations.restore([env.snapshot()])
    start = simulations.snapshot()[0].physics[0]  # time leads the state vector
    for _ in range(5):
        simulations.step(np.zeros((1, 3)))
    np.testing.assert_allclose(simulations.snapshot()[0].physics[0] - start, 5 * dt_s)


def test_the_coarse_model_leaves_the_true_one_untouched():
    env = make()
    model = env.unwrapped.model
    options = (model.opt.timestep, model.opt.integrator)
    true = MujocoBatchDynamics(env, num_threads=1)
    actions = draw(true, (1, 3, 10))
    coarse = MujocoBatchDynamics(env, num_threads=1, substeps=1)
    rough = coarse.rollout([env.snapshot()], actions, keep_observations=True)
    assert (model.opt.timestep, model.opt.integrator) == options
    checked = EnvStepDynamics(env).rollout([env.snapshot()], actions, keep_observations=True)
    driven = true.rollout([env.snapshot()], actions, keep_observations=True)
    np.testing.assert_array_equal(driven.observations, checked.observations)
    error = np.abs(rough.observations[:, :, 0] - checked.observations[:, :, 0]).max()
    assert 0 < error < 1.0  # another integrator, yet the same task


def test_edits_of_the_model_before_construction_count():
    env = make()
    plain = MujocoBatchDynamics(env, num_threads=1)
    actions = draw(plain, (1, 2, 10))
    before = plain.rollout([env.snapshot()], actions)
    env.unwrapped.model.body_mass[:] *= 1.4
    heavy = MujocoBatchDynamics(env, num_threads=1)
    after = heavy.rollout([env.snapshot()], actions)
    checked = EnvStepDynamics(env).rollout([env.snapshot()], actions)
    np.testing.assert_array_equal(after.rewards, checked.rewards)
    assert not np.array_equal(after.rewards, before.rewards)


def test_simulating_leaves_the_env_alone():
    acted, untouched = make(), make()
    dynamics = MujocoBatchDynamics(acted, num_threads=1)
    dynamics.initial_states(3, np.random.default_rng(0))
    dynamics.rollout([acted.snapshot()], draw(dynamics, (1, 4, 10)))
    dynamics.close()
    for _ in range(3):
        action = np.ones(3, dtype=np.float32)
        np.testing.assert_equal(acted.step(action), untouched.step(action))
    np.testing.assert_equal(acted.reset(), untouched.reset())


def test_useless_arguments_are_refused():
    with pytest.raises(ValueError, match="CartPoleEnv has no vectorised task"):
        MujocoBatchDynamics(make("CartPole-v1"))
    with pytest.raises(ValueError, match="substeps must be >= 1 or None, got 0"):
        MujocoBatchDynamics(make(), substeps=0)
    env = make()
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    with pytest.raises(ValueError, match=r"shape \(n, n, n, 3\)"):
        dynamics.rollout([env.snapshot()], np.zeros((1, 2, 5, 2)))
    with pytest.raises(ValueError, match="finite"):
        dynamics.rollout([env.snapshot()], np.full((1, 2, 5, 3), np.nan))
    simulations = dynamics.simulations(2)
    simulations.restore([env.snapshot()] * 2)
    with pytest.raises(ValueError, match="finite"):
        simulations.step(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="2 simulations need as many actions"):
        simulations.step(np.zeros((1, 3)))
