"""One file with the predicted and the measured step in it."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from foretrain.sim.plan import Plan
from foretrain.validate.compare import Comparison, compare_trace
from foretrain.validate.comparing.merge import write_merged
from foretrain.validate.comparing.trace_file import read_trace
from tests.validate.comparing.jobs import predicted
from tests.validate.comparing.traces import GEMM, device_step, kernel, launch, mark, written

LEAD_US = 92.0
"""From the mark of the host to the first kernel."""


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, list[dict[str, Any]]]:
    """Return a comparison over two pipeline stages, and the events of its merged file."""
    folder = tmp_path_factory.mktemp("merged")
    names = [
        {"ph": "M", "name": "process_name", "pid": 9, "tid": 0, "ts": 0, "args": {"name": "python"}},
        {"ph": "M", "name": "process_labels", "pid": 9, "tid": 0, "ts": 0, "args": {"labels": "CPU"}},
        {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "pid": "Spans", "tid": "PyTorch Profiler", "ts": 0, "dur": 900},
    ]
    marks = [mark("ProfilerStep#1", 8, 160), mark("ProfilerStep#2", 300, 50), launch(301, 9), kernel(GEMM, 400, 9, 9)]
    trace = read_trace(written(folder, *names, *device_step(), *marks, shift=5e6))
    comparison = compare_trace(trace, predicted(Plan(pp=2)), step=1)
    path = folder / "merged.json.gz"
    write_merged(trace, comparison.chosen.step, comparison.timeline, path, title="both")
    return comparison, json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def test_both_begin_where_the_device_does(merged: tuple[Comparison, list[dict[str, Any]]]) -> None:
    """The first kernels of the measured and the predicted step are as late after the mark of the host, and nothing is before it."""
    comparison, events = merged
    kernels = [event for event in events if event.get("cat") == "kernel"]
    assert min(event["ts"] for event in kernels if event["pid"] < 2) == pytest.approx(LEAD_US)
    assert min(event["ts"] for event in kernels if event["pid"] >= 2) == pytest.approx(LEAD_US)
    assert min(event["ts"] for event in events if event["ph"] != "M") >= 0
    last = max(event["ts"] + event["dur"] for event in kernels if event["pid"] == 0)
    assert last <= LEAD_US + comparison.timeline.step_s * 1e6 + 1e-3


def test_processes_are_apart_and_named(merged: tuple[Comparison, list[dict[str, Any]]]) -> None:
    """Predicted stages keep their numbers, measured processes follow them; each says which it is, and none is without events."""
    _, events = merged
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert [name.partition(":")[0] for _, name in sorted(names.items())] == ["predicted"] * 2 + ["measured"] * 2
    assert "measured: python CPU" in names.values()
    assert {event["pid"] for event in events} == set(names)


def test_only_the_chosen_step_is_in_it(merged: tuple[Comparison, list[dict[str, Any]]]) -> None:
    """The kernels of the other step stay out, all of its own are in."""
    _, events = merged
    measured = [event for event in events if event.get("cat") == "kernel" and event["pid"] >= 2]
    assert len(measured) == 5
    assert sum(event["dur"] for event in measured) == pytest.approx(30 + 20 + 40 + 60 + 15)
