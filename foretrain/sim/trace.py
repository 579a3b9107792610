"""Timelines as Chrome trace JSON, in the layout of torch.profiler, for Perfetto and chrome://tracing.

A process per simulated rank, a thread per stream, a complete event per slice, counters for power and memory, arrows for sends. The
file is streamed: time grows with the slices, memory beyond the timeline's own with a few numbers per slice.

**Source:** Trace Event Format, Google, 2016; layout as written by `torch.profiler.profile.export_chrome_trace` (Kineto).
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foretrain.errors import OutputError
from foretrain.sim.columns import SHORTEST_S, Columns, Floats, Ints, by_rank, column, columns_of, nanoseconds, power_of
from foretrain.sim.timeline import Slice, Timeline

BATCH = 2_000
"""Events joined into one write: large enough that writing costs nothing, small beside the timeline."""


def write_trace(timeline: Timeline, path: str | os.PathLike[str], *, title: str, beside: Iterable[str] = ()) -> None:
    """Write the timeline to `path`, compressed where that ends in `.gz`; a reader never sees half a file.

    `beside` are events, as JSON, of other processes to show with it.

    Raises:
        OutputError: where the file cannot be written.
    """
    target = Path(path)
    try:
        # A link keeps pointing where it did; a device or a pipe is written into, for to replace it would destroy it.
        place = target.resolve()
        with place.open("wb") if place.exists() and not place.is_file() else _whole(place) as file:
            _write_all(file, chain(_events(timeline), beside), title=title, compress=target.suffix == ".gz")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"trace {str(target)[:200]} cannot be written: {reason}; give a file in a folder that exists, is writable and has space"
        ) from error


@contextlib.contextmanager
def _whole(place: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes its place at `place` when all is written, and leaves nothing where that fails."""
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(place)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def power_steps(timeline: Timeline, rank: int) -> tuple[Floats, Floats]:
    """Return (times in s, watts) of one accelerator of a rank: `watts[i]` holds from `times[i]` to `times[i + 1]`.

    The last entry is the end of the step. The integral is baseline · time + the joules of the rank's slices.
    """
    return power_of(columns_of(timeline.slices, by_rank(timeline.slices)(rank)), baseline_w=timeline.baseline_w, step_s=timeline.step_s)


def _write_all(file: BinaryIO, events: Iterator[str], *, title: str, compress: bool) -> None:
    """Write header, events and end; the archive bears no name and no date, so that equal timelines give equal bits."""
    if not compress:
        return _write_events(file, events, title=title)
    with gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=file, mtime=0) as packed:
        return _write_events(packed, events, title=title)


def _write_events(file: BinaryIO | gzip.GzipFile, events: Iterator[str], *, title: str) -> None:
    header = {"schemaVersion": 1, "displayTimeUnit": "ms", "baseTimeNanoseconds": 0, "traceName": title}
    file.write((json.dumps(header)[:-1] + ', "traceEvents": [\n').encode())
    separator = ""
    while batch := ",\n".join(islice(events, BATCH)):
        file.write((separator + batch).encode())
        separator = ",\n"
    file.write(b"\n]}\n")


def _events(timeline: Timeline) -> Iterator[str]:
    """Yield every event; arrows come after the slices that they are tied to."""
    yield from _names(timeline)
    yield from _slices(timeline.slices)
    slices, memory = by_rank(timeline.slices), by_rank(timeline.memory)
    sent, received = by_rank(timeline.flows, "source_rank"), by_rank(timeline.flows, "target_rank")
    for rank in timeline.ranks:
        columns = columns_of(timeline.slices, slices(rank.index))
        yield from _counter("power", "W", rank.index, *power_of(columns, baseline_w=timeline.baseline_w, step_s=timeline.step_s))
        yield from _memory(timeline, rank.index, memory(rank.index))
        yield from _tails(timeline, rank.index, columns, sent(rank.index))
        yield from _heads(timeline, rank.index, columns, received(rank.index))


def _names(timeline: Timeline) -> Iterator[str]:
    for rank in timeline.ranks:
        yield _meta("process_name", rank.index, 0, name=f"{rank.label} (x{rank.multiplicity})")
        yield _meta("process_sort_index", rank.index, 0, sort_index=rank.index)
        for stream, name in enumerate(timeline.streams):
            yield _meta("thread_name", rank.index, stream, name=f"stream {stream} {name}")
            yield _meta("thread_sort_index", rank.index, stream, sort_index=stream)


