"""Guided policy search on Stable-Baselines3."""

from __future__ import annotations

from mppi_agent.gps.mppi_gps import MPPIGPS

__all__ = ["MPPIGPS"]
