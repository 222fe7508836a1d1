"""What MPPIGPS makes of demonstrations: labels, and states that simulations can start from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.demonstrations import Demonstration
from mppi_agent.dynamics.observations import agree, join_observations, select_rows
from mppi_agent.gps.dataset import LabelBatch
from mppi_agent.interfaces import EnvState

__all__ = ["demonstrated_labels", "demonstrated_states"]


def demonstrated_labels(demonstrations: Sequence[Demonstration]) -> LabelBatch:
    """Return every step as a label of weight 1."""
    shown = [select_rows(episode.observations, slice(-1)) for episode in demonstrations]
    actions = np.concatenate([episode.actions for episode in demonstrations])
    return LabelBatch(join_observations(shown, 0), actions, np.ones(len(actions)))


def demonstrated_states(
    cloneable: Cloneable, demonstrations: Sequence[Demonstration], most: int
) -> list[EnvState]:
    """Repeat demonstrations in a private copy of the env and return states on their way.

    An episode without a seed gives none. One that goes another way than it did when it was
    recorded, in another version of the env, say, gives those before the first difference.

    Args:
        cloneable: The env; only read.
        demonstrations: Of this env.
        most: States to return, spread evenly over all steps.
    """
    copy = cloneable.private_copy()
    states: list[EnvState] = []
    for episode in demonstrations:
        if episode.seed is None:
            continue
        observation, _ = copy.reset(seed=episode.seed)
        for t, action in enumerate(episode.actions):
            if not agree(observation, select_rows(episode.observations, t)):
                break
            states.append(copy.snapshot())
            observation, *_ = copy.step(action)
    copy.close()
    stride = max(1, -(-len(states) // most))
    return states[::stride]
