"""MPPIGPS keeps SB3's contract, and its own promises."""

from __future__ import annotations

import io
import threading
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from toy_envs import CutsItself, Target, make_target
from toy_models import Watch, make, pendulum, pendulums, same, weights

from mppi_agent.cloning import Cloneable, NotCloneableError
from mppi_agent.dynamics import EnvStepDynamics, MujocoBatchDynamics, ProcessPoolDynamics
from mppi_agent.expert import MPPIAgent
from mppi_agent.gps import MPPIGPS
from mppi_agent.gps.callbacks import WallClockBudget
from mppi_agent.gps.engine import Engine
from mppi_agent.gps.evaluation import Evaluation
from mppi_agent.gps.improvement import TrustRegionUpdate
from mppi_agent.gps.view import PolicyView


def test_learning_changes_the_policy_and_counts_real_steps_exactly():
    model = make()
    before = weights(model)
    watch = Watch()
    assert model.learn(44, watch) is model  # five rounds and a half
    assert model.num_timesteps == watch.n_calls == 44
    assert not same(before, weights(model))
    assert watch.events[0] == "training_start" and watch.events[-1] == "training_end"
    assert watch.events.count("rollout_start") == watch.events.count("rollout_end") == 6
    assert model.num_sim_steps > 5 * 16 * 8


def test_two_envs_count_twice_per_step():
    model, watch = make(pendulums()), Watch()
    model.learn(32, watch)
    assert model.num_timesteps == 32 and watch.n_calls == 16


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_a_callback_stops_training_at_once(stop_at):
    model, watch = make(pendulums()), Watch(stop_at)
    model.learn(200, watch)
    assert model.num_timesteps == 2 * stop_at and watch.n_calls == stop_at
    assert watch.events[-1] == "training_end"


def test_numpy_false_stops_too_and_episodes_are_counted():
    model = make()
    model.learn(100, lambda _, __: np.bool_(False))
    assert model.num_timesteps == 1
    model = make(pendulum(limit=5))
    model.learn(200, StopTrainingOnMaxEpisodes(3))
    assert model.num_timesteps == 15


def test_learning_on_goes_on_without_a_reset():
    env = Cloneable(pendulum(limit=1000))
    model = make(env)
    model.learn(16)
    resets = env.num_resets
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 32 and env.num_resets == resets
    model.learn(16)
    assert model.num_timesteps == 16 and env.num_resets == resets + 1


def test_the_env_runs_as_if_nobody_planned_beside_it():
    env, watch = Cloneable(pendulum(limit=100)), Watch()
    make(env, seed=3).learn(20, watch)
    twin = pendulum(limit=100)
    twin.reset(seed=3)
    for actions in watch.actions:
        observation, *_ = twin.step(actions[0])
    np.testing.assert_array_equal(env.last_observation, observation)
    assert env.num_resets == 1


@pytest.mark.parametrize("destination", ["path", "buffer"])
def test_save_load_predict_and_continue(tmp_path, destination):
    model = make().learn(24)
    place = str(tmp_path / "model") if destination == "path" else io.BytesIO()
    model.save(place)
    if isinstance(place, io.BytesIO):
        place.seek(0)
    loaded = MPPIGPS.load(place, env=pendulum(), device="cpu")
    assert same(weights(model), weights(loaded))
    seen = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        model.predict(seen, deterministic=True)[0], loaded.predict(seen, deterministic=True)[0]
    )
    np.testing.assert_array_equal(model.predict_values(seen), loaded.predict_values(seen))
    assert loaded.num_timesteps == 24 and loaded.num_sim_steps == model.num_sim_steps
    for name in ("n_steps", "num_simulations", "gamma", "min_std", "planner", "seed"):
        assert getattr(loaded, name) == getattr(model, name), name
    optimizer = loaded.policy.optimizer.state_dict()["state"]
    assert len(optimizer) == len(model.policy.optimizer.state_dict()["state"]) > 0
    loaded.learn(16, reset_num_timesteps=False)
    assert loaded.num_timesteps == 40


