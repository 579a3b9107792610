"""The trace writer: a file that readers of torch.profiler's traces open, and power that adds up to the energy."""

from __future__ import annotations

import gzip
import json
import os
import time
import tracemalloc
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import OutputError
from foretrain.sim.timeline import Flow, MemoryPoint, SimulatedRank, Slice, Timeline
from foretrain.sim.trace import power_steps, write_trace

quick = settings(deadline=None, derandomize=True, max_examples=80)
KINDS = ("math", "memory", "pipeline_parallel")


def timeline_of(slices: list[Slice], *, flows: tuple[Flow, ...] = (), memory: tuple[MemoryPoint, ...] = (), ranks: int = 2) -> Timeline:
    """Return a timeline of these slices, whose step ends with the last of them."""
    return Timeline(
        ranks=tuple(SimulatedRank(index=index, stage=index, label=f"stage {index}", multiplicity=16) for index in range(ranks)),
        streams=("compute", "pipeline"),
        slices=tuple(sorted(slices, key=lambda slice_: slice_.start_s)),
        flows=flows,
        memory=memory,
        step_s=max((slice_.start_s + slice_.duration_s for slice_ in slices), default=1.0),
        baseline_w=100.0,
    )


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Draw slices that follow each other on every stream, with gaps, from nanoseconds to seconds, up to 10 kW."""
    slices = []
    for rank in range(2):
        for stream in range(2):
            now_s = draw(st.floats(0.0, 100.0))
            for number in range(draw(st.integers(0, 8))):
                now_s += draw(st.sampled_from([0.0, 1e-6, 0.3]))
                duration_s = draw(st.one_of(st.just(0.0), st.floats(1e-9, 5.0)))
                joules = duration_s * draw(st.floats(0.0, 1e4)) if duration_s else draw(st.floats(0.0, 1e-6))
                slices.append(Slice(rank, stream, f'pass "{number}"', draw(st.sampled_from(KINDS)), now_s, duration_s, joules))
                now_s += duration_s
    return timeline_of(slices)


def two_stages() -> Timeline:
    """Return a forward on stage 0, its send, and the forward on stage 1 that waited for it."""
    return timeline_of(
        [
            Slice(0, 0, "forward 0", "math", 0.0, 1e-3, 0.2),
            Slice(0, 1, "send", "pipeline_parallel", 1e-3, 5e-4, 0.01),
            Slice(0, 0, "forward 1", "math", 1e-3, 1e-3, 0.2),
            Slice(1, 0, "forward 0", "math", 1.5e-3, 1e-3, 0.3),
        ],
        flows=(Flow(0, 1e-3, 1, 1.5e-3),),
        memory=(MemoryPoint(1, 1.5e-3, 2e9), MemoryPoint(0, 0.0, 1e9), MemoryPoint(0, 1e-3, 3e9)),
    )


def written(timeline: Timeline, folder: Path, name: str = "timeline.json.gz") -> dict[str, Any]:
    """Return the parsed trace."""
    path = folder / name
    write_trace(timeline, path, title="a step")
    raw = path.read_bytes()
    parsed: dict[str, Any] = json.loads(gzip.decompress(raw) if name.endswith(".gz") else raw)
    return parsed


def of_phase(trace: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    """Return the events of one phase, in the order of the file."""
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


@quick
@given(timelines())
def test_power_integrates_to_baseline_and_dynamic_energy(timeline: Timeline) -> None:
    """∫ power dt = baseline · time + Σ joules, to 1e-9."""
    for rank in (0, 1):
        times, watts = power_steps(timeline, rank)
        energy_j = float(np.sum(watts[:-1] * np.diff(times)))
        dynamic_j = sum(slice_.joules for slice_ in timeline.slices if slice_.rank == rank)
        assert energy_j == pytest.approx(timeline.baseline_w * times[-1] + dynamic_j, rel=1e-9)
        assert np.all(np.diff(times) > 0)
        assert times[0] == 0.0
        assert times[-1] == pytest.approx(timeline.step_s, abs=2e-9)


def test_power_keeps_its_energy_over_many_short_slices() -> None:
    """A hundred thousand microsecond slices late in a long step lose nothing to rounding."""
    slices = [Slice(0, 0, "op", "math", 1000.0 + 1e-6 * number, 1e-6, 3.7e-4) for number in range(100_000)]
    times, watts = power_steps(timeline_of(slices), 0)
    added_j = float(np.sum((watts[:-1] - 100.0) * np.diff(times)))
    assert added_j == pytest.approx(100_000 * 3.7e-4, rel=1e-9)


def test_power_steps_are_the_ones_worked_by_hand() -> None:
    """Stage 0 draws 100 W, and 200 W more while it computes, and 20 W more while it sends."""
    times, watts = power_steps(two_stages(), 0)
    assert times == pytest.approx([0.0, 1e-3, 1.5e-3, 2e-3, 2.5e-3])
    assert watts == pytest.approx([300.0, 320.0, 300.0, 100.0, 100.0])


def test_an_idle_rank_draws_the_baseline() -> None:
    """Without slices the power is the baseline from 0 to the end of the step."""
    times, watts = power_steps(timeline_of([Slice(0, 0, "op", "math", 0.0, 2.0, 1.0)]), 1)
    assert (times.tolist(), watts.tolist()) == ([0.0, 2.0], [100.0, 100.0])


def test_the_layout_is_that_of_torch_profiler(tmp_path: Path) -> None:
    """Processes are ranks, threads are streams, slices are complete events of category kernel in microseconds."""
    trace = written(two_stages(), tmp_path)
    assert trace["traceName"] == "a step"
    names = {(event["name"], event["pid"], event["tid"]): event["args"] for event in of_phase(trace, "M")}
    assert names["process_name", 1, 0] == {"name": "stage 1 (x16)"}
    assert names["process_sort_index", 1, 0] == {"sort_index": 1}
    assert names["thread_name", 0, 1] == {"name": "stream 1 pipeline"}
    assert of_phase(trace, "X")[0] == {
        "ph": "X", "cat": "kernel", "name": "forward 0", "pid": 0, "tid": 0, "ts": 0.0, "dur": 1000.0,
        "args": {"stream": 0, "kind": "math", "joules": 0.2},
    }  # fmt: skip


def test_torch_profiler_writes_the_fields_that_we_write(tmp_path: Path) -> None:
    """A trace of torch's own holds complete events with at least our fields, and the same header keys."""
    torch = pytest.importorskip("torch")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.ones(4).sum()
    profile.export_chrome_trace(str(tmp_path / "torch.json"))
    theirs, ours = json.loads((tmp_path / "torch.json").read_text()), written(two_stages(), tmp_path)
    assert set(ours) <= set(theirs)
    complete = [event for event in theirs["traceEvents"] if event["ph"] == "X"]
    assert all(set(of_phase(ours, "X")[0]) - {"args"} <= set(event) for event in complete)
    assert {event["name"] for event in of_phase(ours, "M")} <= {event["name"] for event in of_phase(theirs, "M")}


