"""Which part of a trace is one training step: between the marks of the profiler, or all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from foretrain.errors import UsageError
from foretrain.validate.comparing.trace_file import Event, Trace

MARK = re.compile(r"ProfilerStep#(\d+)$")
REMEDY = "give profile(schedule=torch.profiler.schedule(...)) and call step() after each, which marks them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One training step. On a device it lasts from its first kernel to that of the next step, wherever the host is by then."""

    number: int | None
    host_start_s: float
    host_end_s: float
    start_s: float
    end_s: float
    device: tuple[Event, ...]
    """What ran on the device for it."""
    next_launched_s: float | None = None
    """When the host asked for the first kernel of the next step, where that is known."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The step that is compared, among how many, and the shortest and longest of them."""

    step: Step
    steps: int
    least_s: float
    most_s: float


def choose(trace: Trace, wanted: int | None = None) -> Chosen:
    """Return the step of a number; without one that of median length.

    Raises:
        UsageError: where there is no such step, or there are several and nothing says where they begin.
    """
    found = steps_of(trace)
    if wanted is None:
        step = sorted(found, key=lambda one: one.seconds)[(len(found) - 1) // 2]
    else:
        numbers = [one.number for one in found]
        if wanted not in numbers:
            have = ", ".join(str(number) for number in numbers if number is not None) or "no marked steps"
            raise UsageError(f"--step {wanted}: {trace.path} has no such step; it has {have}")
        step = found[numbers.index(wanted)]
    return Chosen(step=step, steps=len(found), least_s=min(one.seconds for one in found), most_s=max(one.seconds for one in found))


def steps_of(trace: Trace) -> tuple[Step, ...]:
    """Return the steps of a trace, in time; one where none is marked.

    Raises:
        UsageError: where several steps are not marked, or a marked one ran nothing.
    """
    marks = [event for event in trace.host if event.category == "user_annotation" and MARK.match(event.name)]
    if not marks:
        return (_whole(trace),)
    found = _marked(trace, marks)
    if not found:
        raise UsageError(f"{trace.path}: none of its {len(marks)} marked steps ran anything; record more of the training loop")
    return found


def _whole(trace: Trace) -> Step:
    optimizers = [event for event in trace.host if event.category == "user_annotation" and event.name.startswith("Optimizer.step#")]
    if len(optimizers) > 1:
        raise UsageError(f"{trace.path} has {len(optimizers)} optimizer steps and no marks between training steps; {REMEDY}")
    events = (*trace.host, *trace.device)
    start_s, end_s = min(event.start_s for event in events), max(event.end_s for event in events)
    return Step(number=None, host_start_s=start_s, host_end_s=end_s, start_s=start_s, end_s=end_s, device=trace.device)


def _marked(trace: Trace, marks: Sequence[Event]) -> tuple[Step, ...]:
    if not trace.device:
        return tuple(
            Step(number=_number(mark), host_start_s=mark.start_s, host_end_s=mark.end_s, start_s=mark.start_s, end_s=mark.end_s, device=())
            for mark in marks
            if any(mark.start_s <= event.start_s < mark.end_s for event in trace.host if event.category == "cpu_op")
        )
    own = _by_mark(trace, marks)
    steps = []
    for index, mark in enumerate(marks):
        if not own[index]:
            continue
        following = own[index + 1] if index + 1 < len(marks) and _number(marks[index + 1]) == _number(mark) + 1 else ()
        start_s = own[index][0].start_s
        end_s = following[0].start_s if following else max(mark.end_s, *(event.end_s for event in own[index]))
        steps.append(
            Step(
                number=_number(mark), host_start_s=mark.start_s, host_end_s=mark.end_s, start_s=start_s, end_s=max(start_s, end_s),
                device=own[index], next_launched_s=_launched_s(trace, following),
            )
        )  # fmt: skip
    return tuple(step for step in steps if step.seconds > 0.0)


def _launched_s(trace: Trace, following: Sequence[Event]) -> float | None:
    call = trace.launches.get(following[0].correlation) if following else None
    return None if call is None else call.start_s


def _by_mark(trace: Trace, marks: Sequence[Event]) -> list[tuple[Event, ...]]:
    """Return what ran on the device for each mark: what was launched within it, or began within it where no launch was recorded."""
    launches = trace.launches
    own: list[list[Event]] = [[] for _ in marks]
    for event in trace.device:
        launch = launches.get(event.correlation)
        at = event.start_s if launch is None else launch.start_s
        index = next((index for index, mark in enumerate(marks) if mark.start_s <= at < mark.end_s), None)
        if index is not None:
            own[index].append(event)
    return [tuple(found) for found in own]


def _number(mark: Event) -> int:
    found = MARK.match(mark.name)
    return int(found[1]) if found else -1