def test_a_loaded_model_without_env_predicts_and_says_what_learning_needs(tmp_path):
    make().learn(8).save(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", device="cpu")
    action, _ = loaded.predict(np.zeros(3, dtype=np.float32))
    assert action.shape == (1,)
    assert loaded.predict_values(np.zeros((2, 3))).shape == (2,)
    with pytest.raises(ValueError, match=r"no env to learn in: call set_env\(env\)"):
        loaded.learn(8)
    loaded.set_env(pendulum())
    assert loaded.learn(8).num_timesteps == 8


def test_a_loaded_model_takes_another_number_of_envs(tmp_path):
    make().learn(8).save(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", env=pendulums(2), device="cpu")
    assert loaded.learn(16).num_timesteps == 16


def test_set_env_moves_on_to_the_new_env():
    model = make().learn(16)
    new = Cloneable(pendulum())
    model.set_env(new)
    model.learn(16, reset_num_timesteps=False)
    assert model.num_timesteps == 32 and new.num_resets >= 1
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(pendulums(2))


def test_the_best_policy_of_the_old_env_is_not_put_back_in_the_new_one():
    settings = {"expert_episodes": 0, "learning_rate": 3e-3, "target_kl": 0.1}
    model = make(make_target(target=-0.5), **settings)
    model.learn(8 * 8)
    start = np.array([0.0, 1.0], dtype=np.float32)
    old, _ = model.predict(start, deterministic=True)
    model.set_env(make_target(target=2.5, offset=-100.0))
    model.learn(8 * 30)
    new, _ = model.predict(start, deterministic=True)
    assert new > old + 0.5


@pytest.mark.parametrize("has_env", [True, False])
def test_nor_is_it_where_a_model_is_loaded_for_another_env(has_env, tmp_path):
    settings = {"expert_episodes": 0, "learning_rate": 3e-3, "target_kl": 0.1}
    model = make(make_target(target=-0.5), **settings)
    model.learn(8 * 8)
    start = np.array([0.0, 1.0], dtype=np.float32)
    old, _ = model.predict(start, deterministic=True)
    model.save(tmp_path / "model")
    harder = make_target(target=2.5, offset=-100.0)
    loaded = MPPIGPS.load(tmp_path / "model", env=harder if has_env else None)
    if not has_env:
        loaded.set_env(harder)
    loaded.learn(8 * 30)
    new, _ = loaded.predict(start, deterministic=True)
    assert new > old + 0.5


def test_simulated_steps_are_counted_from_the_start_as_real_ones_are():
    model = make(**{"expert_episodes": 0, "label_states": 0})
    first = model.learn(16).num_sim_steps
    seconds = dict(model._timer.seconds)
    assert model.learn(16, reset_num_timesteps=False).num_sim_steps > 1.5 * first
    assert model.learn(16).num_sim_steps < 1.5 * first
    assert model._timer.seconds["sample"] < 10 * seconds["sample"]


def test_the_steps_before_a_reset_are_not_joined_to_those_after_it(monkeypatch):
    asked: list[np.ndarray] = []
    label = MPPIAgent.label

    def spy(self, states, nominals=None, **kwargs):
        asked.extend(nominals)
        return label(self, states, nominals, **kwargs)

    model, watch = make(pendulum(limit=1000), expert_episodes=0, label_states=0), Watch()
    model.learn(8, watch)
    model.learn(8, watch)
    monkeypatch.setattr(MPPIAgent, "label", spy)
    horizon = model.planner.horizon
    model._get_engine().labeler.label(8 - horizon + 1, np.random.default_rng(0), None)
    assert asked
    executed = 0.5 * np.array(watch.actions).ravel()  # normalised
    for nominal in asked:
        first = int(np.abs(executed - nominal[0, 0]).argmin())
        assert first % 8 + horizon <= 8, "two episodes in one nominal"
        np.testing.assert_allclose(nominal[:, 0], executed[first : first + horizon], atol=1e-6)


def test_settings_given_to_load_count(tmp_path, monkeypatch):
    make().learn(8).save(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", env=pendulum(), n_epochs=1, target_kl=1e9)
    epochs = []
    epoch = TrustRegionUpdate._epoch
    monkeypatch.setattr(TrustRegionUpdate, "_epoch", lambda *args: epochs.append(1) or epoch(*args))
    loaded.learn(8)
    assert len(epochs) == 1


def test_eval_callback_and_checkpoints_work(tmp_path):
    model = make()
    evaluation = EvalCallback(
        pendulum(), n_eval_episodes=1, eval_freq=8, best_model_save_path=str(tmp_path), verbose=0
    )
    checkpoints = CheckpointCallback(8, str(tmp_path), verbose=0)
    model.learn(24, [evaluation, checkpoints])
    assert np.isfinite(evaluation.best_mean_reward)
    for name in ("best_model", "rl_model_8_steps", "rl_model_24_steps"):
        MPPIGPS.load(tmp_path / name, env=pendulum(), device="cpu").learn(8)


def test_checkpoints_may_include_the_labels(tmp_path):
    make().learn(8, CheckpointCallback(8, str(tmp_path), save_replay_buffer=True))


def test_evaluating_does_not_disturb_learning():
    plain = make().learn(24)
    evaluated = make()
    evaluated.learn(24, EvalCallback(pendulum(), n_eval_episodes=1, eval_freq=8, verbose=0))
    assert same(weights(plain), weights(evaluated))


def test_a_vec_env_of_processes_learns_as_one_in_this_process():
    plain = make(pendulums()).learn(32)
    processes = pendulums(vec_env_cls=SubprocVecEnv)
    try:
        model = make(processes).learn(32)
        assert model.num_timesteps == 32
        assert same(weights(plain), weights(model))
    finally:
        processes.close()


def test_vec_normalize_is_what_the_policy_sees():
    venv = VecNormalize(pendulums())
    model = make(venv).learn(32)
    raw = np.random.default_rng(0).normal(size=(6, 3)) * [1, 1, 5]
    with th.no_grad():
        expected = model.policy.predict_values(th.as_tensor(venv.normalize_obs(raw)).float())
    np.testing.assert_allclose(model.predict_values(raw), expected.numpy().ravel(), rtol=1e-5)
    evaluate_policy(model, venv, n_eval_episodes=2)
    evaluation_env = VecNormalize(pendulums(), training=False)
    model.learn(16, EvalCallback(evaluation_env, n_eval_episodes=1, eval_freq=8, verbose=0))
    np.testing.assert_allclose(evaluation_env.obs_rms.mean, venv.obs_rms.mean, atol=0.2)


def test_same_seed_same_model_and_another_seed_another():
    first, again, other = (make(seed=seed).learn(32) for seed in (0, 0, 1))
    assert same(weights(first), weights(again))
    assert first.num_sim_steps == again.num_sim_steps
    assert not same(weights(first), weights(other))


def test_the_number_of_threads_does_not_change_the_result():
    env = Cloneable(gym.make("InvertedPendulum-v5"))
    models = [
        make(
            gym.make("InvertedPendulum-v5"),
            dynamics=MujocoBatchDynamics(env, num_threads=threads),
        ).learn(32)
        for threads in (1, 2)
    ]
    assert same(*map(weights, models))


def test_the_number_of_processes_does_not_change_the_result():
    env = Cloneable(pendulum())
    local = make(dynamics=EnvStepDynamics(env)).learn(24)
    with ProcessPoolDynamics(env, num_workers=2) as pool:
        assert same(weights(local), weights(make(dynamics=pool).learn(24)))


def test_the_log_has_sb3s_keys_and_ours(tmp_path):
    logger = configure(str(tmp_path), ["csv"])
    dumped: list[set[str]] = []
    dump = logger.dump
    logger.dump = lambda step=0: (  # type: ignore[method-assign]
        dumped.append(set(logger.name_to_value)) or dump(step)
    )
    model = make(pendulum(limit=6))
    model.set_logger(logger)
    model.learn(48, log_interval=2)
    assert isinstance(model.logger, Logger) and model.logger is logger
    assert len(dumped) == 3
    assert {
        "time/iterations",
        "time/fps",
        "time/time_elapsed",
        "time/total_timesteps",
        "rollout/ep_rew_mean",
        "rollout/ep_len_mean",
        "train/learning_rate",
        "train/n_updates",
        "train/std",
        "planner/sim_steps",
        "seconds/sample",
    } <= set.union(*dumped)
    model.dump_logs()  # as LogEveryNTimesteps calls it
    assert len(model.ep_info_buffer) == 8


def test_no_log_interval_no_log(tmp_path):
    logger = configure(str(tmp_path), ["csv"])
    model = make()
    model.set_logger(logger)
    model.learn(24, log_interval=None)
    assert (tmp_path / "progress.csv").read_text() == ""


def test_learning_rate_schedules_follow_the_progress():
    seen = []

    def schedule(progress: float) -> float:
        seen.append(progress)
        return 1e-3 * progress

    make(learning_rate=schedule).learn(32)
    assert max(seen) == 1 and seen[-1] == 0.0
    assert 0.25 in seen


def test_clip_range_schedules_follow_the_progress():
    model = make(clip_range=lambda progress: 0.1 + progress)
    used = []
    original = model.train

    def train(samples):
        original(samples)
        used.append(model._update.config.clip_range)

    model.train = train
    model.learn(32)
    assert used[1:] == pytest.approx([0.6, 0.35, 0.1])  # the first round only looks


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("n_steps", 0, "n_steps must be an int >= 1, got 0"),
        ("n_steps", 2.5, "n_steps must be an int >= 1, got 2.5"),
        ("batch_size", 1, "batch_size must be an int >= 2, got 1"),
        ("num_simulations", 0, "num_simulations must be an int >= 1"),
        ("simulation_steps", 1, "simulation_steps must be an int >= 2"),
        ("eval_episodes", 0, "eval_episodes must be an int >= 1"),
        ("expert_episodes", -1, "expert_episodes must be an int >= 0"),
        ("label_states", True, "label_states must be an int >= 0"),
        ("gamma", 1.1, r"gamma must be in \(0, 1\], got 1.1"),
        ("gae_lambda", -0.1, r"gae_lambda must be in \[0, 1\]"),
        ("clip_range", 0.0, "clip_range must be > 0"),
        ("target_kl", 0, "target_kl must be > 0"),
        ("min_std", 0, "min_std must be > 0"),
        ("archive_share", 2, r"archive_share must be in \[0, 1\]"),
        ("random_share", 1.0, r"random_share must be in \[0, 1\), got 1.0"),
        ("planner_share", 1.0, r"planner_share must be in \[0, 1\)"),
        ("substeps", -1, "substeps must be an int >= 0"),
    ],
)
def test_useless_arguments_are_named(argument, value, message):
    with pytest.raises(ValueError, match=message):
        make(**{argument: value})


def test_many_expert_episodes_are_possible():
    make(make_target(), expert_episodes=300, expert_steps=2).learn(8)


@pytest.mark.parametrize("off", ["expert_episodes", "label_states", "label_steps", "planner_share"])
def test_the_planner_can_be_switched_off_in_parts(off):
    assert make(**{off: 0}).learn(24).num_timesteps == 24


def test_action_spaces_that_cannot_be_planned_in_are_refused():
    unbounded = gym.wrappers.TransformAction(
        pendulum(), lambda action: np.clip(action, -2, 2), spaces.Box(-np.inf, np.inf, (1,))
    )
    with pytest.raises(ValueError, match="unbounded: MPPIGPS samples between bounds"):
        make(unbounded)


def test_envs_that_are_not_cloneable_are_refused():
    with pytest.raises(TypeError, match="wrapper_class=Cloneable"):
        make(make_vec_env("Pendulum-v1", 2))

    class Locked(Target):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

        get_state = None

    with pytest.raises(NotCloneableError, match="lock"):
        make(Locked())
    model = make()
    with pytest.raises(TypeError, match="wrapper_class=Cloneable"):
        model.set_env(make_vec_env("Pendulum-v1", 1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: gym.wrappers.TransformReward(env, lambda reward: reward + 1000.0),
        lambda env: gym.wrappers.TimeLimit(env, 3),
        lambda env: DummyVecEnv([lambda: gym.wrappers.RescaleAction(env, -9.0, 9.0)]),
    ],
)
def test_wrappers_that_simulations_would_not_know_of_are_refused(wrap):
    with pytest.raises(ValueError, match=r"around the Cloneable .* put it inside"):
        make(wrap(Cloneable(pendulum())))


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"planner": {"horizon": 3}}, TypeError, "planner must be an MPPIConfig, or None, got"),
        ({"dynamics": "mujoco"}, TypeError, "dynamics must be a Dynamics"),
        ({"expert_policy": "ppo"}, TypeError, "expert_policy must be an SB3 model"),
        ({"policy_loss": "clipped"}, TypeError, "policy_loss must be a PolicyLoss"),
        ({"ent_coef": float("inf")}, ValueError, "ent_coef must be >= 0 and finite, got inf"),
        ({"env": 3}, TypeError, "env must be an env id, a Gymnasium env or a VecEnv, got 3"),
        ({"init_std": 0.1, "min_std": 0.2}, ValueError, r"init_std=0.1 must be >= min_std=0.2"),
        ({"policy_kwargs": {"log_std_init": -3}}, ValueError, "log_std_init=-3.* pass init_std"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named_at_once(setting, error, message):
    with pytest.raises(error, match=message):
        make(**setting)


def test_a_model_whose_noise_began_below_its_floor_is_loaded_all_the_same(tmp_path):
    model = make(min_std=0.1, init_std=0.1)
    model.min_std = 0.2  # as files from before the check may have it
    model.save(tmp_path / "model")
    assert MPPIGPS.load(tmp_path / "model").min_std == 0.2


class Broken(BaseCallback):
    def _init_callback(self):
        raise RuntimeError("no progress bar here")

    def _on_step(self):
        return True


def test_a_training_that_does_not_begin_leaves_the_best_policy():
    model = make().learn(24)
    best = weights(model)
    with pytest.raises(RuntimeError, match="no progress bar"):
        model.learn(24, callback=Broken(), reset_num_timesteps=False)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, best[name])