@quick
@given(timelines())
def test_slices_of_a_stream_touch_and_never_overlap(tmp_path_factory: pytest.TempPathFactory, timeline: Timeline) -> None:
    """Every slice is written once, in nanoseconds that readers can nest: an overlapping slice is dropped by Perfetto."""
    trace = written(timeline, tmp_path_factory.mktemp("trace"), "timeline.json")
    events = of_phase(trace, "X")
    shown = [(event["pid"], event["tid"], event["name"], event["args"]["kind"]) for event in events]
    assert shown == [(slice_.rank, slice_.stream, slice_.name, slice_.kind) for slice_ in timeline.slices]
    ends: dict[tuple[int, int], int] = defaultdict(int)
    for event, slice_ in zip(events, timeline.slices, strict=True):
        begin_ns, long_ns = round(event["ts"] * 1e3), round(event["dur"] * 1e3)
        assert begin_ns == pytest.approx(slice_.start_s * 1e9, abs=1.0)
        assert begin_ns >= ends[event["pid"], event["tid"]]
        assert event["args"]["joules"] == pytest.approx(slice_.joules, rel=1e-8, abs=1e-15)
        ends[event["pid"], event["tid"]] = begin_ns + long_ns


@quick
@given(timelines())
def test_counters_go_forward_and_power_follows_its_steps(tmp_path_factory: pytest.TempPathFactory, timeline: Timeline) -> None:
    """Time never goes back on a counter; its value at any step is the power of that step, to a centiwatt."""
    trace = written(timeline, tmp_path_factory.mktemp("trace"), "timeline.json")
    for rank in (0, 1):
        power = [event for event in of_phase(trace, "C") if event["name"] == "power" and event["pid"] == rank]
        stamps = [event["ts"] for event in power]
        assert stamps == sorted(set(stamps))
        times, watts = power_steps(timeline, rank)
        nanoseconds = np.rint(times * 1e9)
        last = np.append(np.diff(nanoseconds) > 0, [True])
        at = np.searchsorted(np.rint(np.array(stamps) * 1e3), nanoseconds[last], side="right") - 1
        shown = np.array([event["args"]["W"] for event in power])[at]
        assert shown == pytest.approx(watts[last], abs=0.00501)


