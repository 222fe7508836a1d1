"""A progress bar on stderr, where one can be shown."""

from __future__ import annotations

from types import TracebackType
from typing import Any

__all__ = ["Progress"]


class Progress:
    """Show how far a long piece of work has come; use it as a context manager.

    Shown when stderr is a terminal and tqdm (extra `progress`) is there, silent otherwise.

    Args:
        label: What is going on, in a word or two.
        total: Amount of work.
        unit: Of `total`.
        is_shown: False keeps it silent.
    """

    def __init__(self, label: str, total: float, unit: str, *, is_shown: bool = True) -> None:
        self._label, self._total, self._unit, self._is_shown = label, total, unit, is_shown
        self._bar: Any = None

    def __enter__(self) -> Progress:
        """Draw the bar."""
        if self._is_shown:
            try:
                from tqdm import tqdm
            except ImportError:
                return self
            # disable=None: silent where stderr is no terminal.
            layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit}{postfix}"
            self._bar = tqdm(
                total=self._total,
                desc=self._label,
                unit=self._unit,
                bar_format=layout,
                disable=None,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def advance(self, done: float = 1) -> None:
        """Add finished work.

        Args:
            done: In units of `total`, since the last call.
        """
        if self._bar is not None:
            self.reach(self._bar.n + done)

    def note(self, text: str) -> None:
        """Show figures behind the bar, from its next advance on."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def reach(self, done: float) -> None:
        """Set the finished work.

        Args:
            done: In units of `total`, since the start.
        """
        if self._bar is not None:
            self._bar.update(min(done, self._total) - self._bar.n)