def _meta(what: str, rank: int, stream: int, **arguments: str | int) -> str:
    return json.dumps({"ph": "M", "name": what, "pid": rank, "tid": stream, "ts": 0, "args": arguments})


def _slices(slices: Iterable[Slice]) -> Iterator[str]:
    """Yield complete events in whole nanoseconds; both ends are rounded, so that neighbours touch and never overlap.

    Start + duration may pass the next start by a rounding of doubles, and readers drop slices that overlap: hence the one nanosecond.
    """
    ends: dict[tuple[int, int], int] = {}
    for rank, stream, name, kind, start_s, duration_s, joules, *_ in slices:
        before = ends.get((rank, stream), 0)
        begin = round(start_s * 1e9)
        if begin == before - 1:
            begin = before
        ends[rank, stream] = end = max(begin, round((start_s + duration_s) * 1e9))
        yield (
            f'{{"ph":"X","cat":"kernel","name":{_quoted(name)},"pid":{rank},"tid":{stream},"ts":{begin / 1e3:.3f},'
            f'"dur":{(end - begin) / 1e3:.3f},"args":{{"stream":{stream},"kind":{_quoted(kind)},"joules":{joules:.9g}}}}}'
        )


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return json.dumps(text)


def _counter(name: str, unit: str, rank: int, times: Floats, values: Floats) -> Iterator[str]:
    """Yield the changes of a step function and its end, in blocks, so that no second copy of it exists."""
    shown, end = None, times[-1:]
    for block in _blocks(len(times)):
        stamps = nanoseconds(times[block])
        last = np.append(stamps[1:] > stamps[:-1], True)
        ends = times[block][last] == end
        for stamp, value, closing in zip(stamps[last].tolist(), np.round(values[block][last], 2).tolist(), ends.tolist(), strict=True):
            if value != shown or closing:
                yield f'{{"ph":"C","name":"{name}","pid":{rank},"tid":0,"ts":{stamp / 1e3:.3f},"args":{{"{unit}":{value:.12g}}}}}'
            shown = value


def _blocks(count: int) -> Iterator[slice]:
    return (slice(at, at + BATCH) for at in range(0, count, BATCH))


def _memory(timeline: Timeline, rank: int, own: Ints) -> Iterator[str]:
    times, in_use = column(timeline.memory, "time_s", own), column(timeline.memory, "in_use_bytes", own)
    in_time = np.argsort(times, kind="stable")
    yield from _counter("memory in use", "bytes", rank, times[in_time], in_use[in_time])


def _tails(timeline: Timeline, rank: int, columns: Columns, ids: Ints) -> Iterator[str]:
    """Yield the start of each send: just inside the slice that ends as it is sent, the lowest stream first."""
    sent_s = column(timeline.flows, "sent_s", ids)
    if not len(columns.end_s):
        yield from _arrow_ends("s", rank, ids, np.zeros(len(ids), np.int64), nanoseconds(sent_s))
        return
    order = np.lexsort((columns.stream, columns.end_s))
    at = np.searchsorted(columns.end_s[order], sent_s - SHORTEST_S)
    sender = order[np.minimum(at, len(order) - 1)]
    inside = np.minimum(nanoseconds(sent_s), nanoseconds(columns.end_s[sender])) - 1
    yield from _arrow_ends("s", rank, ids, columns.stream[sender], np.maximum(inside, nanoseconds(columns.start_s[sender])))


def _heads(timeline: Timeline, rank: int, columns: Columns, ids: Ints) -> Iterator[str]:
    """Yield the end of each send: the start of the next slice that the receiver computes, or the arrival where none follows."""
    arrived_s = column(timeline.flows, "arrived_s", ids)
    starts = np.sort(columns.start_s[columns.stream == 0])
    following = np.append(starts, np.inf)[np.searchsorted(starts, arrived_s - SHORTEST_S)]
    stamps = nanoseconds(np.where(np.isfinite(following), following, arrived_s))
    yield from _arrow_ends("f", rank, ids, np.zeros(len(ids), np.int64), stamps)


def _arrow_ends(phase: str, rank: int, ids: Ints, streams: Ints, stamps: Ints) -> Iterator[str]:
    bind = ',"bp":"e"' if phase == "f" else ""
    for part in _blocks(len(ids)):
        for number, stream, stamp in zip(ids[part].tolist(), streams[part].tolist(), stamps[part].tolist(), strict=True):
            yield (
                f'{{"ph":"{phase}","cat":"send","name":"send","id":{number},"pid":{rank},"tid":{stream},"ts":{stamp / 1e3:.3f}{bind}}}'
            )
