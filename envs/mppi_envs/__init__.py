"""Tasks where exploration is the problem; importing this package registers them.

gym.make("mppi_envs/CartPoleSwingUp-v0")             # after import mppi_envs
gym.make("mppi_envs:mppi_envs/CartPoleSwingUp-v0")   # imports it
"""

from __future__ import annotations

import gymnasium as gym

__all__ = ["ENV_IDS"]

# Name: (entry point, time limit in control steps).
_ENVS = {
    "CartPoleSwingUp": ("mppi_envs.cart_pole:CartPoleSwingUpEnv", 200),
    "DoublePendulumSwingUp": ("mppi_envs.double_pendulum:DoublePendulumSwingUpEnv", 300),
    "BallInCup": ("mppi_envs.ball_in_cup:BallInCupEnv", 200),
    "PointMaze": ("mppi_envs.point_maze:PointMazeEnv", 200),
    "ReachAround": ("mppi_envs.reach_around:ReachAroundEnv", 75),
    "Pusher": ("mppi_envs.pusher:PusherEnv", 200),
    "GetUp": ("mppi_envs.get_up:GetUpEnv", 100),
    "AntMaze": ("mppi_envs.ant_maze:AntMazeEnv", 300),
    "MultiTaskArm": ("mppi_envs.multi_task_arm:MultiTaskArmEnv", 100),
    "MultiTaskArmDict": ("mppi_envs.multi_task_arm:MultiTaskArmDictEnv", 100),
}

ENV_IDS = tuple(f"mppi_envs/{name}-v0" for name in _ENVS)

for _name, (_entry_point, _max_episode_steps) in _ENVS.items():
    gym.register(
        f"mppi_envs/{_name}-v0", entry_point=_entry_point, max_episode_steps=_max_episode_steps
    )
