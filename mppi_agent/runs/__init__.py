"""Training runs that live in a folder: `mppi-agent train`, `eval` and `plot`.

file + command line --> RunConfig --train--> run folder --resume--> the same run, further on
                                                 |--> evaluate a model, draw learning curves
"""

from __future__ import annotations

from mppi_agent.runs.config import RunConfig
from mppi_agent.runs.session import Console, RunResult
from mppi_agent.runs.train import resume, train

__all__ = ["Console", "RunConfig", "RunResult", "resume", "train"]
