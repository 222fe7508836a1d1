"""Ant, Humanoid and HumanoidStandup: contact forces, lagging fields, threads, divergence."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.spaces import Box
from rollout_cases import make, many_actions, mid_episode, wild

from mppi_agent.cloning import Cloneable, MujocoAdapter
from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics
from mppi_agent.dynamics.tasks import batch_task_of
from mppi_agent.dynamics.tasks.locomotion import Locomotion

SHOWN = {"exclude_current_positions_from_observation": False}
PARTS = [f"include_{name}_in_observation" for name in ("cinert", "cvel", "qfrc_actuator")]
NO_CONTACT = {"include_cfrc_ext_in_observation": False}
LEGGED = [
    ("Ant-v5", {}),
    ("Ant-v5", {"contact_force_range": (-3.0, 0.5), "contact_cost_weight": 0.02, **SHOWN}),
    ("Ant-v5", {"main_body": "aux_2", "forward_reward_weight": 0.3, "frame_skip": 2}),
    ("Ant-v5", {"healthy_z_range": (0.5, 0.7), "healthy_reward": 2.0, "ctrl_cost_weight": 0.1}),
    ("Ant-v5", {"healthy_z_range": (0.5, 0.7), "terminate_when_unhealthy": False, **NO_CONTACT}),
    ("Ant-v5", {"contact_cost_weight": 0.0, **NO_CONTACT}),
    ("Humanoid-v5", {}),
    ("Humanoid-v5", {"contact_cost_weight": 1e-3, "contact_cost_range": (0.5, 3.0), **SHOWN}),
    ("Humanoid-v5", {"healthy_z_range": (1.3, 1.45), "healthy_reward": 2.0, **NO_CONTACT}),
    ("Humanoid-v5", {"healthy_z_range": (1.39, 2.0), "ctrl_cost_weight": 0.5, "frame_skip": 2}),
    (
        "Humanoid-v5",
        {
            "forward_reward_weight": 3.0,
            "terminate_when_unhealthy": False,
            **dict.fromkeys(PARTS, False),
        },
    ),
    ("Humanoid-v5", {"contact_cost_weight": 0.0, "contact_cost_range": (0.2, 1.0), **NO_CONTACT}),
    ("HumanoidStandup-v5", {}),
    ("HumanoidStandup-v5", {"impact_cost_weight": 1e-3, "impact_cost_range": (0.0, 2.0), **SHOWN}),
    ("HumanoidStandup-v5", {"ctrl_cost_weight": 0.7, "uph_cost_weight": 4.0, **NO_CONTACT}),
]


def crowd(env: Cloneable, num_steps: int) -> tuple[list[Any], np.ndarray]:
    """Return a fresh, a moving and a wild state, and actions from each."""
    env.reset(seed=1)
    states = [env.snapshot(), mid_episode(env, 12, seed=2), wild(env, seed=3)]
    return states, many_actions(env.action_space, len(states), num_steps=num_steps)


@pytest.mark.parametrize(("env_id", "kwargs"), LEGGED)
def test_a_legged_task_is_what_the_env_itself_does(env_id, kwargs):
    env = make(env_id, **kwargs)
    oracle, fast = EnvStepDynamics(env), MujocoBatchDynamics(env, num_threads=1)
    states, actions = crowd(env, num_steps=20)
    checked = oracle.rollout(states, actions, keep_observations=True)
    driven = fast.rollout(states, actions, keep_observations=True)
    # Observations, contact forces among them, are bit-equal; sums of them may round differently.
    for name in ("lengths", "terminated", "diverged", "observations"):
        np.testing.assert_array_equal(getattr(driven, name), getattr(checked, name), err_msg=name)
    np.testing.assert_allclose(driven.rewards, checked.rewards, rtol=1e-13, atol=1e-13)
    can_end = env_id != "HumanoidStandup-v5" and kwargs.get("terminate_when_unhealthy", True)
    assert checked.terminated.any() == can_end


@pytest.mark.parametrize("env_id", ["Ant-v5", "Humanoid-v5", "HumanoidStandup-v5"])
def test_states_are_bit_equal_to_those_of_the_env(env_id):
    env = make(env_id)
    simulations = MujocoBatchDynamics(env, num_threads=1).simulations(1)
    simulations.restore([env.snapshot()])
    rng = np.random.default_rng(0)
    for _ in range(40):
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        env.step(action)
        simulations.step(action[None])
        physics = simulations.snapshot()[0].physics
        np.testing.assert_array_equal(physics, env.snapshot().physics)


def test_contact_forces_do_not_depend_on_the_number_of_threads():
    env = make("Ant-v5")
    states, actions = crowd(env, num_steps=10)
    alone, crowded = (
        MujocoBatchDynamics(env, num_threads=n).rollout(states, actions, keep_observations=True)
        for n in (1, 3)
    )
    np.testing.assert_array_equal(crowded.observations, alone.observations)
    np.testing.assert_array_equal(crowded.rewards, alone.rewards)


def test_stepping_some_simulations_leaves_the_contact_forces_of_others():
    env = make("Ant-v5")
    states, actions = crowd(env, num_steps=8)
    dynamics = MujocoBatchDynamics(env, num_threads=1)
    whole, part = dynamics.simulations(2), dynamics.simulations(3)
    whole.restore(states[:2])
    part.restore([states[2], *states[:2]])
    chosen = np.array([2, 1])  # of `part`, so states 1 and 0
    for step in range(8):
        expected = whole.step(actions[:2, 0, step])
        outcome = part.step(actions[1::-1, 0, step], chosen)
        np.testing.assert_array_equal(outcome.observations[::-1], expected.observations)
        np.testing.assert_array_equal(outcome.rewards[::-1], expected.rewards)


def test_diverged_simulations_with_contacts_are_masked_and_silent(capfd, monkeypatch, tmp_path):
    env = make("Ant-v5")
    monkeypatch.chdir(tmp_path)
    sound = env.snapshot()
    env.unwrapped.data.qvel[:] = 1e12
    states = [env.snapshot(), sound]
    actions = many_actions(env.action_space, 2, num_steps=4)
    batch = MujocoBatchDynamics(env, num_threads=2).rollout(states, actions)
    np.testing.assert_array_equal(batch.diverged, [[True] * 6, [False] * 6])
    assert (batch.rewards[0] == 0).all()
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_a_task_that_counts_no_contacts_does_not_ask_for_them():
    for env_id, weight in (
        ("Ant-v5", "contact_cost_weight"),
        ("Humanoid-v5", "contact_cost_weight"),
    ):
        task = batch_task_of(make(env_id, **{weight: 0.0}, **NO_CONTACT).unwrapped)
        assert "cfrc_ext" not in task.after_fields


MOCAP_XML = """<mujoco><option timestep="0.01" integrator="RK4"/><worldbody>
  <geom type="plane" size="5 5 1"/>
  <body name="hand" mocap="true" pos="0 0 1"><geom size="0.05" contype="0" conaffinity="0"/></body>
  <body name="ball" pos="0 0 0.3"><freejoint/><geom size="0.1" mass="1"/></body>
  <body name="arm" pos="1 0 1"><joint name="hinge" axis="0 1 0"/><geom size="0.1" mass="1"/></body>
