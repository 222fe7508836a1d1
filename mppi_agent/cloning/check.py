"""Verify the clone law on an env: restore, repeat the actions, compare bit for bit."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning.cloneable import Cloneable, find_cloneable
from mppi_agent.cloning.errors import NotCloneableError
from mppi_agent.cloning.wrappers import layers_of, without_passive_wrappers
from mppi_agent.interfaces import EnvState

__all__ = ["CloneReport", "Mismatch", "check_cloneable", "require_cloneable"]

_NUM_SNAPSHOTS = 12
_REPLAY_STEPS = 15
_MAX_MISMATCHES = 20


@dataclass(frozen=True)
class Mismatch:
    """Hold one difference between a replay and the original.

    Attributes:
        where: "env itself" or "private copy".
        quantity: What differed: observation, reward, terminated, truncated, info[...].
        step: Steps since the restore, from 1.
        amount: Largest absolute difference; NaN where there is no such number.
    """

    where: str
    quantity: str
    step: int
    amount: float

    def __str__(self) -> str:
        return f"{self.quantity} on {self.where}, {self.step} steps after restore: {self.amount:g}"


@dataclass(frozen=True)
class CloneReport:
    """Hold the outcome of `check_cloneable`; `str()` is a readable table.

    Attributes:
        env_name: The env that was checked.
        backend: What captures its state.
        mismatches: Differences found, the first few; empty when exact.
        num_compared: Steps replayed and compared.
        num_terminated: Episode ends among the original steps, by the env itself.
        steps_per_second: Speed of one env in one process.
    """

    env_name: str
    backend: str
    mismatches: tuple[Mismatch, ...]
    num_compared: int
    num_terminated: int
    steps_per_second: float

    @property
    def exact(self) -> bool:
        """Whether every replay agreed bit for bit."""
        return not self.mismatches

    def __str__(self) -> str:
        rows = [
            ("env", self.env_name),
            ("backend", self.backend),
            ("exact", "yes" if self.exact else "NO"),
            ("compared", f"{self.num_compared} steps"),
            ("ends crossed", str(self.num_terminated)),
            ("speed", f"{self.steps_per_second:,.0f} steps/s"),
        ]
        rows += [("mismatch", str(mismatch)) for mismatch in self.mismatches]
        return "\n".join(f"{name:<13} {value}" for name, value in rows)


def check_cloneable(
    env: gym.Env | str, steps: int = 200, seed: int = 0, backend: str | None = None
) -> CloneReport:
    """Act, snapshot, restore and replay; compare every number that the env returns.

    Replays run interleaved on the env itself and on a private copy, across terminations and
    resets. An env that is passed in is left as it was found, random generator and counters
    included; recording wrappers see nothing of the check.

    Args:
        env: An env, wrapped in Cloneable or not, or an id for `gym.make`.
        steps: Steps of the original run, >= 2.
        seed: Of resets and actions.
        backend: Name to report; None: the adapter's.

    Raises:
        ValueError: If `steps` < 2.
        NotCloneableError: If no adapter serves the env.
    """
    if steps < 2:
        raise ValueError(f"steps must be >= 2, got {steps}")
    if isinstance(env, str):
        made = gym.make(env)
        try:
            return check_cloneable(made, steps, seed, backend)
        finally:
            made.close()
    cloneable = _as_cloneable(env)
    with warnings.catch_warnings(), cloneable.left_as_found():
        warnings.simplefilter("ignore")
        with without_passive_wrappers(cloneable):
            return _check(cloneable, steps, seed, backend)


def require_cloneable(cloneable: Cloneable, steps: int = 20) -> CloneReport:
    """Run a short `check_cloneable` and refuse an env that fails it.

    Raises:
        NotCloneableError: If a replay differed; the message holds the report.
    """
    report = check_cloneable(cloneable, steps)
    if not report.exact:
        raise NotCloneableError.for_env(
            cloneable.unwrapped, f"a restored copy does not repeat what the env did.\n{report}"
        )
    return report


@dataclass(frozen=True)
class _Event:
    """One call of the original run: a step, or a reset where `action` is None."""

    action: Any
    outcome: dict[str, Any]
    before: EnvState | None


def _check(cloneable: Cloneable, steps: int, seed: int, backend: str | None) -> CloneReport:
    model = _shared_fields(cloneable, None)
    events, seconds = _original_run(cloneable, steps, seed)
    mismatches = [
        Mismatch("env itself", f"shared model.{name} (see MujocoAdapter(model_fields=...))", 1, nan)
        for name in _shared_fields(cloneable, model)
    ]
    twin = cloneable.private_copy()
    rng = np.random.default_rng(seed)
    starts = [index for index, event in enumerate(events) if event.before is not None]
    # Two replays at a time from different states: shared memory between the two would show.
    pairs = zip(rng.permutation(starts), rng.permutation(starts), strict=True)
    compared = 0
    for own, others in pairs:
        replays = [("env itself", cloneable, own), ("private copy", twin, others)]
        for _, env, start in replays:
            state = events[start].before
            assert state is not None
            env.restore(state)
        for offset in range(_REPLAY_STEPS):
            for where, env, start in replays:
                if start + offset < len(events):
                    event = events[start + offset]
                    outcome = _call(env, event.action)
                    mismatches += _compare(event.outcome, outcome, where, offset + 1)
                    compared += 1
        if len(mismatches) >= _MAX_MISMATCHES:
            break
    spec = cloneable.unwrapped.spec
    return CloneReport(
        env_name=spec.id if spec is not None else type(cloneable.unwrapped).__name__,
        backend=backend or cloneable.adapter.name,
        mismatches=tuple(mismatches[:_MAX_MISMATCHES]),
        num_compared=compared,
        num_terminated=sum(bool(event.outcome.get("terminated")) for event in events),
        steps_per_second=steps / max(seconds, 1e-9),
    )


def _shared_fields(cloneable: Cloneable, before: dict[str, bytes] | None) -> dict[str, bytes]:
    """Return the shared fields that changed; all for None, none where copies share nothing."""
    probe = getattr(cloneable.adapter, "changed_shared_fields", None)
    return {} if probe is None else probe(cloneable.unwrapped, before)


def _original_run(cloneable: Cloneable, steps: int, seed: int) -> tuple[list[_Event], float]:
    rng = np.random.default_rng(seed)
    space = copy.deepcopy(cloneable.action_space)
    space.seed(seed)
    stride = -(-steps // _NUM_SNAPSHOTS)
    cloneable.reset(seed=seed)
    events: list[_Event] = []
    seconds = 0.0
    must_reset = False
    for step in range(steps):
        # An end may never come in a short run: one reset in the middle is certain.
        if must_reset or step == steps // 2:
            state = cloneable.snapshot()
            events.append(_Event(None, _call(cloneable, None), state))
        state_or_none = cloneable.snapshot() if step % stride == 0 else None
        action = _random_action(space, rng)
        start = time.perf_counter()
        outcome = _call(cloneable, action)
        seconds += time.perf_counter() - start
        events.append(_Event(action, outcome, state_or_none))
        must_reset = bool(outcome["terminated"] or outcome["truncated"])
    return events, seconds


def _random_action(space: gym.Space, rng: np.random.Generator) -> Any:
    action = space.sample()
    if isinstance(space, gym.spaces.Box) and rng.random() < 0.3:
        extreme = np.where(rng.random(space.shape) < 0.5, space.low, space.high)
        action = np.where(np.isfinite(extreme), extreme, action).astype(space.dtype)
    return action


def _call(env: Cloneable, action: Any) -> dict[str, Any]:
    if action is None:
        observation, info = env.reset()
        return copy.deepcopy({"observation": observation, "info": dict(info)})
    names = ("observation", "reward", "terminated", "truncated", "info")
    return copy.deepcopy(dict(zip(names, env.step(copy.copy(action)), strict=True)))


def _compare(expected: Any, actual: Any, where: str, step: int, name: str = "") -> list[Mismatch]:
    """Compare numbers, strings and containers of them; other objects are passed over."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        found = []
        for key in {**expected, **actual}:
            label = f"{name}[{key!r}]" if name else str(key)
            if key in expected and key in actual:
                found += _compare(expected[key], actual[key], where, step, label)
            else:
                found.append(Mismatch(where, f"{label} missing", step, nan))
        return found
    try:
        left, right = np.asarray(expected), np.asarray(actual)
    except ValueError:  # ragged
        return []
    if left.dtype.kind not in "biufcSU" and left.dtype == right.dtype:
        return []
    numeric = left.dtype.kind in "biufc" and right.dtype.kind in "biufc"
    if left.shape == right.shape and np.array_equal(left, right, equal_nan=numeric):
        return []
    amount = nan
    if numeric and left.shape == right.shape:
        amount = float(np.max(np.abs(left.astype(np.float64) - right.astype(np.float64))))
    return [Mismatch(where, name, step, amount)]


def _as_cloneable(env: gym.Env) -> Cloneable:
    has_one = any(isinstance(layer, Cloneable) for layer in layers_of(env))
    return find_cloneable(env) if has_one else Cloneable(env)
