"""What in a captured state can be moved a little: positions, velocities, activations."""

from __future__ import annotations

import mujoco
import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.cloning.mujoco import MujocoAdapter
from mppi_agent.interfaces import Coordinates, Dynamics

__all__ = ["MujocoCoordinates", "VectorCoordinates", "coordinates_of"]

_INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)


def coordinates_of(env: Cloneable, dynamics: Dynamics) -> Coordinates:
    """Return the coordinates of an env's physics.

    Args:
        env: The env; only read.
        dynamics: Simulates it.

    Raises:
        ValueError: If the env's captured states hold no physics vector.
    """
    if isinstance(env.adapter, MujocoAdapter):
        model, _ = env.adapter.simulator(env.unwrapped)
        return MujocoCoordinates(model)
    size = dynamics.initial_states(1, np.random.default_rng(0))[0].physics.size
    if not size:
        raise ValueError(
            f"env {type(env.unwrapped).__name__} has no physics vector to take derivatives in, as "
            "MuJoCo and Pendulum have; use lqr_steps=0, or give it get_state(), which returns a "
            "float64 array, and set_state(state)"
        )
    return VectorCoordinates(size)


class VectorCoordinates:
    """Take every number of the physics vector as a coordinate.

    Attributes:
        size: How many there are, n.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def displaced(self, origin: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return physics vectors, shape (N, n)."""
        return origin + offsets

    def differences(self, physics: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Return offsets, shape (N, n)."""
        return physics - origin


class MujocoCoordinates:
    """Move joints by velocities for one second, so that rotations stay rotations.

    In the order of MuJoCo's tangent space: nv numbers of positions, nv of velocities, na of
    activations. Whatever else the state holds, such as time and mocap bodies, stays.

    Attributes:
        size: n = 2 nv + na.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self.size: int = 2 * model.nv + model.na
        places = np.arange(mujoco.mj_stateSize(model, _INTEGRATION), dtype=np.float64)

        def place(field: mujoco.mjtState) -> np.ndarray:
            found = np.empty(mujoco.mj_stateSize(model, int(field)))
            mujoco.mj_extractState(model, places, _INTEGRATION, found, int(field))
            return found.astype(int)

        self._positions = place(mujoco.mjtState.mjSTATE_QPOS)
        velocities = place(mujoco.mjtState.mjSTATE_QVEL)
        activations = place(mujoco.mjtState.mjSTATE_ACT)
        self._rates = np.concatenate([velocities, activations])

    def displaced(self, origin: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return physics vectors, shape (N, p), of offsets of shape (N, n)."""
        physics = np.tile(origin, (len(offsets), 1))
        physics[:, self._rates] += offsets[:, self._model.nv :]
        positions = np.ascontiguousarray(physics[:, self._positions])
        moves = np.ascontiguousarray(offsets[:, : self._model.nv])
        for row, offset in zip(positions, moves, strict=True):
            mujoco.mj_integratePos(self._model, row, offset, 1.0)
        physics[:, self._positions] = positions
        return physics

    def differences(self, physics: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Return offsets, shape (N, n), of physics vectors of shape (N, p)."""
        offsets = np.empty((len(physics), self.size))
        offsets[:, self._model.nv :] = (physics - origin)[:, self._rates]
        before = origin[self._positions]
        moved = np.empty((len(physics), self._model.nv))
        places = np.ascontiguousarray(physics[:, self._positions])
        for row, after in zip(moved, places, strict=True):
            mujoco.mj_differentiatePos(self._model, row, 1.0, before, after)
        offsets[:, : self._model.nv] = moved
        return offsets
