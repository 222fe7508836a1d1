"""Adapter of the last hope: restore by resetting with the same seed and repeating the actions.

Some simulators keep their state where Python cannot reach it, Box2D its contacts and impulses. A
new env with the same random generator that gets the same calls ends in the same state.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any, NamedTuple

import numpy as np
from gymnasium.utils import EzPickle

from mppi_agent.cloning.base import apply_generator, capture_generator
from mppi_agent.cloning.errors import NotCloneableError

__all__ = ["ReplayAdapter", "make_anew"]


class ReplayAdapter:
    """Clone any env whose reset generator and actions decide all that it does.

    It is never chosen by itself, for the actions are done again and again, which an env that acts
    on the outside world must not suffer: `Cloneable(env, ReplayAdapter())`. Copies are made by the
    env's constructor: later edits of its attributes are lost, and the check at start-up finds that.
    """

    name = "replay"

    def __init__(self) -> None:
        """Start with the warning about the cost still to be given."""
        self._has_warned = False

    def matches(self, env: Any) -> bool:
        """Match nothing: see above."""
        return False

    def before_reset(self, env: Any) -> None:
        """Do what makes an episode independent of those before it; nothing, usually."""

    def attach(self, env: Any) -> None:
        """Record from now on what the env is told to do; warn of the cost, once."""
        if not isinstance(_recorder_of(env), _Recorder):
            recorder = _Recorder(env, self)
            env.__dict__.update(reset=recorder.reset, step=recorder.step)
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{type(env).__name__} has no state to copy: each restore resets it and repeats "
                "all actions of the episode so far. Planning with K samples at step t of an "
                "episode costs K * t env steps on top, so plan early in episodes, keep K small, "
                "or bring a simulator whose state can be copied",
                stacklevel=3,
            )

    def copy_env(self, env: Any) -> Any:
        """Return a new env from the constructor of `env`."""
        function, arguments = self.recipe(env)
        return function(*arguments)

    def recipe(self, env: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return function and arguments that make such an env in another process."""
        return make_anew, constructor_of(env)

    def capture(self, env: Any) -> tuple[np.ndarray, Any]:
        """Return an empty vector and the history since the last reset."""
        return np.empty(0), _recorder_of(env).history()

    def apply(self, env: Any, physics: np.ndarray, extras: Any) -> None:
        """Live through a history again."""
        _recorder_of(env).repeat(extras)


class _Redrawn(NamedTuple):
    """Among the actions of a history: the env had another generator from here on."""

    generator: Any


class _History(NamedTuple):
    """What an env was told since, and with, its last reset; `generator` is from before it."""

    generator: Any
    seed: int | None
    options: dict[str, Any] | None
    actions: tuple[Any, ...]


class _Recorder:
    """Stand in for `reset` and `step` of one env and remember the calls."""

    def __init__(self, env: Any, adapter: ReplayAdapter) -> None:
        self._env, self._adapter = env, adapter
        self._reset, self._step = env.reset, env.step
        self._start: tuple[Any, int | None, dict[str, Any] | None] | None = None
        self._actions: list[Any] = []
        self._left = b""  # the generator, as the last call left it

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        generator = capture_generator(self._env.np_random)
        start = generator, seed, copy.deepcopy(options)
        self._adapter.before_reset(self._env)
        outcome = self._reset(seed=seed, options=options)
        self._start, self._actions = start, []  # after it: some envs step once inside reset
        self._left = self._pickled_generator()
        return outcome

    def step(self, action: Any) -> Any:
        generator = capture_generator(self._env.np_random)
        if self._start is not None and pickle.dumps(generator) != self._left:  # see `with_noise`
            self._actions.append(_Redrawn(generator))
        self._actions.append(copy.copy(action))
        outcome = self._step(action)
        self._left = self._pickled_generator()
        return outcome

    def _pickled_generator(self) -> bytes:  # what can be compared, arrays or not
        return pickle.dumps(capture_generator(self._env.np_random))

    def history(self) -> _History | None:
        return None if self._start is None else _History(*self._start, tuple(self._actions))

    def repeat(self, history: _History | None) -> None:
        if history is None:  # before the first reset there was nothing to repeat
            return
        self._env.np_random = apply_generator(self._env.np_random, history.generator)
        self.reset(seed=history.seed, options=copy.deepcopy(history.options))
        for action in history.actions:
            if isinstance(action, _Redrawn):
                self._env.np_random = apply_generator(self._env.np_random, action.generator)
            else:
                self.step(copy.copy(action))


def constructor_of(env: Any) -> tuple[Any, ...]:
    """Return what `make_anew` needs to make an env like this one.

    Raises:
        NotCloneableError: If the env has neither a spec nor the arguments that EzPickle keeps.
    """
    if env.spec is not None:
        return (env.spec,)
    if isinstance(env, EzPickle):
        return type(env), env._ezpickle_args, env._ezpickle_kwargs
    reason = "it was not made by gym.make, so nothing tells how to make another one"
    raise NotCloneableError.for_env(env, reason)


def make_anew(kind: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
    """Return a new unwrapped env that does not render, from a spec or a class with arguments."""
    if kwargs is None:
        spec = copy.deepcopy(kind)
        spec.kwargs.pop("render_mode", None)  # an env of one's own may not know it
        env = spec.make().unwrapped
    else:
        env = kind(*args, **kwargs)
    env.render_mode = None
    return env


def _recorder_of(env: Any) -> Any:
    return getattr(env.__dict__.get("step"), "__self__", None)
