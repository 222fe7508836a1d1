"""Let Ctrl-C end training between two steps, so that what is saved goes on bit for bit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

__all__ = ["StopOnSignal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(BaseCallback):
    """Stop training when a signal asks for it; use it as a context manager, too.

    The first Ctrl-C or SIGTERM ends training after the round at hand, a second one at once, as a
    `KeyboardInterrupt`. Outside the main thread signals are left alone.

    Args:
        report: Gets a line when the first signal arrives.

    Attributes:
        signal: The one that arrived; None so far.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__()
        self.signal: signal.Signals | None = None
        self._report = report
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopOnSignal:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            self._earlier = {one: signal.signal(one, self._receive) for one in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let signals do what they did before."""
        for one, handler in self._earlier.items():
            signal.signal(one, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self._report("stopping after this round; Ctrl-C again stops at once")

    def _on_step(self) -> bool:
        return self.signal is None
