"""What is read of a trace, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.errors import UsageError
from foretrain.validate.comparing.steps import choose, steps_of
from foretrain.validate.comparing.trace_file import read_trace
from tests.validate.comparing.traces import GEMM, device_step, kernel, launch, mark, op, written

EPOCH_US = 1.79e15
"""Microseconds since 1970, where a double holds no nanoseconds."""


def test_times_keep_their_nanoseconds_whatever_the_clock(tmp_path: Path) -> None:
    """A trace on the clock of the epoch gives the same durations, to the quarter microsecond that its own doubles hold."""
    near, far = (choose(read_trace(written(tmp_path, *device_step(), shift=shift))).step.seconds for shift in (0.0, EPOCH_US))
    assert near == pytest.approx(170e-6)
    assert far == pytest.approx(near, abs=0.26e-6)


def test_a_compressed_trace_is_read_alike(tmp_path: Path) -> None:
    """The profiler compresses where the name ends in .gz; the content decides."""
    path = written(tmp_path, *device_step())
    packed = tmp_path / "trace.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_trace(packed).device == read_trace(path).device


def test_a_bare_list_of_events_is_a_trace(tmp_path: Path) -> None:
    """The format allows a list without a head."""
    path = tmp_path / "bare.json"
    path.write_text(json.dumps([op("aten::mm", 0, 5)]))
    assert [event.name for event in read_trace(path).host] == ["aten::mm"]


def test_whose_trace_it_is(tmp_path: Path) -> None:
    """Rank, ranks and device stand in the head."""
    head: dict[str, Any] = {"distributedInfo": {"rank": 3, "world_size": 8}, "deviceProperties": [{"name": "NVIDIA A100-SXM4-80GB"}]}
    trace = read_trace(written(tmp_path, *device_step(), **head))
    assert (trace.rank, trace.world_size, trace.device_name) == (3, 8, "NVIDIA A100-SXM4-80GB")


BAD = {
    "missing": (None, "cannot be read"),
    "empty": (" \n", "is empty"),
    "no JSON": ("{'traceEvents': [", "is no JSON"),
    "cut off": ('{"traceEvents": [{"ph": "X", "na', "is no JSON"),
    "no trace": ('{"step_s": 1.0}', "no list traceEvents"),
    "a number": ("3", "no list traceEvents"),
    "no events": ('{"traceEvents": []}', "none of its 0 events"),
    "another program's": ('{"traceEvents": [{"ph": "X", "name": "render", "cat": "gpu", "ts": 1, "dur": 2}]}', "none of its 1 events"),
    "no time": ('{"traceEvents": [{"ph": "X", "name": "aten::mm", "cat": "cpu_op", "dur": 2}]}', "aten::mm"),
    "a word for a time": ('{"traceEvents": [{"ph": "X", "name": "aten::mm", "cat": "cpu_op", "ts": "soon", "dur": 2}]}', "soon"),
    "no finite time": ('{"traceEvents": [{"ph": "X", "name": "aten::mm", "cat": "cpu_op", "ts": NaN, "dur": 2}]}', "no time"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_trace_is_refused_with_a_remedy(name: str, tmp_path: Path) -> None:
    """Every refusal names the file and what to do, in three lines at most."""
    text, said = BAD[name]
    path = tmp_path / "given.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"given\.json") as raised:
        read_trace(path)
    assert said in str(raised.value)
    assert "record one with torch.profiler" in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    """A .gz that was cut off is no traceback."""
    path = tmp_path / "given.json.gz"
    path.write_bytes(gzip.compress(b'{"traceEvents": []}' * 100)[:-20])
    with pytest.raises(UsageError, match="cannot be read"):
        read_trace(path)


def test_a_device_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    """Launches without kernels: the gaps between ops would pass for idle time."""
    with pytest.raises(UsageError, match=r"1 launches but no event of a device.*ProfilerActivity.CUDA"):
        read_trace(written(tmp_path, op("aten::mm", 0, 5), launch(1, 7)))


def test_several_steps_without_marks_are_refused(tmp_path: Path) -> None:
    """Two optimizer steps and no ProfilerStep#: where the one training step ends nobody knows."""
    events = [op("aten::mm", 0, 5), mark("Optimizer.step#SGD.step", 6, 1), op("aten::mm", 8, 5), mark("Optimizer.step#SGD.step", 14, 1)]
    with pytest.raises(UsageError, match=r"2 optimizer steps and no marks.*schedule"):
        choose(read_trace(written(tmp_path, *events)))


def test_the_marked_step_of_median_length_is_chosen(tmp_path: Path) -> None:
    """Of 10, 30 and 12 µs it is that of 12; a number chooses another, and one that is not there is refused with those that are."""
    events = [mark("ProfilerStep#4", 0, 10), mark("ProfilerStep#5", 10, 30), mark("ProfilerStep#6", 40, 12)]
    trace = read_trace(written(tmp_path, *events, *(op("aten::mm", at, 5) for at in (1, 11, 41))))
    chosen = choose(trace)
    assert (chosen.step.number, chosen.steps) == (6, 3)
    assert (chosen.least_s, chosen.most_s) == (pytest.approx(10e-6), pytest.approx(30e-6))
    assert choose(trace, 5).step.number == 5
    with pytest.raises(UsageError, match="it has 4, 5, 6"):
        choose(trace, 7)


def test_a_step_of_a_device_lasts_to_the_first_kernel_of_the_next(tmp_path: Path) -> None:
    """The host runs ahead: kernels belong to the step that launched them, and the last step ends with its last kernel."""
    events = [
        mark("ProfilerStep#1", 0, 10), launch(1, 1), launch(2, 2), kernel(GEMM, 5, 20, 1), kernel(GEMM, 25, 20, 2),
        mark("ProfilerStep#2", 10, 10), launch(11, 3), kernel(GEMM, 47, 18, 3),
    ]  # fmt: skip
    first, second = steps_of(read_trace(written(tmp_path, *events)))
    assert (first.seconds, len(first.device)) == (pytest.approx(42e-6), 2)
    assert first.next_launched_s == pytest.approx(11e-6)
    assert (second.seconds, len(second.device)) == (pytest.approx(18e-6), 1)


def test_marks_around_nothing_are_refused(tmp_path: Path) -> None:
    """A marked step without an op in it is no step."""
    with pytest.raises(UsageError, match="none of its 1 marked steps"):
        choose(read_trace(written(tmp_path, mark("ProfilerStep#1", 0, 10), op("aten::mm", 20, 5))))
