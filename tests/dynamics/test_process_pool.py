"""The process pool against the in-process oracle, and its behaviour when workers die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.env_step import EnvStepDynamics
from mppi_agent.dynamics.process_pool import ProcessPoolDynamics


def make(env_id: str) -> Cloneable:
    env = Cloneable(gym.make(env_id))
    env.reset(seed=0)
    return env


def draw(dynamics: Any, shape: tuple[int, ...]) -> np.ndarray:
    space = dynamics.action_space
    return np.random.default_rng(0).uniform(space.low, space.high, size=(*shape, *space.shape))


def assert_equal(one: Any, other: Any) -> None:
    for name in one.__dataclass_fields__:
        np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Hopper-v5"])
def test_pool_equals_the_oracle_at_any_number_of_workers(env_id):
    env = make(env_id)
    if env_id == "Hopper-v5":
        env.unwrapped.model.body_mass[:] *= 1.3  # a fresh env in the worker would not know
    oracle = EnvStepDynamics(env)
    states = oracle.initial_states(3, np.random.default_rng(0))
    actions = draw(oracle, (3, 5, 30))
    expected = oracle.rollout(states, actions, keep_observations=True)
    reference = oracle.simulations(5)
    for num_workers in (1, 2):
        with ProcessPoolDynamics(env, num_workers) as pool:
            assert_equal(pool.rollout(states, actions, keep_observations=True), expected)
            assert_equal(
                pool.rollout(states[:1], actions[:1, :1, :2]),
                oracle.rollout(states[:1], actions[:1, :1, :2]),
            )
            simulations = pool.simulations(5)
            for sims in (simulations, reference):
                sims.restore([states[i % 3] for i in range(5)])
            for step in range(4):
                indices = None if step % 2 else np.array([4, 1, 2])
                chosen = actions[0, :, step] if indices is None else actions[0, indices, step]
                assert_equal(simulations.step(chosen, indices), reference.step(chosen, indices))
            captured = simulations.snapshot(np.array([3, 0]))
            for sims in (simulations, reference):
                sims.restore(captured, np.array([1, 4]))
            assert_equal(simulations.step(actions[0, :, 5]), reference.step(actions[0, :, 5]))
            simulations.close()


def test_work_of_a_killed_worker_is_done_again():
    env = make("Pendulum-v1")
    with ProcessPoolDynamics(env, 2) as pool:
        actions = draw(pool, (1, 6, 10))
        expected = pool.rollout([env.snapshot()], actions)
        simulations = pool.simulations(4)
        simulations.restore([env.snapshot()] * 4)
        stepped = simulations.step(actions[0, :4, 0])
        os.kill(pool.worker_pids()[1], signal.SIGKILL)
        start = time.monotonic()
        assert_equal(pool.rollout([env.snapshot()], actions), expected)
        with pytest.raises(RuntimeError, match="simulations 2 to 3 are not there"):
            simulations.step(actions[0, :4, 0])
        simulations.restore([env.snapshot()] * 4)
        assert_equal(simulations.step(actions[0, :4, 0]), stepped)
        assert time.monotonic() - start < 20


class Deadly(gym.Env):
    """Ends its process, or raises, in step."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        print("noise on stdout must not disturb the replies")
        if action[0] > 0.5:
            os._exit(3)
        if action[0] < -0.5:
            raise KeyError("broken env")
        return np.zeros(1, dtype=np.float32), 1.0, False, False, {}


def test_an_env_that_crashes_or_raises_gives_an_error_and_the_pool_lives_on():
    env = Cloneable(Deadly())
    env.reset(seed=0)
    state = env.snapshot()
    with ProcessPoolDynamics(env, 2) as pool:
        actions = np.zeros((1, 4, 2, 1))
        with pytest.raises(RuntimeError, match="broken env"):
            pool.rollout([state], actions - 1)
        with pytest.raises(RuntimeError, match="died twice on the same work"):
            pool.rollout([state], actions + 1)
        np.testing.assert_array_equal(pool.rollout([state], actions).rewards, np.ones((1, 4, 2)))


def test_closed_pool_says_so_and_its_processes_are_gone():
    pool = ProcessPoolDynamics(make("Pendulum-v1"), 1)
    pid = pool.worker_pids()[0]
    pool.close()
    pool.close()
    with pytest.raises(RuntimeError, match="closed; make a new one"):
        pool.rollout([], np.zeros((0, 1, 1, 1)))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ValueError, match="num_workers must be >= 1, got 0"):
        ProcessPoolDynamics(make("Pendulum-v1"), 0)


SCRIPT = """
import sys, time
import gymnasium as gym, numpy as np
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.process_pool import ProcessPoolDynamics

class Local(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    x = 0.0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.x += float(action[0])
        return np.full(1, self.x, np.float32), self.x, False, False, {}

env = Cloneable(Local())
env.reset(seed=0)
pool = ProcessPoolDynamics(env, 1)
batch = pool.rollout([env.snapshot()], np.ones((1, 1, 3, 1)))
sims = pool.simulations(2)
sims.restore([env.snapshot()] * 2)
sims.step(np.ones((2, 1)))
sims.restore(sims.snapshot())
print(batch.rewards.ravel().tolist(), pool.worker_pids()[0], flush=True)
if "hang" in sys.argv:
    time.sleep(60)
raise ValueError("on purpose")
"""


def wait_until_gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("end", ["exception", "killed", "interrupted"])
def test_unguarded_script_works_and_leaves_no_orphan(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [sys.executable, str(script), *(["hang"] if end != "exception" else [])]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    said = process.stdout.readline()
    rewards, pid = said.rsplit(" ", 1)
    assert rewards == "[1.0, 2.0, 3.0]"
    if end == "killed":
        process.kill()
    elif end == "interrupted":
        process.send_signal(signal.SIGINT)
    process.wait(20)
    process.stdout.close()
    assert wait_until_gone(int(pid))


def test_workers_do_not_import_torch():
    code = "import sys, mppi_agent.dynamics.process_worker; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        ).returncode
        == 0
    )
