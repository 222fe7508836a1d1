"""Verify the clone law on an env: restore, repeat the actions, compare bit for bit."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, isnan, nan
from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent.cloning.attributes import copy_plain, is_plain
from mppi_agent.cloning.cloneable import Cloneable, find_cloneable
from mppi_agent.cloning.errors import CURES, NotCloneableError
from mppi_agent.cloning.user_protocol import UserProtocolAdapter
from mppi_agent.cloning.wrappers import layers_of, without_passive_wrappers
from mppi_agent.interfaces import EnvState

__all__ = ["CloneReport", "Mismatch", "Verdict", "check_clones", "require_cloneable"]

_NUM_SNAPSHOTS = 12
_REPLAY_STEPS = 15
_MAX_MISMATCHES = 10
_TOLERANCE = 1e-6
_NO_ATTRIBUTES = ("_np_random", "_np_random_seed", "render_mode")  # of the env's own state


class Verdict(StrEnum):
    """Say how well clones repeat what their env does."""

    EXACT = "bit-exact"
    TOLERABLE = "within tolerance"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True)
class Mismatch:
    """Hold one difference between a replay and the original.

    Attributes:
        where: "env itself" or "private copy".
        quantity: What differed: observation, reward, terminated, truncated, info[...].
        step: Steps since the restore, from 1.
        amount: Largest absolute difference; NaN where there is no such number.
        relative: `amount` / (1 + largest absolute value of the original); NaN as above.
    """

    where: str
    quantity: str
    step: int
    amount: float = nan
    relative: float = nan

    def __str__(self) -> str:
        said = f"{self.quantity} on {self.where}, {self.step} steps after restore"
        return said if isnan(self.amount) else f"{said}: {self.amount:.3g}"


@dataclass(frozen=True, kw_only=True)
class CloneReport:
    """Hold the outcome of a check; `str()` is a readable table.

    Attributes:
        env_name: The env that was checked.
        adapter: What captures its state; None where nothing can.
        mismatches: Differences found, the worst few, worst first; empty when exact.
        tolerance: Largest `Mismatch.relative` that counts as tolerable.
        num_compared: Steps replayed and compared.
        num_terminated: Episode ends among the original steps, by the env itself.
        not_restored: Where all replays agreed, attributes that the env's own `set_state` left as
            they were. A counter that ends long episodes is one that no short replay can tell.
        reason: Why the env cannot be cloned, or its clones not be used; None without such a reason.
        backend: What would simulate the env, see `mppi_agent.check_cloneable`; None if not asked.
        steps_per_second: Env steps that the backend simulates per second; None as above.
    """

    env_name: str
    adapter: str | None
    mismatches: tuple[Mismatch, ...] = ()
    tolerance: float = _TOLERANCE
    num_compared: int = 0
    num_terminated: int = 0
    not_restored: tuple[str, ...] = ()
    reason: str | None = None
    backend: str | None = None
    steps_per_second: float | None = None

    @property
    def verdict(self) -> Verdict:
        """How well clones repeat what the env does."""
        if self.adapter is None:
            return Verdict.IMPOSSIBLE
        if not self.mismatches:
            return Verdict.EXACT
        # NaN is not within any tolerance. Nothing that plans or learns reads the infos.
        tolerable = all(
            m.relative <= self.tolerance or m.quantity.startswith("info") for m in self.mismatches
        )
        return Verdict.TOLERABLE if tolerable else Verdict.IMPOSSIBLE

    @property
    def exact(self) -> bool:
        """Whether every replay agreed bit for bit."""
        return self.verdict is Verdict.EXACT

    @property
    def worst(self) -> Mismatch | None:
        """The mismatch of the largest relative amount; None when exact."""
        return self.mismatches[0] if self.mismatches else None

    @property
    def note(self) -> str:
        """Say what `not_restored` means; empty without any."""
        if not self.not_restored:
            return ""
        return (
            f"set_state() does not restore {', '.join(self.not_restored)}: return them from "
            "get_state(), too, if a step reads them before it writes them"
        )

    def __str__(self) -> str:
        rows = [("env", self.env_name), ("cloning", str(self.verdict))]
        if self.adapter is not None:
            rows += [
                ("adapter", self.adapter),
                ("compared", f"{self.num_compared} steps, {self.num_terminated} ends crossed"),
            ]
        if self.worst is not None:
            rows += [("worst", str(self.worst))]
            rows += [("mismatch", str(mismatch)) for mismatch in self.mismatches[1:]]
        if self.not_restored:
            rows += [("note", self.note)]
        if self.backend is not None:
            rows += [("backend", self.backend), ("speed", f"{self.steps_per_second:,.0f} steps/s")]
        if self.reason is not None:
            rows += [("reason", self.reason)]
        if self.verdict is not Verdict.EXACT:
            rows += [("cure", cure) for cure in CURES]
            if self.adapter is not None:
                rows += [("override", "Cloneable(env, allow_inexact=True) plans all the same")]
        return "\n".join(f"{name:<10} {value}" for name, value in rows)


def check_clones(
    env: gym.Env | str, steps: int = 200, seed: int = 0, tolerance: float = _TOLERANCE
) -> CloneReport:
    """Act, snapshot, restore and replay; compare every number that the env returns.

    Replays run interleaved on the env itself and on a private copy, across terminations and
    resets. An env that is passed in is left as it was found, random generator and counters
    included; recording wrappers see nothing of the check.

    Args:
        env: An env, wrapped in Cloneable or not, or an id for `gym.make`.
        steps: Steps of the original run, >= 2.
        seed: Of resets and actions.
        tolerance: Largest relative difference that counts as tolerable, >= 0.

    Returns:
        The report, also for an env that no adapter can serve. `mppi_agent.check_cloneable` adds
        which backend would simulate the env, and how fast.

    Raises:
        ValueError: If `steps` < 2 or `tolerance` < 0, or if the env's own step raises.
    """
    if steps < 2:
        raise ValueError(f"steps must be >= 2, got {steps}")
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")
    if isinstance(env, str):
        made = gym.make(env)
        try:
            return check_clones(made, steps, seed, tolerance)
        finally:
            made.close()
    try:
        cloneable = as_cloneable(env)
        model = _shared_fields(cloneable, None)
        with warnings.catch_warnings(), cloneable.left_as_found():
            warnings.simplefilter("ignore")
            try:
                with without_passive_wrappers(cloneable):
                    return _check(cloneable, steps, seed, tolerance, model)
            finally:
                _restore_shared_fields(cloneable, model)
    except NotCloneableError as error:
        return CloneReport(env_name=_name_of(env), adapter=None, reason=error.reason)


def require_cloneable(cloneable: Cloneable, steps: int = 20) -> CloneReport:
    """Run a short check and refuse an env that fails it.

    An env whose clones repeat it within tolerance, or that was wrapped as
    `Cloneable(env, allow_inexact=True)`, passes with a warning.

    Raises:
        NotCloneableError: If a replay differed; the message holds the report.
    """
    report = check_clones(cloneable, steps)
    if report.not_restored:
        name = type(cloneable.unwrapped).__name__
        warnings.warn(f"clones of {name}: {report.note}", stacklevel=2)
    if report.exact:
        return report
    said = f"a restored copy does not repeat what the env did.\n{report}"
    if report.verdict is Verdict.IMPOSSIBLE and not cloneable.allow_inexact:
        raise NotCloneableError.for_env(cloneable.unwrapped, said)
    name = type(cloneable.unwrapped).__name__
    warnings.warn(f"planning with inexact clones of {name}: {said}", stacklevel=2)
    return report


@dataclass(frozen=True)
class _Event:
    """One call of the original run: a step, or a reset where `action` is None."""

    action: Any
    outcome: dict[str, Any]
    before: EnvState | None
    attributes: dict[str, Any] = field(default_factory=dict)


def _check(
    cloneable: Cloneable, steps: int, seed: int, tolerance: float, model: dict[str, bytes]
) -> CloneReport:
    events = _original_run(cloneable, steps, seed)
    mismatches = [
        Mismatch("env itself", f"shared model.{name} (see MujocoAdapter(model_fields=...))", 1)
        for name in _shared_fields(cloneable, model)
    ]
    twin = cloneable.private_copy()
    rng = np.random.default_rng(seed)
    starts = [index for index, event in enumerate(events) if event.before is not None]
    # Two replays at a time from different states: shared memory between the two would show.
    pairs = zip(rng.permutation(starts), rng.permutation(starts), strict=True)
    compared, not_restored = 0, set[str]()
    for own, others in pairs:
        replays = [
            _Replay("env itself", cloneable, events[own:][:_REPLAY_STEPS]),
            _Replay("private copy", twin, events[others:][:_REPLAY_STEPS]),
        ]
        for replay in replays:
            replay.restore()
        for _ in range(_REPLAY_STEPS):
            for replay in replays:
                mismatches += replay.advance()
        compared += sum(replay.num_compared for replay in replays)
        not_restored |= {name for replay in replays for name in replay.not_restored}
    twin.close()
    mismatches.sort(key=lambda m: -inf if isnan(m.relative) else -m.relative)
    return CloneReport(
        env_name=_name_of(cloneable),
        adapter=cloneable.adapter.name,
        mismatches=tuple(mismatches[:_MAX_MISMATCHES]),
        tolerance=tolerance,
        num_compared=compared,
        num_terminated=sum(bool(event.outcome.get("terminated")) for event in events),
        not_restored=() if mismatches else tuple(sorted(not_restored)),
    )


class _Replay:
    """Repeat part of the original run on one env, a step at a time, and compare."""

    def __init__(self, where: str, env: Cloneable, events: list[_Event]) -> None:
        self.num_compared = 0
        self.not_restored: list[str] = []
        self._where, self._env, self._events = where, env, events

    def restore(self) -> None:
        state = self._events[0].before
        assert state is not None
        self._env.restore(state)
        before, now = self._events[0].attributes, _own_attributes(self._env)
        self.not_restored = [
            name for name in before.keys() & now if _compare(before[name], now[name], "", 0)
        ]

    def advance(self) -> list[Mismatch]:
        """Repeat one call; after a call that raised there is nothing more to compare."""
        if self.num_compared >= len(self._events):
            return []
        event = self._events[self.num_compared]
        self.num_compared += 1
        try:
            outcome = _call(self._env, event.action)
        except Exception as error:
            said = f"{type(error).__name__} from {'reset' if event.action is None else 'step'}"
            found = Mismatch(self._where, f"{said} ({error})", self.num_compared)
            self._events = self._events[: self.num_compared]
            return [found]
        return _compare(event.outcome, outcome, self._where, self.num_compared)


def _shared_fields(cloneable: Cloneable, before: dict[str, bytes] | None) -> dict[str, bytes]:
    """Return the shared fields that changed; all for None, none where copies share nothing."""
    probe = getattr(cloneable.adapter, "changed_shared_fields", None)
    return {} if probe is None else probe(cloneable.unwrapped, before)


def _restore_shared_fields(cloneable: Cloneable, before: dict[str, bytes]) -> None:
    restore = getattr(cloneable.adapter, "restore_shared_fields", None)
    if restore is not None:
        restore(cloneable.unwrapped, before)


def _original_run(cloneable: Cloneable, steps: int, seed: int) -> list[_Event]:
    rng = np.random.default_rng(seed)
    space = copy.deepcopy(cloneable.action_space)
    space.seed(seed)
    stride = -(-steps // max(_NUM_SNAPSHOTS, steps // _REPLAY_STEPS))
    cloneable.reset(seed=seed)
    events: list[_Event] = []
    action = space.sample()
    must_reset = False
    for step in range(steps):
        # An end may never come in a short run: one reset in the middle is certain.
        if must_reset or step == steps // 2:
            state, attributes = cloneable.snapshot(), _own_attributes(cloneable)
            events.append(_Event(None, _call(cloneable, None), state, attributes))
        state_or_none = cloneable.snapshot() if step % stride == 0 else None
        attributes = _own_attributes(cloneable)
        if rng.random() < 0.5:  # held actions reach contacts and limits that noise does not
            action = _random_action(space, rng)
        try:
            outcome = _call(cloneable, action)
        except Exception as error:
            raise ValueError(
                f"{_name_of(cloneable)} failed by itself, before anything was restored: step "
                f"{step + 1} with action {action} raised {type(error).__name__}: {error}"
            ) from error
        events.append(_Event(action, outcome, state_or_none, attributes))
        must_reset = bool(outcome["terminated"] or outcome["truncated"])
    return events


def _own_attributes(cloneable: Cloneable) -> dict[str, Any]:
    """Return numbers and such of an env that says itself what its state is; else nothing."""
    if not isinstance(cloneable.adapter, UserProtocolAdapter):
        return {}
    attributes = vars(cloneable.unwrapped).items()
    return {
        name: copy_plain(value)
        for name, value in attributes
        if name not in _NO_ATTRIBUTES and is_plain(value)
    }


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
    outcome = dict(zip(names, env.step(copy.copy(action)), strict=True))
    if np.ndim(outcome["reward"]) > 0:
        raise TypeError(f"the reward has shape {np.shape(outcome['reward'])}; return a number")
    return copy.deepcopy(outcome)


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
    if not numeric or left.shape != right.shape:
        return [Mismatch(where, name, step)]
    left, right = left.astype(np.float64), right.astype(np.float64)
    amount = float(np.max(np.abs(left - right)))
    scale = float(np.max(np.abs(left)))
    return [Mismatch(where, name, step, amount, amount / (1 + scale))]


def _name_of(env: gym.Env) -> str:
    spec = env.unwrapped.spec
    return spec.id if spec is not None else type(env.unwrapped).__name__


def as_cloneable(env: gym.Env) -> Cloneable:
    """Return the Cloneable in an env, or one around it."""
    has_one = any(isinstance(layer, Cloneable) for layer in layers_of(env))
    return find_cloneable(env) if has_one else Cloneable(env)