def test_a_seed_that_comes_later_counts_as_well():
    expected = weights(make(seed=3).learn(24))
    late = make(seed=None)
    th.manual_seed(0)
    late.set_random_seed(3)
    late.policy.load_state_dict(make(seed=3).policy.state_dict())
    late.set_random_seed(3)
    late.env.seed(3)
    assert same(weights(late.learn(24)), expected)


def test_training_goes_on_from_a_reset_where_somebody_acted_in_its_env(monkeypatch):
    model, seen, act = make(), [], PolicyView.best_actions

    def spy(view, policy, observations):
        seen.append(observations)
        return act(view, policy, observations)

    model.learn(12)
    evaluate_policy(model, model.get_env(), 1, warn=False)
    monkeypatch.setattr(PolicyView, "best_actions", spy)
    model.learn(4, reset_num_timesteps=False)
    history = model._engine.labeler._history[0]
    assert len(history) == 4
    for step, observations in zip(history, seen, strict=False):  # evaluations come after these
        np.testing.assert_allclose(step.state.observation[None], observations)


class ScriptedEvaluations:
    """Gives evaluations a score from a list and remembers the weights behind each."""

    def __init__(self, scores: list[float]) -> None:
        self.scores, self.weights = scores, []

    def __call__(self, engine: Engine, policy: Any, *, on_coarse: bool = False) -> Evaluation:
        self.weights.append({k: v.numpy().copy() for k, v in policy.state_dict().items()})
        score = self.scores[min(len(self.weights), len(self.scores)) - 1]
        return Evaluation(np.array([score]), 1)


