"""Bring an env of your own: two methods make its state cloneable, exactly."""

from typing import Any

import gymnasium as gym
import numpy as np

from mppi_agent import MPPIAgent, MPPIConfig, check_cloneable


class Docking(gym.Env):
    """Stop a cart at the origin; thrust is limited."""

    action_space = gym.spaces.Box(-1.0, 1.0, (1,))
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start anywhere within 2 m, at rest."""
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-2, 2), 0.0])
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> Any:
        """Accelerate."""
        position, speed = self.state
        speed += 0.1 * float(action[0])
        self.state = np.array([position + 0.1 * speed, speed])
        return self.state.copy(), -float(np.square(self.state).sum()), False, False, {}

    def get_state(self) -> np.ndarray:
        """Return all that the next step depends on."""
        return self.state.copy()

    def set_state(self, state: np.ndarray) -> None:
        """Put a state back."""
        self.state = state.copy()


env = Docking()
print(check_cloneable(env))
expert = MPPIAgent(env, MPPIConfig(horizon=30, knot_spacing=5), seed=0)
observation, _ = expert.env.reset(seed=1)
for _ in range(60):
    action, _ = expert.predict(observation)
    observation, *_ = expert.env.step(action)
print(f"distance after 60 steps: {abs(observation[0]):.3f}")
expert.close()
