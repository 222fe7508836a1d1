"""Search the planner's settings for an env with Optuna, at equal simulated steps per plan.

settings --expert's episodes from tuning seeds--> mean return --Optuna--> next settings

Needs the extra `tune`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mppi_agent.cloning import Cloneable
from mppi_agent.dynamics import make_dynamics
from mppi_agent.env_ids import make_env
from mppi_agent.evaluation import evaluate_expert
from mppi_agent.expert import MPPIAgent
from mppi_agent.interfaces import Dynamics
from mppi_agent.planning import MPPIConfig
from mppi_agent.progress import Progress

__all__ = ["TUNING_SEEDS", "Tuned", "tune"]

TUNING_SEEDS = 20_000  # reset seeds from here on: neither training nor evaluation uses them


@dataclass(frozen=True)
class Tuned:
    """Hold the outcome of a search.

    Attributes:
        config: The settings of the highest mean return.
        mean_return: Of these, undiscounted, over episodes cut at `max_steps`.
        preset_return: The same of the settings that the search began with.
        trials: Settings tried, those given up early among them.
        seeds: Reset seeds.
        max_steps: Longest episode.
    """

    config: MPPIConfig
    mean_return: float
    preset_return: float
    trials: int
    seeds: tuple[int, ...]
    max_steps: int

    def measured(self) -> dict[str, Any]:
        """Return the figures behind the settings in JSON types."""
        return {
            "mean_return": self.mean_return,
            "preset_return": self.preset_return,
            "trials": self.trials,
            "seeds": list(self.seeds),
            "max_steps": self.max_steps,
            "sim_steps_per_plan": self.config.steps_per_plan,
        }

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{self.mean_return:.1f} in {len(self.seeds)} episodes of up to {self.max_steps} steps "
            f"({self.preset_return:.1f} before), best of {self.trials} trials on these seeds"
        )


def tune(
    env_id: str,
    *,
    trials: int = 30,
    episodes: int = 3,
    max_steps: int = 200,
    sim_steps: int | None = None,
    seed: int = 0,
    show_progress: bool = False,
    report: Callable[[str], None] | None = None,
) -> Tuned:
    """Search settings that return most, beginning with the preset.

    Every trial may simulate as many steps per plan, so longer plans are paid for with fewer
    samples. A trial is given up where its first episodes return less than the median trial's.

    Args:
        env_id: What `gym.make` takes.
        trials: Settings to try, >= 1; the first is the preset.
        episodes: Per trial, >= 1, from the reset seeds `TUNING_SEEDS` on.
        max_steps: Longest episode, >= 1.
        sim_steps: Env steps that a plan may simulate; None: what the preset's does.
        seed: Of the search and of the planner.
        show_progress: Whether to show a bar on stderr, if that is a terminal.
        report: Called with a line for each trial that is the best so far.

    Returns:
        The best settings; on the tuning seeds never worse than the preset.

    Raises:
        ValueError: If a number is out of its range, or Optuna is missing.
    """
    optuna = _optuna()
    for name, value in (("trials", trials), ("episodes", episodes), ("max_steps", max_steps)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    env = Cloneable(make_env(env_id))
    preset = MPPIConfig.for_env(env)
    budget = preset.steps_per_plan if sim_steps is None else sim_steps
    try:
        start = preset if sim_steps is None else preset.fitted_to(sim_steps)
    except ValueError as error:
        raise ValueError(f"sim_steps={sim_steps} is too small: {error}") from None
    dynamics = make_dynamics(env)
    may_react = len(env.observation_space.shape or ()) == 1 and not preset.lqr_steps
    reflexes = [0.0, 0.15, 0.3, 0.6] if may_react else [0.0]
    seeds = tuple(range(TUNING_SEEDS, TUNING_SEEDS + episodes))
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    configs: list[MPPIConfig] = []
    means: list[float] = []

    def try_out(trial: Any) -> float:
        config = start if not configs else _suggest(trial, preset, budget, reflexes)
        configs.append(config or preset)
        if config is None:
            raise optuna.TrialPruned
        mean = _mean_return(env, config, dynamics, seeds, max_steps, seed, trial)
        means.append(mean)
        if report is not None and mean == max(means):
            report(f"trial {trial.number}: {mean:.1f} with {config}")
        return mean

    with Progress(f"tune {env_id}", trials, "trials", is_shown=show_progress) as bar:
        study.optimize(try_out, n_trials=trials, callbacks=[lambda *_: bar.advance()])
    dynamics.close()
    env.close()
    best = study.best_trial
    return Tuned(configs[best.number], float(best.value), means[0], len(configs), seeds, max_steps)


def _suggest(
    trial: Any, preset: MPPIConfig, budget: int, reflexes: list[float]
) -> MPPIConfig | None:
    """Return the settings of a trial; None where the budget does not allow them.

    Args:
        trial: Of Optuna.
        preset: What the search began with.
        budget: Env steps that a plan may simulate.
        reflexes: What to try as `reflex_std`.
    """
    horizon = trial.suggest_int("horizon", 5, 150, log=True)
    knots = trial.suggest_int("knots", 2, 20, log=True)
    config = replace(
        preset,
        horizon=horizon,
        knot_spacing=max(1, min(horizon, round(horizon / knots))),
        iterations=trial.suggest_int("iterations", 1, 4),
        noise_std=trial.suggest_float("noise_std", 0.1, 1.5, log=True),
        reflex_std=trial.suggest_categorical("reflex_std", reflexes),
        noise_decay=trial.suggest_float("noise_decay", 0.3, 1.0),
        tail_scale=trial.suggest_categorical("tail_scale", [0.0, 0.7, 1.0]),
        ess_fraction=trial.suggest_float("ess_fraction", 0.02, 0.5, log=True),
        discount=trial.suggest_categorical("discount", [0.97, 0.99, 1.0]),
        lost_future=trial.suggest_categorical("lost_future", [1.0, 4.0]),
        ongoing_reward=trial.suggest_categorical("ongoing_reward", [0.0, 2.0]),
        num_samples=max(preset.num_samples, 2 * preset.elites),
    )
    try:
        return config.fitted_to(budget)
    except ValueError:
        return None


def _mean_return(
    env: Cloneable,
    config: MPPIConfig,
    dynamics: Dynamics,
    seeds: tuple[int, ...],
    max_steps: int,
    seed: int,
    trial: Any,
) -> float:
    """Return the mean over one episode per seed, or give up on the way."""
    import optuna

    returns: list[float] = []
    with closing(MPPIAgent(env, config, seed=seed, dynamics=dynamics)) as expert:
        for reset_seed in seeds:
            evaluation = evaluate_expert(expert, [reset_seed], max_steps=max_steps)
            returns.append(evaluation.mean)
            trial.report(float(np.mean(returns)), step=len(returns))
            if trial.number and len(returns) < len(seeds) and trial.should_prune():
                raise optuna.TrialPruned
    return float(np.mean(returns))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            "tuning needs optuna; install the extra: pip install 'mppi-agent[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
