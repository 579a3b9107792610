"""Time and energy of a pipeline stage against the clock: measured sweeps beside what the simulator says.

A sweep gives neither its tensor degree nor its micro-batch nor its length, so each instruction of each stage is scaled to its
measurement at the highest clock; what is judged is the shape below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from foretrain.errors import ForetrainError, ProfileError
from foretrain.units import parse
from foretrain.validate.answers import Progress
from foretrain.validate.cells import Row, number, text
from foretrain.validate.clock_jobs import Sweep, sweep
from foretrain.validate.runs_file import Line
from foretrain.validate.summary import Outcome

QUANTITIES = ("time_s", "energy_j")
IDENTIFYING = ("model", "accelerator", "stage", "instruction", "sm_clock_MHz")


def clock_outcomes(lines: Sequence[Line], *, progress: Progress | None = None) -> list[Outcome]:
    """Return two outcomes per line, time and energy, each scaled to its measurement at the highest clock of its instruction."""
    sweeps = Sweeps([line.cells for line in lines if not line.fault])
    outcomes = [outcome for index, line in enumerate(lines) for outcome in _outcomes(index, line, sweeps)]
    if progress is not None:
        progress(len(lines), len(lines))
    return outcomes


class Sweeps:
    """The rows of a file by job and by instruction, and the simulation of each job, played once."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [row for row in rows if _sound(row)]
        self._known: dict[tuple[str, str], Sweep | ForetrainError] = {}

    def answer(self, row: Row) -> tuple[tuple[float, float], tuple[str, ...]]:
        """Return the predicted time and energy of a row, and what was assumed.

        Raises:
            ForetrainError: where the row cannot be simulated.
        """
        job = self._job(row)
        top = self._top(row, job)
        here, there = self._predicted(job, row), self._predicted(job, top)
        scaled = [_needed(top, name) / at_top * value for name, value, at_top in zip(QUANTITIES, here, there, strict=True)]
        return (scaled[0], scaled[1]), (*job.assumed, f"scaled to what was measured at {text(top, 'sm_clock_MHz')} MHz")

    def _predicted(self, job: Sweep, row: Row) -> tuple[float, float]:
        point = job.point(self._place(row), text(row, "instruction"), _clock_hz(row))
        return point.time_s, point.energy_j

    def _place(self, row: Row) -> str:
        """Return where in the pipeline the stages of a row lie; the last stage has the head of the model, the first its embedding."""
        stages = {stage for other in self._alike(row) for stage in _stages(other)}
        mine = _stages(row)
        if len(stages) > 1 and mine in ([min(stages)], [max(stages)]):
            return "last" if mine == [max(stages)] else "first"
        return "middle"

    def _job(self, row: Row) -> Sweep:
        key = (text(row, "model"), text(row, "accelerator"))
        if key not in self._known:
            alike = self._alike(row)
            stages = 1 + max(stage for other in alike for stage in _stages(other))
            drawn_w = max(_needed(other, "energy_j") / _needed(other, "time_s") for other in alike)
            try:
                clocks_hz = sorted({_clock_hz(other) for other in alike})
                self._known[key] = sweep(*key, stages, clocks_hz, precision=text(row, "precision"), drawn_w=drawn_w)
            except ForetrainError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, ForetrainError):
            raise found
        return found

    def _alike(self, row: Row) -> list[Row]:
        return [other for other in self.rows if all(text(other, name) == text(row, name) for name in ("model", "accelerator"))]

    def _top(self, row: Row, job: Sweep) -> Row:
        """Return the row of the highest clock that the profile can run, of the same stages and instruction."""
        same = [other for other in self._alike(row) if all(text(other, name) == text(row, name) for name in ("stage", "instruction"))]
        return max((other for other in same if job.runs_at(_clock_hz(other))), key=_clock_hz, default=row)


def _outcomes(index: int, line: Line, sweeps: Sweeps) -> Iterator[Outcome]:
    blank = _blank(index, line.cells)
    try:
        if line.fault:
            raise ProfileError(line.fault)
        measured = [_needed(line.cells, name) for name in (*QUANTITIES, "sm_clock_MHz")]
        _stages(line.cells)
        predicted, assumed = sweeps.answer(line.cells)
    except ForetrainError as error:
        yield from (replace(blank, quantity=name, reason=str(error)) for name in QUANTITIES)
        return
    for name, was, says in zip(QUANTITIES, measured, predicted, strict=False):
        yield replace(blank, quantity=name, measured=was, predicted=says, assumed=assumed)


def _blank(index: int, row: Row) -> Outcome:
    return Outcome(
        row=index, id="|".join(text(row, name) for name in IDENTIFYING), quantity="", measured=None, predicted=None, fits=None,
        assumed=(), reason="", source=text(row, "source"), accelerator=text(row, "accelerator"), framework="",
        layout=text(row, "instruction"), subset="core", complete=True, config_key="",
    )  # fmt: skip


def _sound(row: Row) -> bool:
    """Tell whether a row can be part of a sweep; one that cannot is refused by itself."""
    try:
        _stages(row)
        return all(_needed(row, name) for name in (*QUANTITIES, "sm_clock_MHz"))
    except ForetrainError:
        return False


def _stages(row: Row) -> list[int]:
    words = text(row, "stage").split()
    if not words or not all(word.isdecimal() for word in words):
        raise ProfileError(f"stage is {text(row, 'stage')!r}; whole numbers from 0 are expected")
    return [int(word) for word in words]


def _clock_hz(row: Row) -> float:
    return _needed(row, "sm_clock_MHz") * parse("1 MHz", "Hz")


def _needed(row: Row, column: str) -> float:
    value = number(row, column)
    if value is None:
        raise ProfileError(f"{column} is empty; a number above zero is expected")
    return value
