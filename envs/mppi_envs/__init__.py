"""Gymnasium environments of this project; importing this package registers them."""

from __future__ import annotations

__all__: list[str] = []