@pytest.fixture
def scripted(monkeypatch):
    def script(scores: list[float]) -> ScriptedEvaluations:
        evaluations = ScriptedEvaluations(scores)
        monkeypatch.setattr(
            Engine, "evaluate", lambda self, policy, *_, **kw: evaluations(self, policy, **kw)
        )
        monkeypatch.setattr(Engine, "evaluation_steps", property(lambda self: 1))
        return evaluations

    return script


def test_the_best_evaluated_policy_is_kept(scripted):
    evaluations = scripted([0.0, 5.0, 1.0])
    model = make().learn(8 * 6)
    assert len(evaluations.weights) >= 4
    assert same(weights(model), evaluations.weights[1])
    assert not same(weights(model), evaluations.weights[-1])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the callback broke")])
def test_an_interruption_keeps_the_best_policy(scripted, error):
    evaluations = scripted([0.0, 5.0, 1.0])
    model = make()
    with pytest.raises(type(error)):
        model.learn(500, Watch(stop_at=44, error=error))
    assert model.num_timesteps == 44
    assert len(evaluations.weights) >= 4
    assert same(weights(model), evaluations.weights[1])
    model.learn(8, reset_num_timesteps=False)  # and it can go on
    assert same(weights(model), evaluations.weights[1])


def test_the_latest_policy_is_kept_where_it_is_the_best(scripted):
    evaluations = scripted([float(i) for i in range(100)])
    model = make().learn(8 * 5)
    assert same(weights(model), evaluations.weights[-1])


