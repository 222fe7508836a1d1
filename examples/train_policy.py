"""Train a policy for 20 seconds, evaluate it on resets it never saw, save it and load it."""

from stable_baselines3.common.evaluation import evaluate_policy

from mppi_agent import MPPIGPS
from mppi_agent.gps.callbacks import WallClockBudget

model = MPPIGPS("MlpPolicy", "MountainCarContinuous-v0", seed=0)
model.learn(10**9, callback=WallClockBudget(seconds=20))
model.save("mountain_car")

loaded = MPPIGPS.load("mountain_car", env="MountainCarContinuous-v0")
mean, std = evaluate_policy(loaded, loaded.get_env(), n_eval_episodes=20)
print(f"return {mean:.1f} +- {std:.1f} (solved above 90)")
