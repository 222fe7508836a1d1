"""Settings of the planner."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from mppi_agent.planning.noise import KnotBasis, linear_basis
from mppi_agent.planning.presets import ALONE, ON_TOP, ON_TOP_OF_ANY, PRESETS

__all__ = ["MPPIConfig", "Role"]

Role = Literal["alone", "on_top", "label"]

_FEWEST_FITTED_SAMPLES = 8
# Below it one iteration fewer serves better (docs/experiments.md).
_FEWEST_PER_ITERATION = 12
_CANDIDATES = 5  # two proposals, the best mean, the last one and the best sample
# Where control steps are so short that the defaults would see less without a policy, how far they
# look ahead and how far apart their knots are: docs/experiments.md, "A horizon in seconds".
_LEAST_SECONDS = 0.4
_FORESIGHT_SECONDS = 0.6
_KNOT_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class MPPIConfig:
    """Hold the settings of `MPPI`; the defaults work on Pendulum.

    Attributes:
        num_samples: Plans weighed per state and iteration (K), the current mean and the elites
            among them, >= 4.
        horizon: Length of a plan in control steps (H), >= 1.
        iterations: Rounds of sampling and averaging, each one rollout call, >= 1.
        budget_steps: Env steps up to which a plan goes on with more iterations, >= 1: where samples
            end early, as in a fall, these use up what is left, on the average over the states of a
            call, and more where those of the last iteration end later. LQR takes no more either.
            None: `iterations` and `lqr_steps`, and no more.
        knot_spacing: Control steps from one noise knot to the next, in [1, horizon]; 1 draws every
            step on its own.
        knot_interpolation: How noise runs between knots: `linear_basis`, `cubic_basis` or the like.
        noise_correlation: Of the noise at neighbouring knots, in [0, 1).
        noise_std: Of the first iteration's noise, > 0; 1 is half the action range of a Box, or
            twice what a chosen category scores.
        reflex_std: What random reflexes, linear in the observation, do to a control in the first
            iteration: std where observations are a standard deviation off, same unit as
            `noise_std`, >= 0. Plans then react, which keeps long ones alive around unstable
            gaits; 0: they are sequences of controls.
        noise_fade: How noise falls along the plan: at step t it is exp(-noise_fade t / H) of the
            first step's, >= 0. On top of a policy plans then end in what it does by itself.
        noise_decay: Factor on the noise from one iteration to the next, in (0, 1].
        tail_scale: Std of the log of a random noise factor per sample, >= 0; 0 is Gaussian noise.
        antithetic: Whether samples come in mirrored pairs around the mean.
        temperature: Spread of the weights, reward units, > 0: a number, or a schedule from the
            iteration (0, 1, ...) to it. None sets it by effective sample size for every state.
        ess_fraction: Effective sample size wanted, as a share of the samples, in (0, 1); read only
            when `temperature` is None.
        temperature_floor: Smallest temperature as a share of the best return's magnitude, >= 0, so
            that flat returns do not get confident weights; read only when `temperature` is None.
        discount: Of rewards per control step, in (0, 1].
        lost_future: Horizons beyond the plan's own whose reward it is charged for where it ends the
            episode, >= 0, see `LostFuture`. More makes long-lived plans cautious.
        ongoing_reward: Horizons beyond the plan's own for which it is taken to go on earning what
            it earns at its end, >= 0, see `OngoingReward`. Keeps it from what ends badly without
            ending the episode, such as a somersault onto the back.
        elites: Best samples that enter the next iteration with the return they had, >= 0 and at
            most num_samples / 2.
        lqr_steps: Most steps of iterative LQR on the nominal, whose outcome joins the samples,
            >= 0, see `IterativeLQR`. For smooth envs of few joints; 0: no derivatives are taken.
        search_substeps: Physics substeps per control step of a coarse model to draw the samples on,
            >= 1, where the dynamics has one (MuJoCo); plans are still chosen by the true model.
            None: samples are drawn on the true model.
        verify_steps: Control steps beyond the plan that the policy goes on for, where plans are
            deviations from one, before the last candidates are compared, >= 0. A plan that ends
            where the policy falls later is then seen through, whatever the values say.
        mean_preference: How far the best mean or proposal may fall behind the best noisy sample and
            still be the plan, as a share of that sample's lead over the median, in [0, 1).
    """

    num_samples: int = 64
    horizon: int = 20
    iterations: int = 2
    budget_steps: int | None = None
    knot_spacing: int = 1
    knot_interpolation: KnotBasis = linear_basis
    noise_correlation: float = 0.0
    noise_std: float = 0.5
    noise_fade: float = 0.0
    reflex_std: float = 0.0
    noise_decay: float = 0.6
    tail_scale: float = 0.0
    antithetic: bool = True
    temperature: float | Callable[[int], float] | None = None
    ess_fraction: float = 0.2
    temperature_floor: float = 1e-4
    discount: float = 0.99
    lost_future: float = 1.0
    ongoing_reward: float = 0.0
    elites: int = 4
    lqr_steps: int = 0
    search_substeps: int | None = None
    verify_steps: int = 0
    mean_preference: float = 0.1

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: If a field is out of its range.
            TypeError: If `knot_interpolation` is not callable.
        """
        self._require_int("num_samples", 4, None, "8 to 128 are usual")
        self._require_int("horizon", 1, None, "cover 0.3 to 1 s of control steps")
        self._require_int("iterations", 1, None, "2 suit most envs")
        self._require_int("knot_spacing", 1, self.horizon, "use 1 for independent steps")
        self._require_int("elites", 0, self.num_samples // 2, "use 4, or raise num_samples")
        if self.budget_steps is not None:
            self._require_int("budget_steps", 1, None, "use None for no more iterations")
        if self.search_substeps is not None:
            self._require_int("search_substeps", 1, None, "use 2, or None for the true model")
        self._require_int("verify_steps", 0, None, "use 250 where a policy may fall, else 0")
        self._require_int("lqr_steps", 0, None, "use 1 for smooth envs of few joints, else 0")
        self._require("noise_correlation", 0 <= self.noise_correlation < 1, "in [0, 1)", "use 0.5")
        self._require("noise_std", self.noise_std > 0, "> 0", "use 0.1 to 1 (half-range = 1)")
        ok = 0 <= self.reflex_std < np.inf
        self._require("reflex_std", ok, ">= 0 and finite", "use 0.3, or 0 for no reflexes")
        ok = 0 <= self.noise_fade < np.inf
        self._require("noise_fade", ok, ">= 0 and finite", "use 4 on top of a policy, else 0")
        self._require("noise_decay", 0 < self.noise_decay <= 1, "in (0, 1]", "use 0.6")
        self._require("tail_scale", self.tail_scale >= 0, ">= 0", "use 0 for Gaussian noise")
        self._require("ess_fraction", 0 < self.ess_fraction < 1, "in (0, 1)", "use 0.2")
        self._require("temperature_floor", self.temperature_floor >= 0, ">= 0", "use 1e-4")
        ok = 0 <= self.lost_future < np.inf
        self._require("lost_future", ok, ">= 0 and finite", "use 1, or 0 to charge nothing")
        ok = 0 <= self.ongoing_reward < np.inf
        self._require("ongoing_reward", ok, ">= 0 and finite", "use 2, or 0 to count nothing")
        self._require("discount", 0 < self.discount <= 1, "in (0, 1]", "use 0.99")
        self._require("mean_preference", 0 <= self.mean_preference < 1, "in [0, 1)", "use 0.1")
        for iteration in range(self.iterations):
            value = self.temperature_at(iteration)
            ok = value is None or value > 0
            self._require("temperature", ok, "> 0", "use None to set it by effective sample size")
        if self.lqr_steps and self.reflex_std:
            raise ValueError(
                f"lqr_steps={self.lqr_steps} improves sequences of controls, and with "
                f"reflex_std={self.reflex_std} plans are none; set one of the two to 0"
            )
        if not callable(self.knot_interpolation):
            raise TypeError(
                f"knot_interpolation={self.knot_interpolation!r} must be a callable; "
                "pass linear_basis or cubic_basis from mppi_agent.planning"
            )

    @classmethod
    def for_env(
        cls,
        env: Any,
        budget_ms: float | None = None,
        *,
        steps_per_second: float | None = None,
        role: Role = "alone",
    ) -> MPPIConfig:
        """Return the measured preset of an env, or the defaults where there is none.

        Args:
            env: Env id, or an env, whose `spec` is read; reflexes are left out where it does not
                observe a vector. Where there is no preset to act alone with, an env that tells its
                control step in seconds (`env.unwrapped.dt`) gets a horizon of 0.6 s at the cost of
                the defaults, where these would see less than 0.4 s.
            budget_ms: Planning time per control step, ms; needs `steps_per_second`. None keeps the
                preset's number of samples.
            steps_per_second: Env steps per second that the dynamics simulates in one large batch.
            role: What plans are for: "alone", to act without a policy, for which some envs need
                reflexes; "on_top", to act on top of one that leads; "label", to teach one.

        Returns:
            The settings, fitted as by `fitted_to`; the planner itself adds about 1 ms per plan, and
            steps of LQR, where the preset has any, come on top (`fit_to_budget` times them, too).

        Raises:
            ValueError: If only one of the two numbers is given, the budget is too small, or `role`
                is none of the three.
        """
        if isinstance(env, str):
            env_id = env
        else:
            env_id = env.spec.id if env.spec is not None else ""
        name = env_id.rpartition(":")[2]
        if role not in get_args(Role):
            raise ValueError(f"role={role!r} must be one of {', '.join(get_args(Role))}")
        preset = dict(PRESETS.get(name, {}))
        if role == "alone":
            preset |= ALONE.get(name, {})
        elif role == "on_top":
            preset |= {**ON_TOP_OF_ANY, **ON_TOP.get(name, {})}
        config = cls(**preset)
        if role == "alone" and not preset:
            config = config._foreseeing(getattr(getattr(env, "unwrapped", env), "dt", None))
        space = getattr(env, "observation_space", None)
        if space is not None and len(space.shape or ()) != 1:  # the shape of a Dict is None
            config = replace(config, reflex_std=0.0)
        if (budget_ms is None) != (steps_per_second is None):
            raise ValueError(
                f"budget_ms={budget_ms} and steps_per_second={steps_per_second} must be given "
                "together; measure the speed with `mppi-agent bench planner ENV`"
            )
        if budget_ms is None or steps_per_second is None:
            return config
        try:
            return config.fitted_to(int(budget_ms / 1000.0 * steps_per_second))
        except ValueError as error:
            raise ValueError(f"budget_ms={budget_ms} is too small: {error}") from None

    def fitted_to(self, num_steps: int) -> MPPIConfig:
        """Choose the samples and iterations that a budget of env steps allows.

        Less than these settings take means fewer samples, and fewer iterations where samples would
        be too few. More means more of both, each by the square root, and noise that falls as far as
        before over the whole call: docs/experiments.md, "What to spend more time on".

        Args:
            num_steps: Most env steps that a plan from one state may simulate, LQR's aside.

        Returns:
            A copy with other `num_samples`, `iterations`, `noise_decay` or `elites`, and no more
            than `num_steps` in its `budget_steps`, if it has any. A schedule of temperatures keeps
            its number of iterations.

        Raises:
            ValueError: If the budget allows fewer than 8 samples in one iteration.
        """
        if self.budget_steps is not None:
            plain = replace(self, budget_steps=None).fitted_to(num_steps)
            return replace(plain, budget_steps=num_steps)
        rollouts = (num_steps - self.final_steps) // self.horizon
        growth = 1.0 if callable(self.temperature) else num_steps / self.steps_per_plan
        most_iterations = round(self.iterations * math.sqrt(max(growth, 1.0)))
        for iterations in range(most_iterations, 1, -1):
            num_samples = (rollouts + (iterations - 1) * self.elites) // iterations
            if num_samples >= max(_FEWEST_PER_ITERATION, 2 * self.elites):
                decay = self.noise_decay ** min(1.0, self.iterations / iterations)
                return replace(
                    self, num_samples=num_samples, iterations=iterations, noise_decay=decay
                )
        if rollouts >= _FEWEST_FITTED_SAMPLES:
            return replace(self.resized(num_samples=rollouts), iterations=1)
        raise ValueError(
            f"a budget of {num_steps} env steps allows {max(rollouts, 0)} samples of "
            f"{self.horizon} steps; at least {_FEWEST_FITTED_SAMPLES} are needed: raise the "
            "budget, shorten horizon or verify_steps, or use a faster dynamics backend"
        )

    def _foreseeing(self, dt: object) -> MPPIConfig:
        """Return a copy that looks far enough ahead, at the same cost, for steps of `dt` s."""
        if not isinstance(dt, float | np.floating) or not 0 < self.horizon * dt < _LEAST_SECONDS:
            return self
        most = self.steps_per_plan // (_FEWEST_PER_ITERATION + 1)
        horizon = min(round(_FORESIGHT_SECONDS / dt), most)
        knot_spacing = min(round(_KNOT_SECONDS / dt), horizon)
        longer = replace(self, horizon=horizon, knot_spacing=knot_spacing)
        return longer.fitted_to(self.steps_per_plan)

    def resized(self, *, num_samples: int | None = None, horizon: int | None = None) -> MPPIConfig:
        """Return a copy of another size, with no more elites and no wider knots than fit.

        Args:
            num_samples: As the field; None keeps it.
            horizon: As the field; None keeps it.

        Raises:
            ValueError: If one of them is out of its range.
        """
        num_samples = self.num_samples if num_samples is None else num_samples
        horizon = self.horizon if horizon is None else horizon
        return replace(
            self,
            num_samples=num_samples,
            elites=min(self.elites, max(num_samples // 2, 0)),
            horizon=horizon,
            knot_spacing=min(self.knot_spacing, max(horizon, 1)),
        )

    @property
    def steps_per_plan(self) -> int:
        """Return the most env steps that planning from one state simulates.

        LQR's and those of a policy that proposes plans come on top.
        """
        rollouts = self.iterations * (self.num_samples - self.elites) + self.elites
        return max(rollouts * self.horizon + self.final_steps, self.budget_steps or 0)

    @property
    def final_steps(self) -> int:
        """Return the most env steps that go into what is compared last."""
        if not self.verify_steps and self.search_substeps is None:
            return self.horizon
        return _CANDIDATES * (self.horizon + self.verify_steps)

    def temperature_at(self, iteration: int) -> float | None:
        """Return the temperature of an iteration (0, 1, ...), None if it is set by ESS.

        What `budget_steps` adds to `iterations` keeps the last one's.
        """
        if callable(self.temperature):
            return self.temperature(min(iteration, self.iterations - 1))
        return self.temperature

    def _require(self, name: str, ok: bool, wanted: str, cure: str) -> None:
        if not ok:
            raise ValueError(f"{name}={vars(self)[name]!r} must be {wanted}; {cure}")

    def _require_int(self, name: str, low: int, high: int | None, cure: str) -> None:
        value = vars(self)[name]
        wanted = f"an int >= {low}" if high is None else f"an int in [{low}, {high}]"
        is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
        in_range = is_int and low <= value and (high is None or value <= high)
        self._require(name, in_range, wanted, cure)