def test_ppo_carries_on_with_the_weights():
    model = make().learn(24)
    ppo = PPO(
        "MlpPolicy",
        pendulum(),
        n_steps=8,
        batch_size=8,
        policy_kwargs=model.policy_kwargs,
        device="cpu",
    )
    ppo.policy.load_state_dict(model.policy.state_dict())
    seen = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        ppo.predict(seen, deterministic=True)[0], model.predict(seen, deterministic=True)[0]
    )
    ppo.learn(8)


def test_a_new_policy_acts_in_the_middle_of_the_range_with_the_initial_noise():
    model = make(make_target(), init_std=0.25)
    seen = th.zeros((1, 2))
    distribution = model.policy.get_distribution(seen).distribution
    assert abs(distribution.mean.item() - 1.0) < 0.1  # bounds -1 and 3
    np.testing.assert_allclose(distribution.stddev.item(), 0.5, rtol=1e-5)


class DictTarget(gym.ObservationWrapper):
    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Dict(
            {"x": spaces.Box(-10, 10, (2,), dtype=np.float64), "kind": spaces.Discrete(3)}
        )

    def observation(self, observation):
        return {"x": observation.astype(np.float64), "kind": 1}


def test_dict_observations_are_learnt_from():
    env = Cloneable(gym.wrappers.TimeLimit(DictTarget(Target()), 6))
    model = make(env, "MultiInputPolicy", dynamics=EnvStepDynamics(env)).learn(24)
    action, _ = model.predict({"x": np.zeros(2), "kind": np.array(1)})
    assert action.shape == (1,) and model.num_timesteps == 24


