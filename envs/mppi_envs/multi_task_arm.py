"""One arm, many tasks: reach one of four goals, hold still, track a speed.

The task and its target live in MuJoCo's `userdata`, so they are part of the simulator's state:
a clone or a batch of simulations carries its task with it, and one batch may hold many tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mppi_envs.arm_tasks import AT_PLACE, TASKS, tip_place
from mppi_envs.base import Camera, Fields, Task, TaskEnv, render_metadata

__all__ = ["MultiTask", "MultiTaskArmDictEnv", "MultiTaskArmEnv"]

START_SPEED_STD = 0.05  # radians per second
OUT_OF_SIGHT = (0.0, 50.0)  # metres; where the picture's target goes when the task has none


@dataclass(frozen=True)
class MultiTask(Task):
    """Pay by the rule of the task that each simulation carries.

    Attributes:
        is_dict: Whether observations are a dict of their parts.
    """

    is_dict: bool
    after_fields = ("qpos", "qvel", "userdata")

    def observations(self, after: Fields) -> Any:
        """Return state (N, 8), task, one-hot (N, 6), and target (N, 2): joined, or as a dict."""
        angles = after["qpos"]
        parts = {
            "state": np.concatenate(
                (np.cos(angles), np.sin(angles), after["qvel"], tip_place(after)), axis=1
            ),
            "task": np.eye(len(TASKS))[_indices(after)],
            "target": _targets(after).copy(),
        }
        return parts if self.is_dict else np.concatenate(list(parts.values()), axis=1)

    def rewards(self, before: Fields, after: Fields, actions: np.ndarray) -> np.ndarray:
        """Return what the rule of each simulation's task pays, in (0, 1], shape (N,)."""
        return self._by_task(after, [task.rule.rewards for task in TASKS.values()])

    def successes(self, after: Fields) -> np.ndarray:
        """Return True where the task is fulfilled within its tolerance, shape (N,)."""
        return self._by_task(after, [task.rule.successes for task in TASKS.values()])

    def _by_task(
        self, after: Fields, rules: list[Callable[[Fields, np.ndarray], np.ndarray]]
    ) -> np.ndarray:
        of_all_tasks = np.stack([rule(after, _targets(after)) for rule in rules])
        return of_all_tasks[_indices(after), np.arange(of_all_tasks.shape[1])]


class MultiTaskArmEnv(TaskEnv):
    """Move an arm of two links in a vertical plane, against gravity, as the episode's task asks.

    | task | wants | target |
    |---|---|---|
    | reach_0 to reach_3 | the tip within 0.05 m of one of four places | place, x and z, m |
    | hold | the tip within 0.05 m of where the episode began | place, x and z, m |
    | track | the shoulder to turn at 1 to 3 rad/s, either way, within 0.3 rad/s | speed, rad/s; 0 |

    Action, shape (2,):

    | number | meaning | range | unit |
    |---|---|---|---|
    | 0 | torque at the shoulder, as a share of 4 N m | -1 to 1 | - |
    | 1 | torque at the elbow, as a share of 1.5 N m | -1 to 1 | - |

    Observation, shape (16,):

    | number | meaning | unit |
    |---|---|---|
    | 0, 1 | cosine of the shoulder angle (horizontal: 0) and of the elbow angle (straight: 0) | - |
    | 2, 3 | their sines | - |
    | 4, 5 | angular velocities of shoulder and elbow | rad/s |
    | 6, 7 | place of the tip, x and z | m |
    | 8 to 13 | 1 for the episode's task in the order of the first table, else 0 | - |
    | 14, 15 | its target | m or rad/s |

    Reward: smooth. 1 / (1 + (error / tolerance)^2), by the rule of the task.

    Success: the error is within the tolerance. Start: any pose, nearly at rest; a random task, or
    the one that `reset(options={"task": name})` names. End: after 100 steps of 0.04 s.
    """

    asset = "multi_task_arm.xml"
    substeps = 4
    metadata = render_metadata(25)
    camera = Camera(distance=2.0, elevation=-5.0)
    _wanted: str | None = None

    @property
    def task_name(self) -> str:
        """The task of the present episode."""
        return list(TASKS)[int(self.data.userdata[0])]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode of a task.

        Args:
            seed: Of the env's random generator; None carries on with it.
            options: `{"task": name}` chooses the task; without it the task is drawn.

        Raises:
            ValueError: If there is no such option or task.
        """
        self._wanted = _task_in(options or {})
        return super().reset(seed=seed, options=options)

    def _make_task(self) -> MultiTask:
        return MultiTask(is_dict=False)

    def _place(self, rng: np.random.Generator) -> None:
        drawn = rng.choice(list(TASKS))  # drawn in any case, so that a seed means the same start
        name = drawn if self._wanted is None else self._wanted
        self.data.qpos[:] = rng.uniform(-np.pi, np.pi, size=2)
        self.data.qvel[:] = START_SPEED_STD * rng.standard_normal(2)
        start = tip_place({"qpos": self.data.qpos[None]})[0]
        target = TASKS[name].draw_target(rng, start)
        self.data.userdata[:] = list(TASKS).index(name), *target
        is_place = TASKS[name].rule is AT_PLACE
        self.data.mocap_pos[0, ::2] = target if is_place else OUT_OF_SIGHT

    def _get_reset_info(self) -> dict[str, Any]:
        return {"task": self.task_name}


class MultiTaskArmDictEnv(MultiTaskArmEnv):
    """Show the tasks of `MultiTaskArmEnv` as a dict of parts.

    Action, shape (2,): as there.

    Observation: `state`, shape (8,), numbers 0 to 7 there; `task`, shape (6,); and `target`,
    shape (2,).
    """

    def _make_task(self) -> MultiTask:
        return MultiTask(is_dict=True)


def _indices(after: Fields) -> np.ndarray:
    return after["userdata"][:, 0].astype(int)


def _targets(after: Fields) -> np.ndarray:
    return after["userdata"][:, 1:]


def _task_in(options: Mapping[str, Any]) -> str | None:
    unknown = sorted(set(options) - {"task"})
    if unknown:
        raise ValueError(f"options may hold 'task' only, got {', '.join(map(repr, unknown))}")
    name = options.get("task")
    if name is not None and name not in TASKS:
        raise ValueError(f"options['task'] must be one of {', '.join(TASKS)}; got {name!r}")
    return name
