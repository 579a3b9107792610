"""Degrees near the one that was asked for, for messages."""

from __future__ import annotations


def divisors(number: int) -> list[int]:
    """Return all divisors in rising order."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def closest(wanted: int, options: list[int], count: int = 4) -> str:
    """Return the options nearest to what was asked, in rising order, for a message."""
    return ", ".join(str(option) for option in sorted(sorted(options, key=lambda option: abs(option - wanted))[:count]))
