"""Robust least squares on the numbers of a machine: bounded, held to what they were, and honest about what the data do not say.

Numbers are fitted by their logarithms. A residual is log(predicted / measured) under a soft-L1 loss; each number has a normal prior around
what it was. A number about which the data say little more than its prior stays what it was, and is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretrain.errors import UsageError
from foretrain.validate.calibration.machine import Machine

Vector = NDArray[np.float64]
Errors = Callable[[Machine], Vector]
"""log(predicted / measured) of all measurements; NaN where a machine cannot be predicted."""

LOSS_SCALE = 0.05
"""Residuals beyond this share count linearly."""
TOLD = 0.7
"""Share of its prior's width below which a number's uncertainty must fall to be called identified."""
AT_BOUND = 1e-3
STEP = 0.05
"""Relative, of a sensitivity: what ±5 % of a number does to predictions."""
XTOL, FTOL = 1e-4, 1e-4
"""Relative steps and gains at which a fit ends: far below what the measurements are known to."""
LOST = 3.0
"""Residual of a measurement that a machine cannot be predicted for: a factor of twenty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A number that may be fitted: its path, the range that is physical, and the standard deviation of its logarithm before the fit."""

    path: str
    low: float
    high: float
    width: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What became of a knob. `sensitivity` is the mean change of the predictions, in logarithms, for 5 % of it."""

    path: str
    base: float
    value: float
    uncertainty: float
    sensitivity: float
    identified: bool
    at_bound: bool


def fit(machine: Machine, knobs: Sequence[Knob], errors: Errors) -> tuple[Machine, tuple[Fitted, ...]]:
    """Return the machine that the measurements are fitted best by, and what became of each knob.

    Raises:
        UsageError: where scipy is missing.
    """
    known = [knob for knob in knobs if machine.has(knob.path)]
    if not known:
        return machine, ()
    chosen = [knob for knob, one in zip(known, _said(machine, known, errors), strict=True) if one.uncertainty < TOLD * knob.width]
    fitted = _solve(machine, chosen, errors) if chosen else machine
    said = _said(fitted, known, errors)
    return fitted, tuple(_became(knob, machine, fitted, one, is_told=knob in chosen) for knob, one in zip(known, said, strict=True))


def refit(machine: Machine, fitted: Machine, became: Sequence[Fitted], knobs: Sequence[Knob], errors: Errors) -> Machine:
    """Return what a fit comes to with other measurements of the same kind: the same numbers are free, and it begins at their values."""
    chosen = [knob for knob in knobs if any(one.path == knob.path and one.identified for one in became)]
    return _solve(machine, chosen, errors, fitted) if chosen else machine


class Said(NamedTuple):
    """What the data say of a number: the standard deviation that they leave its logarithm, and how they move with 5 % of it."""

    uncertainty: float
    sensitivity: float


def _solve(machine: Machine, knobs: Sequence[Knob], errors: Errors, begin: Machine | None = None) -> Machine:
    least_squares = _least_squares()
    start, first = (np.array([_log(one, knob) for knob in knobs]) for one in (machine, begin or machine))
    low, high = (np.array([math.log(getattr(knob, name)) for knob in knobs]) for name in ("low", "high"))
    inside = np.clip(first, low + 1e-6, high - 1e-6)
    count = len(errors(machine))

    def residuals(logs: Vector) -> Vector:
        found = _sound(errors(_at(machine, knobs, logs))) / LOSS_SCALE
        robust = np.sign(found) * np.sqrt(2 * (np.sqrt(1 + found**2) - 1))
        prior = (logs - start) / [knob.width for knob in knobs]
        return np.concatenate([robust, prior * _held(count)])

    found = least_squares(residuals, inside, bounds=(low, high), x_scale=0.1, diff_step=1e-3, max_nfev=40, xtol=XTOL, ftol=FTOL)
    return _at(machine, knobs, found.x)


def _held(count: int) -> float:
    """Return the weight of a prior: that of a whole measurement where there are few, and less where many speak for themselves."""
    return min(1.0, 3.0 / math.sqrt(max(count, 1)))


def _said(machine: Machine, knobs: Sequence[Knob], errors: Errors) -> list[Said]:
    """Return for each knob what the data say of it, together with the others.

    **Source:** the inverse of the information matrix, as in any text on least squares (Bates and Watts, 1988, section 2.2.3).
    """
    base = _sound(errors(machine))
    moved = np.stack([_sound(errors(_nudged(machine, knob, STEP))) - base for knob in knobs], axis=1)
    slopes = moved / (math.log1p(STEP) * LOSS_SCALE)
    information = slopes.T @ slopes + np.diag([knob.width**-2 for knob in knobs])
    uncertain = np.sqrt(np.diag(np.linalg.inv(information)))
    return [Said(float(sd), float(mean)) for sd, mean in zip(uncertain, np.abs(moved).mean(axis=0), strict=True)]


def _became(knob: Knob, before: Machine, after: Machine, said: Said, *, is_told: bool) -> Fitted:
    value = after.number(knob.path)
    bounds = (math.log(max(value, 1e-300) / knob.low), math.log(knob.high / max(value, 1e-300)))
    return Fitted(
        path=knob.path, base=before.number(knob.path), value=value, uncertainty=said.uncertainty, sensitivity=said.sensitivity,
        identified=is_told, at_bound=is_told and min(bounds) < AT_BOUND,
    )  # fmt: skip


def _nudged(machine: Machine, knob: Knob, step: float) -> Machine:
    return machine.set({knob.path: max(machine.number(knob.path), knob.low) * (1 + step)})


def _log(machine: Machine, knob: Knob) -> float:
    return math.log(min(max(machine.number(knob.path), knob.low), knob.high))


def _at(machine: Machine, knobs: Sequence[Knob], logs: Vector) -> Machine:
    return machine.set({knob.path: math.exp(value) for knob, value in zip(knobs, logs, strict=True)})


def _sound(errors: Vector) -> Vector:
    return np.clip(np.nan_to_num(errors, nan=LOST, posinf=LOST, neginf=-LOST), -LOST, LOST)


def _least_squares() -> Any:
    try:
        from scipy.optimize import least_squares  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(f"a calibration needs scipy ({error}); install it: pip install 'foretrain[calibrate]'") from error
    return least_squares
