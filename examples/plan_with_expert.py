"""Let the expert act by planning alone: no training, no cost function."""

from mppi_agent import MPPIAgent

expert = MPPIAgent("Pendulum-v1", seed=0)
observation, _ = expert.env.reset(seed=0)
total = 0.0
for _ in range(200):
    action, _ = expert.predict(observation)
    observation, reward, terminated, truncated, _ = expert.env.step(action)
    total += float(reward)
print(f"return {total:.1f} with {expert.sim_steps:,} simulated steps (random: about -1200)")
