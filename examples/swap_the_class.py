"""Train PPO, SAC and MPPIGPS on one pipeline: nothing but the class changes."""

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from mppi_agent import MPPIGPS, Cloneable

for algorithm in (PPO, SAC, MPPIGPS):
    env = VecNormalize(make_vec_env("Pendulum-v1", seed=0, wrapper_class=Cloneable))
    eval_env = VecNormalize(make_vec_env("Pendulum-v1", seed=1), training=False, norm_reward=False)
    evaluation = EvalCallback(eval_env, n_eval_episodes=10, eval_freq=400, verbose=0)
    model = algorithm("MlpPolicy", env, learning_rate=3e-4, seed=0).learn(1_200, evaluation)
    print(f"{algorithm.__name__}: return {evaluation.last_mean_reward:.0f} after 1,200 env steps")

print(f"MPPIGPS simulated {model.num_sim_steps:,} steps beside them")
