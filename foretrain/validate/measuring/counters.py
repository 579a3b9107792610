"""What counts joules, and how a counter says that it cannot."""

from __future__ import annotations

from typing import Protocol


class UnavailableError(Exception):
    """A reading that this machine does not give; its text is the reason. Never shown as an error: the figure is then unavailable."""


class Counter(Protocol):
    """Counts joules between `start` and `stop`."""

    source: str
    """What the figure is said to come from."""

    def start(self) -> None:
        """Begin a window, or raise UnavailableError."""

    def stop(self) -> float:
        """Return the joules since `start`, or raise UnavailableError."""
