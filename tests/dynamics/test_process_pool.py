"""The process pool against the in-process oracle, and its behaviour when workers die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import process_simulations
from mppi_agent.dynamics.env_step import EnvStepDynamics
from mppi_agent.dynamics.process_pool import ProcessPoolDynamics
from mppi_agent.interfaces import EnvState


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


class Walk(gym.Env):
    """Adds up its actions and noise, shows the process that it runs in, and does odd things."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), dtype=np.float64)
    action_space = gym.spaces.Box(-9, 9, (1,))

    def __init__(self, omen: Path | None = None) -> None:
        self.omen = omen
        self.x = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return self.see(), {}

    def step(self, action):
        odd = int(action[0])
        if odd == 1:
            print("noise on stdout must not disturb the replies")
        if odd == 2:
            raise KeyError("broken env")
        if odd == 3:
            os._exit(3)
        if odd == 4 and not self.omen.exists():
            self.omen.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if odd == 5:
            input("a question that nobody answers")
        if odd == 6:
            return np.array(threading.Lock(), dtype=object), 0.0, False, False, {}
        if odd == 7:  # dies, and leaves a child that holds all its pipes
            child = os.fork()
            if child == 0:
                signal.pause()
            with self.omen.open("a") as file:
                file.write(f"{child}\n")
            os._exit(3)
        self.x += float(action[0]) + self.np_random.normal()
        return self.see(), self.x, False, False, {}

    def see(self):
        return np.array([self.x, os.getpid()])


def walk(omen: Path | None = None) -> Cloneable:
    env = Cloneable(Walk(omen))
    env.reset(seed=0)
    return env


def pids_of(pool: ProcessPoolDynamics, state: EnvState) -> list[int]:
    batch = pool.rollout([state], np.zeros((1, pool.num_workers, 1, 1)))
    return batch.final_observations[0, :, 1].astype(int).tolist()


def test_work_of_a_killed_worker_is_done_again():
    env = walk()
    state = env.snapshot()
    oracle = EnvStepDynamics(env)
    with ProcessPoolDynamics(env, 2) as pool:
        actions = np.random.default_rng(0).uniform(-1, 1, (1, 6, 10, 1))
        expected = oracle.rollout([state], actions)
        simulations, reference = pool.simulations(4), oracle.simulations(4)
        for sims in (simulations, reference):
            sims.restore([state] * 4)
        for step in range(4):
            start = time.monotonic()
            # By turns the death is met by a rollout and by the simulations.
            if step != 1:
                os.kill(pids_of(pool, state)[step % 2], signal.SIGKILL)
            if step != 2:
                np.testing.assert_array_equal(
                    pool.rollout([state], actions).rewards, expected.rewards
                )
            indices = np.array([3, 0, 1]) if step == 1 else None
            rows = actions[0, [0, 1, 2] if step == 1 else [0, 1, 2, 3], step]
            one, other = (sims.step(rows, indices) for sims in (simulations, reference))
            np.testing.assert_array_equal(one.rewards, other.rewards)
            assert time.monotonic() - start < 20
        for one, other in zip(simulations.snapshot(), reference.snapshot(), strict=True):
            assert one.extras.rng == other.extras.rng
            assert one.observation[0] == other.observation[0]


def test_a_long_history_is_cut_by_a_snapshot(monkeypatch):
    monkeypatch.setattr(process_simulations, "_LONGEST_HISTORY", 3)
    env = walk()
    with ProcessPoolDynamics(env, 1) as pool:
        reference = EnvStepDynamics(env).simulations(2)
        simulations = pool.simulations(2)
        for sims in (simulations, reference):
            sims.restore([env.snapshot()] * 2)
        for step in range(8):
            if step == 7:
                os.kill(pids_of(pool, env.snapshot())[0], signal.SIGKILL)
            one, other = (
                sims.step(np.array([[0.5], [step]]) / 9) for sims in (simulations, reference)
            )
            np.testing.assert_array_equal(one.rewards, other.rewards)


@pytest.mark.parametrize("odd", [4, 7])
def test_a_worker_that_dies_at_work_is_replaced_or_reported_within_seconds(tmp_path, odd):
    env = walk(tmp_path / "omen")
    start = time.monotonic()
    with ProcessPoolDynamics(env, 1) as pool:
        actions = np.full((1, 1, 2, 1), float(odd))
        if odd == 4:
            assert np.isfinite(pool.rollout([env.snapshot()], actions).rewards).all()
        else:
            with pytest.raises(RuntimeError, match="died twice on the same work; Walk ends its"):
                pool.rollout([env.snapshot()], actions)
            for child in (tmp_path / "omen").read_text().split():
                os.kill(int(child), signal.SIGKILL)
    assert time.monotonic() - start < 20


