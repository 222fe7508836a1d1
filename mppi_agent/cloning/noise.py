"""What an env's own random generator will draw, as part of a captured state."""

from __future__ import annotations

from contextlib import closing
from copy import deepcopy
from dataclasses import replace

import numpy as np

from mppi_agent.cloning.base import apply_generator
from mppi_agent.cloning.cloneable import Cloneable
from mppi_agent.interfaces import EnvState

__all__ = ["draws_noise", "noise_ahead", "with_noise"]


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


def draws_noise(cloneable: Cloneable, steps: int = 50) -> bool:
    """Say whether the env's steps draw from `env.np_random`, by a look at a few random ones.

    Args:
        cloneable: Only read.
        steps: How many to try; noise that is rarer than that is not found.
    """
    space = deepcopy(cloneable.action_space)
    space.seed(0)
    must_reset = True
    with closing(cloneable.private_copy()) as copy:
        for seed in range(steps):
            if must_reset:
                copy.reset(seed=seed)
            before = noise_ahead(copy.snapshot())
            _, _, terminated, truncated, _ = copy.step(space.sample())
            if noise_ahead(copy.snapshot()) != before:
                return True
            must_reset = terminated or truncated
    return False
