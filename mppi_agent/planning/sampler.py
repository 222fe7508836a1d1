"""What the search tries next: noisy copies of the mean."""

from __future__ import annotations

import numpy as np

from mppi_agent.planning.actions import ActionScaling
from mppi_agent.planning.config import MPPIConfig
from mppi_agent.planning.noise import noise_matrix, sample_noise, with_gain_noise

__all__ = ["Sampler"]


class Sampler:
    """Draw plans around a mean, with noise that shrinks by iteration."""

    def __init__(
        self, config: MPPIConfig, scaling: ActionScaling, num_gains: int, *, snaps: bool
    ) -> None:
        """Prepare the noise.

        Args:
            config: Settings.
            scaling: What controls mean as actions of the env.
            num_gains: Rows of gains below the controls, d >= 0.
            snaps: Whether controls are done as they are drawn, so that they may be moved to what
                the env can tell apart; where plans react they are only a part of what is done.
        """
        self._config = config
        self._scaling = scaling
        self._snaps = snaps
        self._matrix = noise_matrix(
            config.horizon,
            config.knot_spacing,
            config.noise_correlation,
            config.knot_interpolation,
            fade=config.noise_fade,
        )
        if num_gains:
            ratio = config.reflex_std / config.noise_std
            self._matrix = with_gain_noise(self._matrix, num_gains, ratio)

    def draw(
        self,
        mean: np.ndarray,
        num_samples: int,
        iteration: int,
        rng: np.random.Generator,
        *,
        with_mean: bool,
    ) -> np.ndarray:
        """Return noisy copies of the mean, itself first if asked for.

        Args:
            mean: Of each state, shape (S, H + d, nu).
            num_samples: Copies, the mean included (K).
            iteration: 0, 1, ...
            rng: Source of the noise.
            with_mean: Whether the first copy has no noise.

        Returns:
            Shape (S, K, H + d, nu), the controls in [-1, 1].
        """
        config = self._config
        noise = sample_noise(
            self._matrix,
            (len(mean), num_samples - with_mean, mean.shape[2]),
            rng,
            antithetic=config.antithetic,
            tail_scale=config.tail_scale,
        )
        noise *= config.noise_std * config.noise_decay**iteration
        noise += mean[:, None]
        planned = noise[:, :, : config.horizon]
        if self._snaps:
            planned[...] = self._scaling.snap(planned)
        else:
            np.clip(planned, -1.0, 1.0, out=planned)
        return np.concatenate([mean[:, None], noise], axis=1) if with_mean else noise