class MatrixAction(gym.ActionWrapper):
    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.action_space = spaces.Box(-1, 3, (2, 2), dtype=np.float64)

    def action(self, action):
        return action.mean(keepdims=True)[0].astype(np.float32)


def test_actions_may_have_any_shape_and_precision():
    env = Cloneable(gym.wrappers.TimeLimit(MatrixAction(Target()), 6))
    model = make(env, dynamics=EnvStepDynamics(env)).learn(24)
    action, _ = model.predict(np.zeros(2, dtype=np.float32))
    assert action.shape == (2, 2)


def test_a_clock_stops_training():
    model = make()
    model.learn(10**7, WallClockBudget(0.3))
    assert 0 < model.num_timesteps < 10**6


def test_a_simple_task_is_learnt():
    model = make(make_target(), learning_rate=3e-3, target_kl=0.1, expert_episodes=0)
    before, _ = evaluate_policy(model, make_target(), n_eval_episodes=2, warn=False)
    model.learn(8 * 30)
    after, _ = evaluate_policy(model, make_target(), n_eval_episodes=2, warn=False)
    # Ten steps, each minus a squared distance that begins at 0.25.
    assert before < -1.5
    assert after > before / 3


@pytest.mark.slow
def test_the_pendulum_is_swung_up_within_a_small_budget():
    model = MPPIGPS("MlpPolicy", "Pendulum-v1", seed=0, device="cpu").learn(2_000)
    mean, _ = evaluate_policy(model, gym.make("Pendulum-v1"), n_eval_episodes=20, warn=False)
    assert mean > -300


def test_no_plan_ends_in_the_values_of_an_untrained_head():
    model = MPPIGPS("MlpPolicy", "Pendulum-v1", seed=0)
    assert model.leaf_value is None
    model._update.explained_variance = 0.9
    assert model.leaf_value is not None and model.leaf_value.discount == model.gamma


def test_a_backend_without_a_coarse_model_trains_on_the_true_one():
    env = Cloneable(pendulum())
    dynamics = EnvStepDynamics(env)
    model = make(env, dynamics=dynamics, substeps=2)
    with pytest.warns(UserWarning, match=r"2 substeps needs .* pass substeps=0"):
        model.learn(4)
    dynamics.close()


def test_simulations_end_with_the_episodes_of_an_env_that_cuts_them_itself():
    env = Cloneable(CutsItself(Target(), limit=5))  # raises where it is stepped any further
    model = make(env, dynamics=EnvStepDynamics(env), expert_episodes=1, label_interval=1)
    model.learn(32)
    returns = evaluate_policy(model, model.get_env(), return_episode_rewards=True)
    assert set(returns[1]) == {5}


def test_nothing_that_simulates_is_left_open_in_dynamics_that_were_passed_in():
    env = Cloneable(pendulum())
    env.reset(seed=0)
    dynamics = EnvStepDynamics(env)
    opened: list[Any] = []
    make_simulations = dynamics.simulations

    def simulations(num: int) -> Any:
        opened.append(make_simulations(num))
        return opened[-1]

    dynamics.simulations = simulations  # type: ignore[method-assign]
    model = make(env, dynamics=dynamics, expert_episodes=1)
    model.learn(16)
    model.set_env(pendulum())
    state = env.snapshot()
    assert len(opened) >= 3
    for one in opened:
        with pytest.raises(RuntimeError, match="closed"):
            one.restore([state] * one.num)
    dynamics.initial_states(1, np.random.default_rng(0))  # itself is the caller's to close
    dynamics.close()


def test_a_clock_ends_with_the_training_that_it_was_set_for():
    model = make()
    with pytest.raises(KeyboardInterrupt):
        model.learn(100, [WallClockBudget(1e-9 + 60), Watch(5, error=KeyboardInterrupt())])
    assert model.clock is None
