"""Check how exactly and how fast each family of envs is cloned; append one CSV line per env.

    python benchmarks/cloning.py                               # what needs no further package
    python benchmarks/cloning.py --families robotics atari box2d

`compared` steps were replayed after restores, across resets. `restore_us` is snapshot plus restore
in the middle of an episode, the least of 30 repeats, since other processes may share the core.
"""

from __future__ import annotations

import argparse
import time
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import mujoco
from records import append, commit

from mppi_agent import Cloneable
from mppi_agent.cloning import check_clones

MUJOCO = (
    "HalfCheetah Hopper Walker2d Swimmer Reacher InvertedPendulum InvertedDoublePendulum "
    "Ant Humanoid HumanoidStandup"
).split()
FAMILIES = {
    "classic": "Pendulum-v1 MountainCarContinuous-v0 MountainCar-v0 CartPole-v1 Acrobot-v1".split(),
    "toy_text": "Blackjack-v1 CliffWalking-v1 FrozenLake-v1 Taxi-v4".split(),
    "mujoco": [*(f"{n}-v5" for n in MUJOCO), "Pusher-v5", *(f"{n}-v4" for n in MUJOCO)],
    "robotics": (
        "FetchReach-v4 FetchPush-v4 FetchSlide-v4 FetchPickAndPlace-v4 HandReach-v3 "
        "HandManipulateBlock_ContinuousTouchSensors-v1 HandManipulateEgg-v1 HandManipulatePen-v1 "
        "AdroitHandDoor-v1 AdroitHandHammer-v1 AdroitHandPen-v1 AdroitHandRelocate-v1 "
        "PointMaze_UMaze-v3 AntMaze_UMaze-v5 FrankaKitchen-v1"
    ).split(),
    "dm_control": [
        f"dm_control/{name}-v0"
        for name in "cheetah-run reacher-easy hopper-hop finger-turn_hard humanoid-walk".split()
    ],
    "atari": "ALE/Pong-v5 ALE/Breakout-v5 Pong-v4".split(),
    "box2d": "LunarLander-v3 LunarLanderContinuous-v3 BipedalWalker-v3 CarRacing-v3".split(),
}
PACKAGES = {"robotics": "gymnasium_robotics", "dm_control": "shimmy", "atari": "ale_py"}
SETTINGS: dict[str, dict[str, Any]] = {
    "ALE/Pong-v5": {"repeat_action_probability": 0.0},
    "ALE/Breakout-v5": {"repeat_action_probability": 0.0},
}
FIELDS = "env adapter verdict compared ends restore_us worst commit versions".split()
EPISODE_STEPS = 50


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES)[:3])
    parser.add_argument("--steps", type=int, default=1000, help="of the original run")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for family in args.families:
        if family in PACKAGES:
            gym.register_envs(import_module(PACKAGES[family]))
        if family == "robotics":
            mend_joint_types()
        for env_id in FAMILIES[family]:
            row = measure(env_id, args.steps)
            append(args.out, row, FIELDS)
            print({name: row[name] for name in FIELDS[:6]}, flush=True)


def mend_joint_types() -> None:
    """Make gymnasium-robotics 1.4.2 work where MuJoCo's joint types do not equal numpy integers."""
    kinds = {name: int(value) for name, value in mujoco.mjtJoint.__members__.items()}
    mended = SimpleNamespace(**{**vars(mujoco), "mjtJoint": SimpleNamespace(**kinds)})
    import_module("gymnasium_robotics.utils.mujoco_utils").mujoco = mended


def measure(env_id: str, steps: int) -> dict[str, object]:
    """Check one env and time it."""
    env = Cloneable(gym.make(env_id, **SETTINGS.get(env_id, {})))
    report = check_clones(env, steps=steps)
    row = {
        "env": env_id,
        "adapter": report.adapter,
        "verdict": str(report.verdict),
        "compared": report.num_compared,
        "ends": report.num_terminated,
        "restore_us": round(1e6 * seconds_per_restore(env), 1),
        "worst": "" if report.worst is None else str(report.worst),
        "commit": commit(),
        "versions": " ".join(f"{n}={version(n)}" for n in ("gymnasium", "mujoco", "numpy")),
    }
    env.close()
    return row


def seconds_per_restore(env: Cloneable, repeats: int = 30) -> float:
    """Time snapshot plus restore after some steps of an episode."""
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(EPISODE_STEPS):
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    start = time.perf_counter()
    env.restore(env.snapshot())
    number = max(1, round(0.005 / (time.perf_counter() - start)))
    least = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            env.restore(env.snapshot())
        least = min(least, (time.perf_counter() - start) / number)
    return least


if __name__ == "__main__":
    main()
