"""Time and power of training on one GPU against its power limit: measured sweeps beside what the simulator says.

A sweep gives neither the samples of an epoch nor the precision, so the time at the highest limit of its job is taken as measured and
what is judged is how much longer the lower limits take. The average power is predicted outright.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from foretrain.errors import ForetrainError, ProfileError
from foretrain.sim.prediction import Prediction
from foretrain.validate.answers import Progress
from foretrain.validate.cells import Row, number, text
from foretrain.validate.limit_workloads import Sweep, sweep_of
from foretrain.validate.runs_file import Line
from foretrain.validate.summary import Outcome

COLUMNS = ("time_per_epoch", "average_power")
QUANTITIES = ("time_s", "mean_power_w")
JOB = ("gpu", "dataset", "network", "batch_size", "optimizer")
REFERENCE = "reference"
"""Subset of the rows at the highest limit, whose time is the measured one by construction."""


def limit_outcomes(lines: Sequence[Line], *, progress: Progress | None = None) -> list[Outcome]:
    """Return two outcomes per line: time, relative to the highest limit of its job, and average power."""
    sweeps = Sweeps([line.cells for line in lines if not line.fault])
    outcomes = []
    for index, line in enumerate(lines):
        outcomes += list(_outcomes(index, line, sweeps))
        if progress is not None:
            progress(index + 1, len(lines))
    return outcomes


class Sweeps:
    """The rows of a file by job, and the simulation of each job and limit, played once."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._top: dict[tuple[str, ...], tuple[float, float]] = {}
        for row in rows:
            if _sound(row):
                here = (_needed(row, "power_limit"), _needed(row, "time_per_epoch"))
                self._top[_job(row)] = max(here, self._top.get(_job(row), (0.0, 0.0)))
        self._jobs: dict[tuple[str, ...], Sweep | ForetrainError] = {}
        self._played: dict[tuple[tuple[str, ...], float], Prediction] = {}

    def answer(self, row: Row) -> tuple[tuple[float, float], tuple[str, ...], bool]:
        """Return the predicted time and power of a row, what was assumed, and whether it is the row at the highest limit.

        Raises:
            ForetrainError: where the row cannot be simulated.
        """
        limit_w = _needed(row, "power_limit")
        top_w, top_s = self._top[_job(row)]
        here, there = self._play(row, limit_w), self._play(row, top_w)
        assumed = (*self._sweep(row).assumed, f"time scaled to what was measured at {top_w:g} W")
        return (top_s * here.step_s / there.step_s, here.power["accelerator_mean_w"]), assumed, limit_w == top_w

    def _play(self, row: Row, limit_w: float) -> Prediction:
        key = (_job(row), limit_w)
        if key not in self._played:
            self._played[key] = self._sweep(row).at(limit_w)
        return self._played[key]

    def _sweep(self, row: Row) -> Sweep:
        key = _job(row)
        if key not in self._jobs:
            try:
                self._jobs[key] = sweep_of(row)
            except ForetrainError as error:
                self._jobs[key] = error
        found = self._jobs[key]
        if isinstance(found, ForetrainError):
            raise found
        return found


def _outcomes(index: int, line: Line, sweeps: Sweeps) -> Iterator[Outcome]:
    blank = _blank(index, line.cells)
    try:
        if line.fault:
            raise ProfileError(line.fault)
        measured = [_needed(line.cells, name) for name in COLUMNS]
        predicted, assumed, top = sweeps.answer(line.cells)
    except ForetrainError as error:
        reason = str(error).replace("\n", " ")
        yield from (replace(blank, quantity=name, reason=reason) for name in QUANTITIES)
        return
    for name, was, says in zip(QUANTITIES, measured, predicted, strict=True):
        subset = REFERENCE if top and name == "time_s" else "core"
        yield replace(blank, quantity=name, measured=was, predicted=says, assumed=assumed, subset=subset)


def _blank(index: int, row: Row) -> Outcome:
    name = "|".join(text(row, column) for column in (*JOB, "power_limit"))
    return Outcome(
        row=index, id=name, quantity="", measured=None, predicted=None, fits=None, assumed=(), reason="",
        source=f"{text(row, 'network')} on {text(row, 'dataset')}", accelerator=text(row, "gpu"), framework="",
        layout=f"{text(row, 'power_limit')} W", subset="core", complete=True, config_key=name,
    )  # fmt: skip


def _job(row: Row) -> tuple[str, ...]:
    return tuple(text(row, column) for column in JOB)


def _sound(row: Row) -> bool:
    try:
        return all(_needed(row, column) for column in (*COLUMNS, "power_limit"))
    except ForetrainError:
        return False


def _needed(row: Row, column: str) -> float:
    value = number(row, column)
    if value is None:
        raise ProfileError(f"{column} is empty; a number above zero is expected")
    return value