def test_memory_is_a_counter_in_the_order_of_time(tmp_path: Path) -> None:
    """Bytes in use per rank, each rank by itself."""
    events = [event for event in of_phase(written(two_stages(), tmp_path), "C") if event["name"] == "memory in use"]
    assert [(event["pid"], event["ts"], event["args"]["bytes"]) for event in events] == [(0, 0.0, 1e9), (0, 1e3, 3e9), (1, 1.5e3, 2e9)]


def test_an_arrow_joins_the_slice_that_sent_to_the_slice_that_waited(tmp_path: Path) -> None:
    """The tail lies inside the sender's slice on its thread, the head at the start of the receiver's."""
    trace = written(two_stages(), tmp_path)
    (tail,), (head,) = of_phase(trace, "s"), of_phase(trace, "f")
    assert (tail["id"], tail["name"], tail["cat"]) == (head["id"], head["name"], head["cat"])
    assert (tail["pid"], tail["tid"], tail["ts"]) == (0, 0, 999.999)
    assert (head["pid"], head["tid"], head["ts"], head["bp"]) == (1, 0, 1500.0, "e")


@quick
@given(timelines(), st.lists(st.tuples(st.integers(0, 1), st.floats(0.0, 50.0), st.floats(0.0, 50.0)), max_size=12))
def test_arrows_are_balanced(tmp_path_factory: pytest.TempPathFactory, timeline: Timeline, sends: list[tuple[int, float, float]]) -> None:
    """Every send has one tail on the source's rank and one head on the target's, whatever else the ranks do."""
    flows = tuple(Flow(source, sent_s, 1 - source, sent_s + took_s) for source, sent_s, took_s in sends)
    full = timeline_of(list(timeline.slices), flows=flows)
    trace = written(full, tmp_path_factory.mktemp("trace"), "timeline.json")
    tails, heads = ({event["id"]: event["pid"] for event in of_phase(trace, phase)} for phase in ("s", "f"))
    assert tails == {number: flow.source_rank for number, flow in enumerate(flows)}
    assert heads == {number: flow.target_rank for number, flow in enumerate(flows)}
    assert len(of_phase(trace, "s")) == len(of_phase(trace, "f")) == len(flows)


def test_equal_timelines_give_equal_bytes(tmp_path: Path) -> None:
    """Neither the date nor the file's name is in the archive."""
    write_trace(two_stages(), tmp_path / "one.json.gz", title="a step")
    write_trace(two_stages(), tmp_path / "two.json.gz", title="a step")
    assert (tmp_path / "one.json.gz").read_bytes() == (tmp_path / "two.json.gz").read_bytes()


def test_a_timeline_of_nothing_is_a_trace(tmp_path: Path) -> None:
    """No slices and no ranks still parse."""
    assert written(timeline_of([], ranks=0), tmp_path)["traceEvents"] == []
    assert of_phase(written(timeline_of([]), tmp_path), "X") == []


@pytest.mark.parametrize("place", ["missing/timeline.json", "file/timeline.json.gz", "folder"])
def test_a_place_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path, place: str) -> None:
    """A missing folder, a file in its stead, a folder in the file's: one OutputError, and nothing left behind."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OutputError, match=rf"trace .*{place} cannot be written: .+; give a file in a folder") as caught:
        write_trace(two_stages(), tmp_path / place, title="a step")
    assert isinstance(caught.value, OSError)
    assert sorted(os.listdir(tmp_path)) == before


def test_an_older_trace_is_replaced_whole(tmp_path: Path) -> None:
    """A second write replaces the first and leaves no part file."""
    (tmp_path / "timeline.json").write_text("old")
    assert of_phase(written(two_stages(), tmp_path, "timeline.json"), "X")
    assert os.listdir(tmp_path) == ["timeline.json"]


def test_memory_beside_the_timeline_is_a_fraction_of_it(tmp_path: Path) -> None:
    """Writing 50,000 slices holds under 80 bytes a slice at its peak, where the timeline itself holds over 200."""
    timeline = timeline_of([Slice(number % 8, 0, "op", "math", 1e-4 * (number // 8), 1e-4, 0.02) for number in range(50_000)], ranks=8)
    tracemalloc.start()
    write_trace(timeline, tmp_path / "timeline.json", title="a step")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 80 * 50_000


def test_time_grows_with_the_slices(tmp_path: Path) -> None:
    """Eight times the slices take at most sixteen times as long, best of three."""
    small, large = (
        timeline_of([Slice(n % 8, 0, "op", "math", 1e-4 * (n // 8), 1e-4, 0.02) for n in range(count)], ranks=8)
        for count in (5_000, 40_000)
    )
    assert min(_timed(large, tmp_path) for _ in range(3)) < 16 * min(_timed(small, tmp_path) for _ in range(3))


def _timed(timeline: Timeline, folder: Path) -> float:
    start = time.perf_counter()
    write_trace(timeline, folder / "timeline.json", title="a step")
    return time.perf_counter() - start
