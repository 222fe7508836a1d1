"""Equal wall-clock, held-out seeds and honest accounting in `compare`."""

from __future__ import annotations

import importlib.util
import inspect
import json
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from stable_baselines3 import PPO, SAC

from mppi_agent.baselines import BASELINES, baseline_for, make_baseline
from mppi_agent.compare import compare
from mppi_agent.evaluation import evaluate_expert, evaluate_policy, held_out_seeds, limited
from mppi_agent.expert import MPPIAgent
from mppi_agent.planning import MPPIConfig
from mppi_agent.training import learning_curve, load_policy, train_for
from tests.gps.toy_envs import CutsItself, Target

SMALL = MPPIConfig(num_samples=8, horizon=5, iterations=1, elites=2)


class Swing:
    """Push in the direction of motion, one row per observation."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.sign(observation[..., 2:3]).astype(np.float32), state


def _plain_return(policy, env_id, seed):
    env = gym.make(env_id)
    observation, _ = env.reset(seed=seed)
    total, is_over = 0.0, False
    while not is_over:
        action, _ = policy.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, is_over = total + float(reward), terminated or truncated
    return total


def test_evaluation_side_by_side_equals_a_plain_loop():
    seeds = held_out_seeds(28)
    evaluation = evaluate_policy(Swing(), "Pendulum-v1", seeds)
    expected = [_plain_return(Swing(), "Pendulum-v1", seed) for seed in seeds]
    np.testing.assert_array_equal(evaluation.returns, expected)
    assert evaluation.seeds == seeds
    assert set(evaluation.lengths) == {200}


def test_episodes_of_different_length_stay_apart():
    class Right:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.ones(len(observation), dtype=int), state

    seeds = held_out_seeds(10)
    evaluation = evaluate_policy(Right(), "CartPole-v1", seeds)
    assert len(set(evaluation.lengths)) > 1
    np.testing.assert_array_equal(evaluation.returns, evaluation.lengths)


gym.register("EvaluatedTarget-v0", Target)  # without a time limit: it goes on for ever


class Still:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), 1), dtype=np.float32), state


def test_an_episode_that_nothing_ends_is_cut_and_said_to_be():
    with pytest.warns(
        UserWarning, match=r"no time limit and did not end.* cut after 1000 steps; register it with"
    ):
        evaluation = evaluate_policy(Still(), "EvaluatedTarget-v0", held_out_seeds(2))
    assert evaluation.lengths.tolist() == [1000, 1000]
    ends_there = CutsItself(Target(), 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing was cut
        env, steps, is_over = limited(ends_there), 0, False
        env.reset(seed=0)
        while not is_over:
            _, _, terminated, truncated, _ = env.step(np.zeros(1, dtype=np.float32))
            steps, is_over = steps + 1, terminated or truncated
    assert steps == 1000
    expert = MPPIAgent(limited(Target()), SMALL)
    assert evaluate_expert(expert, [0], max_steps=3).lengths.tolist() == [3]


def test_held_out_seeds_of_few_episodes_begin_those_of_many():
    assert held_out_seeds(100)[:3] == held_out_seeds(3)
    with pytest.raises(ValueError, match="episodes must be > 0"):
        held_out_seeds(0)


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_published_settings_name_real_envs_and_real_arguments(algo):
    accepted = set(inspect.signature(PPO if algo == "ppo" else SAC).parameters)
    for env_id, settings in BASELINES[algo].items():
        assert env_id in gym.registry
        assert set(settings.options) <= accepted
        assert settings.source.startswith("zoo ")


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_published_settings_are_those_of_the_zoo(algo):
    spec = importlib.util.find_spec("rl_zoo3")
    if spec is None or spec.origin is None:
        pytest.skip("needs rl_zoo3")
    file = Path(spec.origin).parent / "hyperparams" / f"{algo}.yml"
    zoo = yaml.safe_load(file.read_text())
    for env_id, settings in BASELINES[algo].items():
        published = zoo[settings.source.removeprefix("zoo ")]
        for name in ("n_timesteps", "policy"):  # a wall-clock ends it; the same policy is chosen
            del published[name]
        assert published.pop("n_envs", 1) == settings.n_envs, env_id
        assert published.pop("normalize", False) == settings.normalize, env_id
        if "policy_kwargs" in published:
            named = {"dict": dict, "nn": torch.nn}
            published["policy_kwargs"] = eval(published["policy_kwargs"].replace("\n", ""), named)
        assert published == settings.options, env_id


def test_an_env_without_published_settings_gets_the_defaults_and_says_so():
    settings = baseline_for("sac", "Reacher-v5")
    assert settings.source == "SB3 defaults"
    assert not settings.options and not settings.normalize


def test_baseline_gets_the_published_envs_network_and_normalisation():
    model = make_baseline("ppo", "HalfCheetah-v5", seed=0)
    normalizer = model.get_vec_normalize_env()
    assert normalizer is not None and normalizer.gamma == 0.98
    layers = [m for m in model.policy.mlp_extractor.policy_net if isinstance(m, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [256, 256]
    assert model.policy.log_std.detach().numpy() == pytest.approx(-2.0)
    model.get_env().close()


def test_training_stops_at_the_wall_clock_and_counts_real_steps():
    run = train_for("ppo", "Pendulum-v1", 1.0, seed=1)
    assert 1.0 <= run.seconds < 4.0
    assert run.env_steps == run.model.num_timesteps > 0
    assert run.sim_steps == 0
    assert run.settings == "zoo Pendulum-v1"


@pytest.mark.parametrize(
    ("env_id", "settings"), [("Pendulum-v1", "defaults"), ("Reacher-v5", "preset")]
)
def test_settings_of_ours_that_are_made_for_an_env_are_called_so(env_id, settings):
    assert train_for("mppigps", env_id, 0.01).settings == settings


def test_learning_curve_is_in_time_order_and_leaves_the_policy_alone():
    run = train_for("ppo", "MountainCarContinuous-v0", 1.5, num_snapshots=3)
    before = evaluate_policy(run.policy, "MountainCarContinuous-v0", held_out_seeds(2)).returns
    points = learning_curve(run, "MountainCarContinuous-v0", held_out_seeds(2))
    after = evaluate_policy(run.policy, "MountainCarContinuous-v0", held_out_seeds(2)).returns
    times = [point.seconds for point in points]
    assert times == sorted(times) and len(set(times)) >= 4
    assert times[-1] == run.seconds
    np.testing.assert_array_equal(before, after)
    assert points[-1].mean_return == pytest.approx(after.mean())
    assert points[0].mean_return != points[-1].mean_return


def test_a_policy_trained_behind_normalisation_acts_on_raw_observations():
    run = train_for("ppo", "MountainCarContinuous-v0", 0.5)
    raw = np.array([[-0.5, 0.01], [0.2, -0.02]], dtype=np.float32)
    normalizer = run.model.get_vec_normalize_env()
    count = normalizer.obs_rms.count
    expected, _ = run.model.predict(normalizer.normalize_obs(raw), deterministic=True)
    np.testing.assert_array_equal(run.policy.predict(raw, deterministic=True)[0], expected)
    assert normalizer.obs_rms.count == count


def test_training_refuses_bad_arguments():
    with pytest.raises(ValueError, match="algo must be one of mppigps, ppo, sac"):
        train_for("dqn", "Pendulum-v1", 1.0)
    with pytest.raises(ValueError, match="training time must be > 0"):
        train_for("ppo", "Pendulum-v1", 0.0)
    with pytest.raises(ValueError, match="SAC needs a Box action space"):
        train_for("sac", "CartPole-v1", 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env_id": "Pendulm-v1"}, "did you mean Pendulum-v1"),
        ({"minutes": 0}, "minutes must be > 0"),
        ({"algos": ["ppo", "td3"]}, "algos must be some of"),
        ({"algos": []}, "algos must be some of"),
        ({"episodes": 0}, "episodes must be > 0"),
        ({"expert_episodes": -1}, "expert_episodes and curve_points must be >= 0"),
    ],
)
def test_compare_refuses_bad_arguments_before_training(tmp_path, options, message):
    arguments = {"env_id": "Pendulum-v1", "minutes": 60, "out_dir": tmp_path / "out", **options}
    with pytest.raises(ValueError, match=message):
        compare(**arguments)
    assert not (tmp_path / "out").exists()


def test_expert_evaluation_counts_planning_and_repeats_with_the_seed():
    def run():
        expert = MPPIAgent("Pendulum-v1", SMALL, seed=3)
        return evaluate_expert(expert, held_out_seeds(2), max_steps=10)

    first, second = run(), run()
    np.testing.assert_array_equal(first.returns, second.returns)
    assert first.sim_steps == second.sim_steps > 2 * 10 * SMALL.horizon
    assert list(first.lengths) == [10, 10]
    assert 1.0 <= first.ess <= SMALL.num_samples


def test_compare_shows_all_beside_each_other_on_the_same_seeds(tmp_path):
    result = compare(
        "Pendulum-v1",
        3 / 60,
        algos=["mppigps", "ppo"],
        episodes=4,
        expert_episodes=1,
        curve_points=2,
        curve_episodes=2,
        video_seconds=1.0,
        out_dir=tmp_path,
    )
    rows = {row.algorithm: row for row in result.rows}
    assert list(rows) == ["MPPIGPS", "PPO", "MPPI expert", "planner + policy"]
    assert rows["MPPIGPS"].evaluation.seeds == rows["PPO"].evaluation.seeds == held_out_seeds(4)
    assert rows["MPPI expert"].evaluation.seeds == held_out_seeds(1)
    assert rows["MPPIGPS"].sim_steps > rows["MPPIGPS"].env_steps > 0
    assert rows["PPO"].sim_steps == 0
    assert rows["MPPI expert"].sim_steps > 0 and rows["MPPI expert"].env_steps == 0

    table = result.table().splitlines()
    assert [line.split("  ")[0] for line in table[2:]] == list(rows)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved == json.loads(json.dumps(result.as_dict()))
    assert saved["rows"][0]["mean_return"] == pytest.approx(rows["MPPIGPS"].evaluation.mean)
    assert (tmp_path / "learning_curve.png").stat().st_size > 1000
    assert (tmp_path / "policy.mp4").stat().st_size > 1000

    policy = load_policy(tmp_path / "model.zip", "Pendulum-v1")
    again = evaluate_policy(policy, "Pendulum-v1", held_out_seeds(4))
    np.testing.assert_allclose(again.returns, rows["MPPIGPS"].evaluation.returns)


def test_what_was_trained_survives_what_goes_wrong_afterwards(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mppi_agent.compare.learning_curve", fail)
    with pytest.raises(KeyboardInterrupt):
        compare(
            "Pendulum-v1", 1 / 60, algos=["mppigps"], episodes=2, curve_points=1, out_dir=tmp_path
        )
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [row["algorithm"] for row in saved["rows"]] == ["MPPIGPS"]
    policy = load_policy(Path(saved["files"]["model"]), "Pendulum-v1")
    again = evaluate_policy(policy, "Pendulum-v1", held_out_seeds(2))
    assert saved["rows"][0]["mean_return"] == pytest.approx(again.mean)
