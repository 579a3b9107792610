"""Every exception that foretrain raises on purpose, under one base.

    ForetrainError
    ├── ProfileError       a profile file: missing, malformed, wrong unit, unknown key
    ├── UnknownNameError   a name that no library holds
    ├── ModelError         a model that cannot be built or cut as asked
    ├── PlanError          a layout that cannot be placed
    ├── RecipeError        a training recipe that contradicts itself
    ├── UsageError         a wrong option or value on the command line
    └── OutputError        a place that cannot be written

Each is also the builtin that a caller would expect. Messages name the subject, the value, what was expected and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ForetrainError(Exception):
    """A mistake in what foretrain was given, said in one to three lines."""


class ProfileError(ForetrainError, ValueError):
    """A profile that cannot be read; `faults` lists every one found in the file."""

    def __init__(self, message: str, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class UnknownNameError(ForetrainError, LookupError):
    """A name that the library does not hold."""


class ModelError(ForetrainError, ValueError):
    """A model that cannot be built, or not be cut the way the plan asks."""


class PlanError(ForetrainError, ValueError):
    """A layout that cannot be placed on the cluster or does not divide the model."""


class RecipeError(ForetrainError, ValueError):
    """A recipe that contradicts itself or that the hardware cannot run."""


class UsageError(ForetrainError, ValueError):
    """A wrong option or value."""


class OutputError(ForetrainError, OSError):
    """A file or folder that cannot be written."""


def shortened(value: object, longest: int = 100) -> str:
    """Return a value as Python writes it, cut where it is long: what a message repeats of what it was given."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}…"


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return `; did you mean 'a', 'b'?`, or an empty string when nothing is close."""
    lowered: dict[str, list[str]] = {}
    for candidate in known:
        lowered.setdefault(candidate.lower(), []).append(candidate)
    close = difflib.get_close_matches(name.lower(), list(lowered), n=count, cutoff=0.5)
    if not close:
        return ""
    found = [candidate for match in close for candidate in lowered[match]][:count]
    return "; did you mean " + ", ".join(repr(one) for one in found) + "?"
