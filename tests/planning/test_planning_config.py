"""Settings: validation, presets and budgets."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mppi_agent.planning import ALONE, ON_TOP, ON_TOP_OF_ANY, PRESETS, MPPIConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 3}, r"num_samples=3 must be an int >= 4; 8 to 128"),
        ({"num_samples": 64.0}, r"num_samples=64.0 must be an int"),
        ({"horizon": 0}, r"horizon=0 must be an int >= 1"),
        ({"iterations": True}, r"iterations=True must be an int >= 1"),
        ({"knot_spacing": 21}, r"knot_spacing=21 must be an int in \[1, 20\]; use 1"),
        ({"budget_steps": 0}, r"budget_steps=0 must be an int >= 1; use None for"),
        ({"verify_steps": -1}, r"verify_steps=-1 must be an int >= 0; use 250 where a policy may"),
        ({"elites": 33}, r"elites=33 must be an int in \[0, 32\]; .*raise num_samples"),
        ({"noise_correlation": 1.0}, r"noise_correlation=1.0 must be in \[0, 1\)"),
        ({"noise_std": 0.0}, r"noise_std=0.0 must be > 0"),
        ({"noise_std": float("nan")}, r"noise_std=nan must be > 0"),
        ({"noise_decay": 1.1}, r"noise_decay=1.1 must be in \(0, 1\]"),
        ({"tail_scale": -0.1}, r"tail_scale=-0.1 must be >= 0"),
        ({"ess_fraction": 1.0}, r"ess_fraction=1.0 must be in \(0, 1\)"),
        ({"temperature_floor": -1.0}, r"temperature_floor=-1.0 must be >= 0"),
        ({"discount": 0.0}, r"discount=0.0 must be in \(0, 1\]"),
        ({"lost_future": -1.0}, r"lost_future=-1.0 must be >= 0 and finite; use 1"),
        ({"lost_future": np.inf}, r"lost_future=inf must be >= 0 and finite"),
        ({"ongoing_reward": -1.0}, r"ongoing_reward=-1.0 must be >= 0 and finite; use 2"),
        ({"lqr_steps": -1}, r"lqr_steps=-1 must be an int >= 0; use 1 for smooth envs"),
        ({"lqr_steps": 1, "reflex_std": 0.3}, r"lqr_steps=1 .* reflex_std=0.3 .* one of the two"),
        ({"mean_preference": 1.0}, r"mean_preference=1.0 must be in \[0, 1\)"),
        ({"temperature": 0.0}, r"temperature=0.0 must be > 0; use None"),
        ({"temperature": lambda iteration: 1.0 - iteration}, r"temperature=.* must be > 0"),
    ],
)
def test_bad_values_are_named_with_a_cure(changes, message):
    with pytest.raises(ValueError, match=message):
        MPPIConfig(**changes)


def test_numpy_integers_are_accepted():
    assert MPPIConfig(num_samples=np.int64(8)) == MPPIConfig(num_samples=8)


def test_a_string_for_the_interpolation_is_named():
    with pytest.raises(TypeError, match=r"knot_interpolation='cubic' must be a callable; pass"):
        MPPIConfig(knot_interpolation="cubic")


@pytest.mark.parametrize("env_id", sorted({*PRESETS, *ALONE, *ON_TOP}))
def test_every_preset_is_valid_and_found_by_id_and_by_env(env_id):
    preset = MPPIConfig(**PRESETS.get(env_id, {}))
    assert MPPIConfig.for_env(env_id, role="label") == preset
    on_top = replace(preset, **{**ON_TOP_OF_ANY, **ON_TOP.get(env_id, {})})
    assert MPPIConfig.for_env(env_id, role="on_top") == on_top
    if env_id in ALONE:
        preset = replace(preset, **ALONE[env_id])
    assert MPPIConfig.for_env(env_id) == preset
    assert MPPIConfig.for_env(SimpleNamespace(spec=SimpleNamespace(id=env_id))) == preset
    assert MPPIConfig.for_env(f"some_module:{env_id}") == preset


@pytest.mark.parametrize("env_id", sorted(ALONE))
def test_settings_of_the_expert_alone_stand_back_where_there_is_a_policy(env_id):
    for role in ("on_top", "label"):
        with_policy = MPPIConfig.for_env(env_id, role=role)
        assert MPPIConfig.for_env(env_id) != with_policy
        assert with_policy.reflex_std == 0


def test_a_smaller_copy_has_as_many_elites_and_as_wide_knots_as_fit():
    config = MPPIConfig(num_samples=64, elites=8, horizon=40, knot_spacing=10)
    assert config.resized() == config
    assert config.resized(horizon=5) == replace(config, horizon=5, knot_spacing=5)
    assert config.resized(num_samples=10) == replace(config, num_samples=10, elites=5)
    assert config.resized(num_samples=100, horizon=80).elites == 8
    with pytest.raises(ValueError, match=r"horizon=0 must be an int >= 1; cover 0.3 to 1 s"):
        config.resized(horizon=0)
    with pytest.raises(ValueError, match=r"num_samples=-3 must be an int >= 4"):
        config.resized(num_samples=-3)


def test_an_unknown_role_is_named_beside_the_known_ones():
    with pytest.raises(ValueError, match=r"role='teach' must be one of alone, on_top, label"):
        MPPIConfig.for_env("Hopper-v5", role="teach")


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Swimmer-v5", "HalfCheetah-v5"])
def test_the_expert_alone_reacts_where_gaits_are_to_be_found(env_id):
    assert MPPIConfig.for_env(env_id).reflex_std > 0


@pytest.mark.parametrize(("shape", "reacts"), [((17,), True), (None, False), ((64, 64, 3), False)])
def test_presets_react_only_to_vectors(shape, reacts):
    space = SimpleNamespace(shape=shape)
    env = SimpleNamespace(spec=SimpleNamespace(id="HalfCheetah-v5"), observation_space=space)
    config = MPPIConfig.for_env(env)
    assert (config.reflex_std > 0) == reacts
    assert config == replace(MPPIConfig.for_env("HalfCheetah-v5"), reflex_std=config.reflex_std)


def test_an_unknown_env_gets_the_defaults():
    assert MPPIConfig.for_env("NoSuchEnv-v0") == MPPIConfig()
    assert MPPIConfig.for_env(SimpleNamespace(spec=None)) == MPPIConfig()


@pytest.mark.parametrize(("dt", "horizon", "knot_spacing"), [(0.008, 75, 6), (0.015, 40, 3)])
def test_an_unknown_env_of_short_steps_gets_more_foresight_at_the_same_cost(
    dt, horizon, knot_spacing
):
    config = MPPIConfig.for_env(_unknown(dt))
    assert (config.horizon, config.knot_spacing) == (horizon, knot_spacing)
    most = MPPIConfig().steps_per_plan
    assert 0.9 * most < config.steps_per_plan <= most
    for role in ("on_top", "label"):  # a policy or its values see further
        assert MPPIConfig.for_env(_unknown(dt), role=role).horizon == 20


@pytest.mark.parametrize("dt", [0.02, 0.05, 1.0, None, "0.01", 0.0, -0.01, float("nan")])
def test_an_unknown_env_of_long_or_unknown_steps_gets_the_defaults(dt):
    assert MPPIConfig.for_env(_unknown(dt)) == MPPIConfig()


def test_the_shortest_steps_leave_samples_to_plan_with():
    config = MPPIConfig.for_env(_unknown(1e-5))
    assert config.num_samples >= 12
    assert config.steps_per_plan <= MPPIConfig().steps_per_plan


def test_a_preset_knows_its_horizon_better_than_the_time_step():
    env = SimpleNamespace(spec=SimpleNamespace(id="Pusher-v5"), dt=0.001)
    assert MPPIConfig.for_env(env) == MPPIConfig.for_env("Pusher-v5")


def _unknown(dt):
    return SimpleNamespace(spec=None, unwrapped=SimpleNamespace(dt=dt))


@pytest.mark.parametrize("num_steps", [250, 400, 2_000, 20_000])
@pytest.mark.parametrize("elites", [0, 4, 30])
def test_a_fitted_config_uses_the_budget_and_stays_within(num_steps, elites):
    config = MPPIConfig(elites=elites).fitted_to(num_steps)
    assert 0.5 * num_steps < config.steps_per_plan <= num_steps


@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize("horizon", [5, 20, 33])
def test_a_budget_buys_the_most_samples_that_fit(horizon, iterations):
    fitted = MPPIConfig(horizon=horizon, iterations=iterations).fitted_to(2000)
    assert fitted.steps_per_plan <= 2000 < fitted.steps_per_plan + fitted.iterations * horizon


def test_a_small_budget_pays_for_fewer_iterations_of_enough_samples():
    config = MPPIConfig(iterations=4, horizon=10)
    small = config.fitted_to(280)
    assert (small.iterations, small.num_samples) == (2, 15)
    large = config.fitted_to(1000)
    assert (large.iterations, large.num_samples) == (4, 27)


@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize("growth", [4, 9])
def test_a_large_budget_pays_for_more_iterations_too(iterations, growth):
    config = MPPIConfig(iterations=iterations, noise_decay=0.6)
    fitted = config.fitted_to(growth * config.steps_per_plan)
    root = math.sqrt(growth)
    assert fitted.iterations == root * iterations
    assert fitted.num_samples == pytest.approx(root * config.num_samples, rel=0.05)
    fall = fitted.noise_decay**fitted.iterations
    assert fall == pytest.approx(0.6**iterations)  # over the whole call, as before


def test_a_budget_of_what_a_config_takes_anyway_changes_nothing():
    config = MPPIConfig(iterations=4, horizon=10, noise_decay=0.7)
    assert config.fitted_to(config.steps_per_plan) == config


def test_a_schedule_of_temperatures_keeps_its_iterations():
    config = MPPIConfig(iterations=3, temperature=[1.0, 0.5, 0.2].__getitem__)
    fitted = config.fitted_to(100 * config.steps_per_plan)
    assert fitted.iterations == 3 and fitted.num_samples > 90 * config.num_samples


def test_a_search_on_a_coarse_model_pays_for_what_is_measured_again():
    config = MPPIConfig(search_substeps=1)
    assert config.final_steps == 5 * config.horizon
    fitted = config.fitted_to(1_000)
    assert fitted.num_samples < replace(config, search_substeps=None).fitted_to(1_000).num_samples
    assert fitted.steps_per_plan <= 1_000


def test_what_leftovers_may_buy_is_fitted_too():
    fitted = MPPIConfig(budget_steps=10_000).fitted_to(3_000)
    assert fitted.budget_steps == fitted.steps_per_plan == 3_000
    assert replace(fitted, budget_steps=None) == MPPIConfig().fitted_to(3_000)


def test_what_is_verified_is_paid_for_by_the_budget():
    config = MPPIConfig(horizon=50, verify_steps=250)
    fitted = config.fitted_to(10_000)
    assert fitted.verify_steps == 250 and 5_000 < fitted.steps_per_plan <= 10_000
    unverified = replace(config, verify_steps=0).fitted_to(10_000)
    assert fitted.num_samples * fitted.iterations < unverified.num_samples * unverified.iterations
    with pytest.raises(ValueError, match=r"shorten horizon or verify_steps"):
        config.fitted_to(1_500)


def test_a_budget_needs_a_speed_and_enough_of_both():
    with pytest.raises(ValueError, match=r"must be given together; measure the speed"):
        MPPIConfig.for_env("Pendulum-v1", budget_ms=10.0)
    with pytest.raises(
        ValueError, match=r"budget_ms=2.0 is too small: .*200 env steps.* 4 samples"
    ):
        MPPIConfig.for_env("Pendulum-v1", budget_ms=2.0, steps_per_second=100_000)
