"""Plays orders without an engine: each pass waits for its neighbour on its line, and takes the seconds of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foretrain.sim.schedules.base import BACKWARD, FORWARD, INPUT, WEIGHT, Schedule, unrolled
from foretrain.sim.schedules.seats import Line, Seat

Pass = tuple[int, int, int]
Step = tuple[Pass, ...]
"""Passes that run as one."""
Done = dict[tuple[bool, int, int, int], float]
"""When a pass of (forward or backward, line, part, micro-batch) ended."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """When a stage begins its first pass and ends its last, and how long it works."""

    first_s: float
    last_s: float
    work_s: float

    @property
    def bubble_s(self) -> float:
        """Seconds between the first pass and the last in which the stage waits."""
        return self.last_s - self.first_s - self.work_s


def steps(schedule: Schedule, *, stage: int, stages: int, chunks: int, microbatches: int) -> list[Step]:
    """Return what a stage runs as (kind, chunk, micro-batch), passes that run as one together."""
    order = schedule.order(stage=stage, stages=stages, chunks=chunks, microbatches=microbatches)
    numbered = unrolled(order)
    return [tuple(next(numbered) for _ in step.actions) for run in order for _ in range(run.repeat) for step in run.body]


def play(schedule: Schedule, *, stages: int, chunks: int, microbatches: int, seconds: Mapping[int, float]) -> list[Span]:
    """Return the span of every stage."""
    orders = [steps(schedule, stage=stage, stages=stages, chunks=chunks, microbatches=microbatches) for stage in range(stages)]
    lines = schedule.seats.lines(stages=stages, chunks=chunks)
    seats = {seat: (number, part) for number, line in enumerate(lines) for part, seat in enumerate(line)}
    done: Done = {}
    position, clock = [0] * stages, [0.0] * stages
    first: list[float | None] = [None] * stages
    while any(position[stage] < len(orders[stage]) for stage in range(stages)):
        before = sum(position)
        for stage, order in enumerate(orders):
            while position[stage] < len(order):
                step = order[position[stage]]
                ready = _ready(done, lines, seats, stage, step)
                if ready is None:
                    break
                start = max(clock[stage], ready)
                first[stage] = start if first[stage] is None else first[stage]
                clock[stage] = start + sum(seconds[kind] for kind, _, _ in step)
                _note(done, seats, stage, step, clock[stage])
                position[stage] += 1
        assert sum(position) > before, "the orders wait for each other"
    work = [sum(seconds[kind] for step in order for kind, _, _ in step) for order in orders]
    return [Span(first_s=first[s] or 0.0, last_s=clock[s], work_s=work[s]) for s in range(stages)]


def _ready(done: Done, lines: Sequence[Line], seats: Mapping[Seat, tuple[int, int]], stage: int, step: Step) -> float | None:
    """Return when everything that a step needs is there; None where it is not known yet."""
    ready = 0.0
    for kind, chunk, index in step:
        number, part = seats[Seat(stage, chunk)]
        if kind == WEIGHT:
            continue
        last = part == len(lines[number]) - 1
        need = (kind == FORWARD or last, number, part - 1 if kind == FORWARD else part if last else part + 1, index)
        if need[2] >= 0:
            if need not in done:
                return None
            ready = max(ready, done[need])
    return ready


def _note(done: Done, seats: Mapping[Seat, tuple[int, int]], stage: int, step: Step, now: float) -> None:
    for kind, chunk, index in step:
        if kind != WEIGHT:
            done[(kind == FORWARD, *seats[Seat(stage, chunk)], index)] = now


def peak_held(order: Sequence[Step], *, until: int) -> int:
    """Return the most passes that went forward and are held: `until` their BACKWARD or INPUT, or until their BACKWARD or WEIGHT."""
    held = peak = 0
    for kind, _, _ in (action for step in order for action in step):
        held += 1 if kind == FORWARD else -1 if kind in (BACKWARD, until) else 0
        peak = max(peak, held)
    assert held == 0
    return peak


EQUAL = {FORWARD: 1.0, BACKWARD: 2.0, INPUT: 1.0, WEIGHT: 1.0}
