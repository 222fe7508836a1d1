"""The planner: pure numpy, from env states and a nominal to the best measured plan.

white noise --knots--> samples --Dynamics.rollout--> returns --temperature--> weights --> mean
"""

from mppi_agent.planning.actions import (
    ActionScaling,
    BoxScaling,
    CategoryScaling,
    shift_nominal,
)
from mppi_agent.planning.config import MPPIConfig, Role
from mppi_agent.planning.feedback import Feedback, Following, Reflexes
from mppi_agent.planning.lqr import IterativeLQR
from mppi_agent.planning.mppi import MPPI
from mppi_agent.planning.noise import (
    KnotBasis,
    cubic_basis,
    linear_basis,
    noise_matrix,
    sample_noise,
)
from mppi_agent.planning.novelty import Novelty
from mppi_agent.planning.objective import Objective, Term, Trajectories
from mppi_agent.planning.preset_file import load_preset, preset_line, save_preset
from mppi_agent.planning.presets import ALONE, ON_TOP, ON_TOP_OF_ANY, PRESETS
from mppi_agent.planning.proposals import ConstantPlan, Demonstrations, Proposer
from mppi_agent.planning.returns import LeafValue, discounted_returns
from mppi_agent.planning.terms import (
    ActionRate,
    Constraint,
    LostFuture,
    OngoingReward,
    PolicyPrior,
    RewardTerm,
)
from mppi_agent.planning.weights import (
    effective_sample_size,
    softmax_weights,
    temperature_for_ess,
)

__all__ = [
    "ALONE",
    "MPPI",
    "ON_TOP",
    "ON_TOP_OF_ANY",
    "PRESETS",
    "ActionRate",
    "ActionScaling",
    "BoxScaling",
    "CategoryScaling",
    "ConstantPlan",
    "Constraint",
    "Demonstrations",
    "Feedback",
    "Following",
    "IterativeLQR",
    "KnotBasis",
    "LeafValue",
    "LostFuture",
    "MPPIConfig",
    "Novelty",
    "Objective",
    "OngoingReward",
    "PolicyPrior",
    "Proposer",
    "Reflexes",
    "RewardTerm",
    "Role",
    "Term",
    "Trajectories",
    "cubic_basis",
    "discounted_returns",
    "effective_sample_size",
    "linear_basis",
    "load_preset",
    "noise_matrix",
    "preset_line",
    "sample_noise",
    "save_preset",
    "shift_nominal",
    "softmax_weights",
    "temperature_for_ess",
]
