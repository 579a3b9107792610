"""A predicted timeline and a recorded trace in one file, process beside process, aligned where the step begins on the device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretrain.sim.timeline import Timeline
from foretrain.sim.trace import write_trace
from foretrain.units import parse
from foretrain.validate.comparing.steps import Step
from foretrain.validate.comparing.trace_file import DEVICE, Trace

_SPAN = "Trace"
"""Category of the profiler's own span, which is no part of the program."""
DIGITS = 3
"""Of microseconds: a trace has nanoseconds."""
_SHOWN = ("thread_name", "thread_sort_index")


def write_merged(trace: Trace, step: Step, timeline: Timeline, path: Path, *, title: str) -> None:
    """Write one Chrome trace with both; the predicted step begins where the first kernel of the measured one does.

    Raises:
        OutputError: where the file cannot be written.
    """
    lead_s = max(0.0, step.start_s - step.host_start_s)
    first = max((rank.index for rank in timeline.ranks), default=0) + 1
    write_trace(_predicted(timeline, lead_s), path, title=title, beside=_measured(trace, step, lead_s, first))


def _predicted(timeline: Timeline, lead_s: float) -> Timeline:
    """Return the timeline `lead_s` later, its processes marked as predicted."""
    return replace(
        timeline,
        ranks=tuple(replace(rank, label=f"predicted: {rank.label}") for rank in timeline.ranks),
        slices=tuple(one._replace(start_s=one.start_s + lead_s) for one in timeline.slices),
        flows=tuple(one._replace(sent_s=one.sent_s + lead_s, arrived_s=one.arrived_s + lead_s) for one in timeline.flows),
        memory=tuple(one._replace(time_s=one.time_s + lead_s) for one in timeline.memory),
        step_s=timeline.step_s + lead_s,
    )


def _measured(trace: Trace, step: Step, lead_s: float, first: int) -> Iterator[str]:
    """Yield the events of the measured step, their processes numbered from `first`, then the names of those."""
    second_us = 1.0 / parse("1 us", "s")
    zero_us = trace.origin_us + (step.start_s - lead_s) * second_us
    host_us, device_us = trace.origin_us + step.host_start_s * second_us, trace.origin_us + step.start_s * second_us
    end_us = trace.origin_us + max(step.end_s, step.host_end_s) * second_us
    numbers: dict[str, int] = {}
    for event in trace.raw:
        begin_us = event.get("ts")
        if event.get("ph") == "M" or event.get("cat") == _SPAN or not isinstance(begin_us, int | float):
            continue
        from_us = device_us if event.get("cat") in DEVICE else host_us
        if round(from_us, DIGITS) <= round(begin_us, DIGITS) < round(end_us, DIGITS):
            number = numbers.setdefault(str(event.get("pid")), first + len(numbers))
            yield json.dumps({**event, "pid": number, "ts": round(begin_us - zero_us, DIGITS)})
    yield from _names(trace, numbers)


def _names(trace: Trace, numbers: Mapping[str, int]) -> Iterator[str]:
    words: dict[str, list[str]] = {pid: [] for pid in numbers}
    for event in trace.raw:
        pid, arguments = str(event.get("pid")), event.get("args")
        if event.get("ph") != "M" or pid not in numbers or not isinstance(arguments, Mapping):
            continue
        if event.get("name") in _SHOWN:
            yield json.dumps({**event, "pid": numbers[pid]})
        elif event.get("name") in ("process_name", "process_labels"):
            words[pid] += [str(value) for value in arguments.values()]
    for pid, number in numbers.items():
        yield _meta("process_name", number, name=f"measured: {' '.join(words[pid]) or pid}")
        yield _meta("process_sort_index", number, sort_index=number)


def _meta(what: str, number: int, **arguments: Any) -> str:
    return json.dumps({"ph": "M", "name": what, "pid": number, "tid": 0, "ts": 0, "args": arguments})