</worldbody>
<equality><weld body1="hand" body2="ball"/></equality>
<actuator><motor joint="hinge" ctrlrange="-1 1"/></actuator></mujoco>"""


class BallTask:
    """Reads state, time, counts, lagging positions and, where asked to, contact forces."""

    before_fields = ("xpos",)
    after_fields = ("qpos", "qvel", "xpos", "mocap_pos", "time", "ncon")

    def observations(self, after):
        return np.concatenate((after["qpos"], after["qvel"], after["mocap_pos"][:, 0]), axis=1)

    def rewards(self, before, after, actions):
        moved = after["xpos"][:, 2, 2] - before["xpos"][:, 2, 2]
        return moved - 1e-3 * after["time"] - 1e-2 * after["ncon"]

    def terminated(self, after):
        return after["qpos"][:, 0] > 0.4


class FeelingBallTask(BallTask):
    after_fields = (*BallTask.after_fields, "cfrc_ext")

    def rewards(self, before, after, actions):
        force = np.abs(after["cfrc_ext"][:, 2]).sum(axis=1)
        return super().rewards(before, after, actions) - 1e-4 * force


class OwnBall(MujocoEnv):
    """A third-party env: a ball welded to a mocap body that reset puts anywhere."""

    metadata: ClassVar = {"render_modes": []}

    def __init__(self, path, feels):
        self.feels = feels
        space = Box(-np.inf, np.inf, (18,), np.float64)
        super().__init__(path, frame_skip=3, observation_space=space)

    def batch_task(self):
        return FeelingBallTask() if self.feels else BallTask()

    def reset_model(self):
        self.data.mocap_pos[0] = self.np_random.uniform((0, -1, 0.05), (1, 1, 0.5))
        self.set_state(self.init_qpos, self.init_qvel)
        return self._observe()

    def step(self, action):
        data, before = self.data, self.data.body("ball").xpos[2]
        self.do_simulation(action, self.frame_skip)
        reward = data.body("ball").xpos[2] - before - 1e-3 * data.time - 1e-2 * data.ncon
        if self.feels:
            reward -= 1e-4 * np.abs(data.body("ball").cfrc_ext).sum()
        return self._observe(), reward, bool(data.qpos[0] > 0.4), False, {}

    def _observe(self):
        data = self.data
        return np.concatenate((data.qpos, data.qvel, data.mocap_pos[0]))


@pytest.mark.parametrize("feels", [False, True])
def test_an_env_of_ones_own_with_mocap_welds_and_time_joins(tmp_path, feels):
    path = tmp_path / "ball.xml"
    path.write_text(MOCAP_XML)
    env = Cloneable(OwnBall(str(path), feels))
    env.reset(seed=0)
    oracle, fast = EnvStepDynamics(env), MujocoBatchDynamics(env, num_threads=1)
    states = oracle.initial_states(3, np.random.default_rng(0))
    actions = many_actions(env.action_space, 3, num_steps=25)
    checked = oracle.rollout(states, actions, keep_observations=True)
    driven = fast.rollout(states, actions, keep_observations=True)
    np.testing.assert_array_equal(driven.observations, checked.observations)
    np.testing.assert_array_equal(driven.lengths, checked.lengths)
    np.testing.assert_allclose(driven.rewards, checked.rewards, rtol=1e-12, atol=1e-12)
    assert 0 < checked.terminated.sum() < 18 and np.ptp(checked.rewards) > 0.01
    simulations = fast.simulations(3)
    simulations.restore(states)
    np.testing.assert_array_equal(
        simulations.step(actions[:, 0, 0]).rewards, driven.rewards[:, 0, 0]
    )


class LaggingCheetah(HalfCheetahEnv):
    """Its task reads a field before the step that no snapshot of it holds."""

    def batch_task(self):
        return Locomotion(
            dt_s=self.dt,
            forward_weight=1.0,
            control_weight=0.1,
            skipped_positions=1,
            before_fields=("qpos", "crb"),
        )


def test_a_field_that_snapshots_do_not_hold_cannot_be_read_before_a_step():
    env = Cloneable(LaggingCheetah())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"before_fields of the batch task names crb, which"):
        MujocoBatchDynamics(env).simulations(1)
    env = Cloneable(LaggingCheetah(), MujocoAdapter(fields=("crb",)))
    env.reset(seed=0)
    MujocoBatchDynamics(env).simulations(1).restore([env.snapshot()])
