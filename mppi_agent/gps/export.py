"""Export a policy to ONNX or TorchScript: observations in, the actions of `predict` out.

What is exported holds all that lies between the two: the normalisation inside the policy, that of
`VecNormalize` where it is given, and the clipping or rescaling of actions to the env's bounds. So a
robot or a browser needs neither Stable-Baselines3 nor this package.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from mppi_agent.gps.resume import write_file

__all__ = ["export_onnx", "export_torchscript"]


def export_onnx(
    model: BaseAlgorithm,
    path: str | Path | io.BufferedIOBase,
    vec_normalize: VecNormalize | None = None,
) -> None:
    """Write the deterministic policy as an ONNX graph.

    The input is called `observation`, or as the keys of a Dict space; the output is called
    `action`. Both have a batch axis of any size, and else the shapes and dtypes of
    `model.observation_space` (images: channels first) and `model.action_space`.

    Args:
        model: MPPIGPS or another SB3 model, without hidden state.
        path: Of the file; a crash meanwhile leaves an older one as it was.
        vec_normalize: The wrapper that the model was trained behind; the graph then takes
            observations as the env shows them. None: as `model.predict` takes them.

    Raises:
        ImportError: If the package onnx is missing.
        TypeError: If `model` or `vec_normalize` is something else.
        ValueError: If `vec_normalize` is of another env or the policy uses gSDE.
    """
    if find_spec("onnx") is None:
        raise ImportError(
            "export_onnx needs the package onnx: pip install 'mppi-agent[onnx]'; "
            "export_torchscript needs nothing beside torch"
        )
    actor, example = _actor(model, vec_normalize)
    names = list(example) if isinstance(example, dict) else ["observation"]
    graph = io.BytesIO()
    with _tracing():
        th.onnx.export(
            actor,
            (example, {}),  # a dict that comes last would be taken for keyword arguments
            graph,  # type: ignore[arg-type]  # an open file does, too
            # The other exporter needs onnxscript and onnx_ir as well, and is slower by far.
            dynamo=False,
            input_names=names,
            output_names=["action"],
            dynamic_axes={name: {0: "batch"} for name in [*names, "action"]},
        )
    write_file(path, "", lambda file: _write(file, graph))


def export_torchscript(
    model: BaseAlgorithm,
    path: str | Path | io.BufferedIOBase,
    vec_normalize: VecNormalize | None = None,
) -> None:
    """Write the deterministic policy for `torch.jit.load`, in Python or C++.

    The loaded module takes a tensor with a batch axis, or a dict of them for Dict spaces, and
    returns actions with a batch axis; shapes and dtypes are those of `model.observation_space`
    (images: channels first) and `model.action_space`.

    Args:
        model: MPPIGPS or another SB3 model, without hidden state.
        path: As `export_onnx` takes it.
        vec_normalize: As `export_onnx` takes it.

    Raises:
        TypeError: If `model` or `vec_normalize` is something else.
        ValueError: If `vec_normalize` is of another env or the policy uses gSDE.
    """
    actor, example = _actor(model, vec_normalize)
    module = io.BytesIO()
    with _tracing():
        th.jit.save(th.jit.trace(actor, (example,)), module)
    write_file(path, "", lambda file: _write(file, module))


class _Actor(nn.Module):
    """Do what `predict(observation, deterministic=True)` does, in torch alone.

    Args:
        policy: In evaluation mode, on the CPU.
        normalizer: Applied to observations first.
    """

    low: th.Tensor
    high: th.Tensor

    def __init__(self, policy: BasePolicy, normalizer: nn.Module) -> None:
        super().__init__()
        self.policy, self.normalizer = policy, normalizer
        self._action_shape = policy.action_space.shape or ()
        self._is_box = isinstance(policy.action_space, spaces.Box)
        if isinstance(policy.action_space, spaces.Box):
            self.register_buffer("low", th.as_tensor(policy.action_space.low))
            self.register_buffer("high", th.as_tensor(policy.action_space.high))

    def forward(self, observation: Any) -> th.Tensor:
        """Return actions, shape (N, *action)."""
        actions = self.policy._predict(self.normalizer(observation), deterministic=True)
        actions = actions.reshape(-1, *self._action_shape)
        if not self._is_box:
            return actions
        if self.policy.squash_output:
            return self.low + 0.5 * (actions + 1.0) * (self.high - self.low)
        return actions.clamp(self.low, self.high)


class _VecNormalizer(nn.Module):
    """Normalise observations as `VecNormalize.normalize_obs` does, in torch alone."""

    def __init__(self, vec_normalize: VecNormalize) -> None:
        super().__init__()
        self._clip = vec_normalize.clip_obs
        statistics = vec_normalize.obs_rms
        self._keys = list(statistics) if isinstance(statistics, dict) else None
        for key, rms in (statistics if isinstance(statistics, dict) else {"": statistics}).items():
            std = np.sqrt(rms.var + vec_normalize.epsilon)
            self.register_buffer(f"mean_{key}", th.as_tensor(rms.mean))
            self.register_buffer(f"std_{key}", th.as_tensor(std))

    def forward(self, observation: Any) -> Any:
        """Return normalised observations; entries that were not normalised stay as they are."""
        if self._keys is None:
            return self._normalize(observation, "")
        normalized = dict(observation)
        for key in self._keys:
            normalized[key] = self._normalize(observation[key], key)
        return normalized

    def _normalize(self, entry: th.Tensor, key: str) -> th.Tensor:
        mean, std = getattr(self, f"mean_{key}"), getattr(self, f"std_{key}")
        return ((entry.double() - mean) / std).clamp(-self._clip, self._clip).float()


def _actor(model: BaseAlgorithm, vec_normalize: VecNormalize | None) -> tuple[_Actor, Any]:
    """Return what is exported, and two observations for it."""
    if not isinstance(model, BaseAlgorithm):
        raise TypeError(
            f"model must be an SB3 model such as MPPIGPS, got {type(model).__name__}; "
            "load a file with MPPIGPS.load(path)"
        )
    # th.compile puts a shell around the policy; the weights are shared with what is inside.
    plain = getattr(model.policy, "_orig_mod", model.policy)
    if getattr(plain, "use_sde", False):
        raise ValueError(
            "use_sde=True is not supported: such a policy keeps the noise of an episode, which no "
            "exported graph can; train with use_sde=False"
        )
    _drop_distribution(plain)
    policy = deepcopy(plain).cpu().requires_grad_(False)
    policy.set_training_mode(False)
    normalizer: nn.Module = nn.Identity()
    if vec_normalize is not None:
        _check_vec_normalize(vec_normalize, policy.observation_space)
        if vec_normalize.norm_obs:
            normalizer = _VecNormalizer(vec_normalize)
    zeros: Any = create_empty_array(policy.observation_space, n=2, fn=np.zeros)
    if isinstance(zeros, dict):
        example: Any = {key: th.as_tensor(value) for key, value in zeros.items()}
    else:
        example = th.as_tensor(zeros)
    return _Actor(policy, normalizer).eval(), example


def _drop_distribution(policy: nn.Module) -> None:
    """Forget what was drawn from last: it hangs on a graph of gradients, which no copy can hold."""
    for part in policy.modules():
        for name in ("distribution", "gaussian_actions"):
            if hasattr(getattr(part, "action_dist", None), name):
                setattr(part.action_dist, name, None)


def _check_vec_normalize(vec_normalize: Any, space: spaces.Space) -> None:
    if not isinstance(vec_normalize, VecNormalize):
        raise TypeError(
            f"vec_normalize must be a VecNormalize, got {type(vec_normalize).__name__}; take "
            "model.get_vec_normalize_env(), or VecNormalize.load(path, venv)"
        )
    if vec_normalize.observation_space.shape != space.shape:
        raise ValueError(
            f"vec_normalize is of an env with observations {vec_normalize.observation_space}, the "
            f"model takes {space}; give the wrapper that the model was trained behind"
        )


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace without what only warns: both formats are called old, and distributions check.

    Their checks of values would be frozen into the graph as they came out for the example.
    """
    default = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(False)
    try:
        with warnings.catch_warnings(), th.no_grad():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        th.distributions.Distribution.set_default_validate_args(default)


def _write(file: io.BufferedIOBase, content: io.BytesIO) -> None:
    file.write(content.getbuffer())
