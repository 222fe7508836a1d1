"""What an env's own random generator will draw, as part of a captured state."""

from __future__ import annotations

import pickle
import random
from contextlib import closing
from copy import deepcopy
from dataclasses import replace

import numpy as np

from mppi_agent.cloning.base import apply_generator
from mppi_agent.cloning.cloneable import Cloneable
from mppi_agent.cloning.wrappers import layers_of
from mppi_agent.interfaces import EnvState

__all__ = ["drawn_from", "noise_ahead", "with_noise"]

_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)


def noise_ahead(state: EnvState) -> bytes:
    """Return the bytes that the env's generator would draw next; none without a generator."""
    rng = apply_generator(None, state.extras.rng)
    return b"" if rng is None else rng.bytes(16)


def with_noise(state: EnvState, seed: int) -> EnvState:
    """Return the same state with other noise ahead.

    Args:
        state: From `Cloneable.snapshot`; not modified.
        seed: Of `env.np_random`, >= 0. Generators that an env keeps elsewhere stay as they are.
    """
    generator = state.extras.rng
    if generator is None:
        return state
    bits = getattr(np.random, generator["bit_generator"])(seed)
    is_legacy = "has_gauss" in generator
    fresh = np.random.RandomState(bits).get_state(legacy=False) if is_legacy else bits.state
    return replace(state, extras=state.extras._replace(rng=fresh))


def drawn_from(cloneable: Cloneable, steps: int = 50) -> set[str]:
    """Return which generators the env's steps draw from, by a look at a few random ones.

    Args:
        cloneable: Only read.
        steps: How many to try; noise that is rarer than that is not found.

    Returns:
        "np_random" for the one that Gymnasium gives each env, and the names of attributes of env
        and wrappers that hold others.
    """
    drawn: set[str] = set()
    space = deepcopy(cloneable.action_space)
    space.seed(0)
    must_reset = True
    with closing(cloneable.private_copy()) as copy:
        for seed in range(steps):
            if must_reset:
                copy.reset(seed=seed)
            before = _ahead(copy)
            _, _, terminated, truncated, _ = copy.step(space.sample())
            drawn.update(name for name, noise in _ahead(copy).items() if before.get(name) != noise)
            must_reset = terminated or truncated
    return drawn


def _ahead(cloneable: Cloneable) -> dict[str, bytes]:
    """Return what tells the state of each generator."""
    own = {
        name: pickle.dumps(value)
        for layer in layers_of(cloneable)
        for name, value in vars(layer).items()
        if isinstance(value, _GENERATORS) and name != "_np_random"
    }
    return {**own, "np_random": noise_ahead(cloneable.snapshot())}
