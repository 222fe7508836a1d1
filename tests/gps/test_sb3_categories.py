"""Discrete and MultiDiscrete actions, as SB3's tests try them.

The name behind "SB3:" is the test there that ours stands for.
"""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvMultiDiscrete
from stable_baselines3.common.evaluation import evaluate_policy
from toy_envs import TargetOf
from toy_models import small

from mppi_agent.gps import MPPIGPS


class SeededChoice(IdentityEnv):
    """SB3's env with its states drawn from the env's own generator, which can be cloned."""

    def _choose_next_state(self):
        self.state = int(self.np_random.integers(self.action_space.n))


class SeededChoices(IdentityEnvMultiDiscrete):
    """The same with two categories at once."""

    def _choose_next_state(self):
        self.state = self.np_random.integers(self.action_space.nvec)


@pytest.mark.parametrize("make_env", [SeededChoice, SeededChoices])
def test_categories_are_learnt(make_env):
    """SB3: test_identity::test_discrete, where the right action is the one that is seen."""
    env = make_env(3, ep_length=20)
    model = small(
        env, gamma=0.5, learning_rate=1e-2, target_kl=0.1, expert_episodes=0, label_states=0
    )
    before, _ = evaluate_policy(model, env, n_eval_episodes=2, warn=False)
    model.learn(4 * 60)
    after, _ = evaluate_policy(model, env, n_eval_episodes=2, warn=False)
    assert before < 16  # by chance: 20 / 3, or 20 / 9 where both categories must be right
    assert after >= 18


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3])], ids=["Discrete", "MultiDiscrete"]
)
def test_categories_are_planned_labelled_saved_and_handed_to_ppo(space, tmp_path):
    """SB3: test_action_spaces, test_discrete_obs_space, test_save_load."""
    model = small(TargetOf(action_space=space), label_interval=1).learn(24)
    assert model.num_timesteps == 24
    report = model._get_engine().labeler.label(1, np.random.default_rng(0), model.leaf_value)
    assert report is not None and report.num_states == 1
    labels = model.replay_buffer.sample(20, 0, np.random.default_rng(0))
    assert labels is not None and all(space.contains(action) for action in labels.actions)
    seen = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    actions, _ = model.predict(seen, deterministic=True)
    assert all(space.contains(action) for action in actions)
    assert space.contains(model.predict(seen[0])[0])
    model.save(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", env=TargetOf(action_space=space), device="cpu")
    np.testing.assert_array_equal(actions, loaded.predict(seen, deterministic=True)[0])
    loaded.learn(8, reset_num_timesteps=False)
    kwargs = model.policy_kwargs
    ppo = PPO("MlpPolicy", TargetOf(action_space=space), policy_kwargs=kwargs, device="cpu")
    ppo.policy.load_state_dict(model.policy.state_dict())
    np.testing.assert_array_equal(actions, ppo.predict(seen, deterministic=True)[0])


def test_an_expert_of_categories_leads_its_student():
    """The planner's choices become the student's: cross entropy, weighted by what they gain."""
    settings = {"planner_share": 0.9, "label_interval": 1, "expert_episodes": 4, "expert_steps": 20}
    env = SeededChoice(3, ep_length=20)
    model = small(env, **settings, label_steps=400, learning_rate=1e-2, target_kl=1e-6)
    model.learn(4 * 12)
    after, _ = evaluate_policy(model, env, n_eval_episodes=2, warn=False)
    assert after >= 18


def test_bits_are_refused_with_the_cure():
    """SB3: test_multidim_binary_not_supported."""
    env = TargetOf(action_space=spaces.MultiBinary(2))
    with pytest.raises(ValueError, match=r"a Discrete or a MultiDiscrete.*\[2\] \* n\) for Mult"):
        small(env)
