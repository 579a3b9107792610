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


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return `; did you mean 'a', 'b'?`, or an empty string when nothing is close."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=count, cutoff=0.5)
    if not close:
        return ""
    return "; did you mean " + ", ".join(repr(lowered[match]) for match in close) + "?"