def test_an_env_that_fails_gives_an_error_and_the_pool_lives_on():
    env = walk()
    state = env.snapshot()
    oracle = EnvStepDynamics(env)
    with ProcessPoolDynamics(env, 2) as pool:
        simulations, reference = pool.simulations(4), oracle.simulations(4)
        with pytest.raises(RuntimeError, match=r"simulations \[0, 1, 2, 3\] have no state yet"):
            simulations.step(np.zeros((4, 1)))
        for sims in (simulations, reference):
            sims.restore([state] * 4)
            sims.step(np.ones((4, 1)))
        for odd, message in [
            (2, "Walk failed in a rollout worker:\n.*in step.*KeyError: 'broken env'"),
            (3, "died twice on the same work; Walk ends its process"),
            (5, "EOFError"),
            (6, "cannot pickle '_thread.lock' object"),
        ]:
            with pytest.raises(RuntimeError, match=f"(?s){message}"):
                pool.rollout([state], np.full((1, 2, 2, 1), float(odd)))
        # One of the workers steps, the other fails: the step did not happen.
        with pytest.raises(RuntimeError, match="broken env"):
            simulations.step(np.array([[1.0], [1.0], [1.0], [2.0]]))
        with pytest.raises(RuntimeError, match="takes states that Cloneable"):
            simulations.restore([EnvState(state.observation, np.zeros(3))] * 4)
        good = np.full((4, 1), 0.5)
        np.testing.assert_array_equal(simulations.step(good).rewards, reference.step(good).rewards)


def test_messages_grow_and_shrink():
    env = walk()
    with ProcessPoolDynamics(env, 1) as pool:
        oracle = EnvStepDynamics(env)
        for num in (3, 800, 1, 2500, 2):
            actions = np.random.default_rng(num).uniform(-1, 1, (1, num, 2, 1))
            one, other = (
                dynamics.rollout([env.snapshot()], actions, keep_observations=True)
                for dynamics in (pool, oracle)
            )
            np.testing.assert_array_equal(one.rewards, other.rewards)
            np.testing.assert_array_equal(one.observations[..., 0], other.observations[..., 0])


def test_closed_pool_says_so_and_its_processes_are_gone():
    env = walk()
    pool = ProcessPoolDynamics(env, 1)
    pid = pids_of(pool, env.snapshot())[0]
    simulations = pool.simulations(2)
    simulations.restore([env.snapshot()] * 2)
    pool.close()
    pool.close()
    simulations.close()
    with pytest.raises(RuntimeError, match="closed; make a new one"):
        pool.rollout([], np.zeros((0, 1, 1, 1)))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ValueError, match="num_workers must be >= 1, got 0"):
        ProcessPoolDynamics(env, 0)


SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have it ignored
import gymnasium as gym, numpy as np
from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics.process_pool import ProcessPoolDynamics

class Local(gym.Env):
    observation_space = gym.spaces.Box(-9, 9, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    x = 0.0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1), {}
    def step(self, action):
        if action[0] < 0:
            time.sleep(60)
        self.x += float(action[0])
        return np.array([os.getpid()]), self.x, False, False, {}

env = Cloneable(Local())
env.reset(seed=0)
pool = ProcessPoolDynamics(env, 1)
batch = pool.rollout([env.snapshot()], np.ones((1, 1, 3, 1)))
print(batch.rewards.ravel().tolist(), int(batch.final_observations[0, 0, 0]), flush=True)
if "busy" in sys.argv:
    pool.rollout([env.snapshot()], -np.ones((1, 1, 3, 1)))
if "idle" in sys.argv:
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


@pytest.mark.parametrize(
    ("doing", "end"),
    [
        ("failing", None),
        ("busy", signal.SIGINT),
        ("busy", signal.SIGTERM),
        pytest.param("busy", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("idle", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("idle", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_unguarded_script_works_and_leaves_no_orphan(tmp_path, doing, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, str(script), doing],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    said = process.stdout.readline()
    rewards, pid = said.rsplit(" ", 1)
    assert rewards == "[1.0, 2.0, 3.0]"
    if end is not None:
        process.send_signal(end)
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
