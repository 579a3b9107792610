"""A recorded trace of torch.profiler, read: what ran on the host and on the device, and whose trace it is.

**Source:** Trace Event Format, Google, 2016; layout as written by `torch.profiler.profile.export_chrome_trace` (Kineto).
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from foretrain.errors import UsageError, shortened
from foretrain.units import parse

DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
"""Categories of what the device runs."""
RUNTIME = frozenset({"cuda_runtime", "cuda_driver", "hip_runtime", "privateuse1_runtime", "xpu_runtime"})
"""Categories of the calls that launch it."""
HOST = frozenset({"cpu_op", "user_annotation"}) | RUNTIME
HOW = "record one with torch.profiler and export_chrome_trace"
GZIP = b"\x1f\x8b"


class Event(NamedTuple):
    """A complete event; `lane` is its process and thread, or device and stream. Times in seconds from the first event."""

    name: str
    category: str
    lane: tuple[str, str]
    start_s: float
    end_s: float
    arguments: Mapping[str, Any]

    @property
    def correlation(self) -> int | None:
        """The number that a launch shares with what it launches."""
        number = self.arguments.get("correlation")
        return number if isinstance(number, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One process's trace. `host` and `device` are in the order they began; `raw` is every event as it was written.

    `origin_us` is the time of the first event on the clock of `raw`: microseconds since 1970, in which doubles keep no nanoseconds.
    """

    path: Path
    host: tuple[Event, ...]
    device: tuple[Event, ...]
    raw: tuple[Mapping[str, Any], ...]
    origin_us: float
    rank: int | None
    world_size: int | None
    device_name: str

    @property
    def launches(self) -> dict[int | None, Event]:
        """Calls of the runtime by the number that they share with what they launch."""
        return {event.correlation: event for event in self.host if event.category in RUNTIME and event.correlation is not None}


def read_trace(path: Path) -> Trace:
    """Return the trace of a file, plain or compressed.

    Raises:
        UsageError: where it cannot be read, is no JSON, or holds nothing that torch.profiler writes.
    """
    data = _data(path)
    events = data.get("traceEvents") if isinstance(data, Mapping) else data
    if not isinstance(events, list):
        raise UsageError(f"{path} is no trace: it has no list traceEvents; {HOW}")
    raw = tuple(event for event in events if isinstance(event, Mapping))
    kept = [event for event in raw if event.get("ph") == "X" and str(event.get("cat", "")) in HOST | DEVICE]
    origin_us = min((_time_us(path, event) for event in kept), default=0.0)
    found = sorted((_event(path, event, origin_us) for event in kept), key=lambda event: event.start_s)
    host = tuple(event for event in found if event.category in HOST)
    device = tuple(event for event in found if event.category in DEVICE)
    if not any(event.category == "cpu_op" for event in host) and not device:
        raise UsageError(f"{path} is no trace of torch.profiler: none of its {len(raw):,} events is an op or a kernel; {HOW}")
    head = data if isinstance(data, Mapping) else {}
    _refuse_unrecorded(path, head, host, device)
    group, devices = head.get("distributedInfo"), head.get("deviceProperties")
    return Trace(
        path=path, host=host, device=device, raw=raw, origin_us=origin_us,
        rank=_count(group, "rank"), world_size=_count(group, "world_size"), device_name=_name(devices) if device else "",
    )  # fmt: skip


def _count(data: Any, key: str) -> int | None:
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else None


def _name(devices: Any) -> str:
    first = devices[0] if isinstance(devices, list) and devices else None
    return str(first.get("name", "")) if isinstance(first, Mapping) else ""


def _data(path: Path) -> Any:
    try:
        content = path.read_bytes()
        text = gzip.decompress(content) if content[:2] == GZIP else content
    except (OSError, EOFError) as error:
        raise UsageError(f"trace {path} cannot be read: {getattr(error, 'strerror', None) or error}; {HOW}") from error
    if not text.strip():
        raise UsageError(f"trace {path} is empty; {HOW}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"trace {path} is no JSON ({shortened(error)}); {HOW}, and let the program end before it is read") from error


def _event(path: Path, raw: Mapping[str, Any], origin_us: float) -> Event:
    microsecond_s = parse("1 us", "s")
    start_us = _time_us(path, raw) - origin_us
    end_us = start_us + max(0.0, _time_us(path, raw, "dur", 0.0))
    lane = (str(raw.get("pid", "")), str(raw.get("tid", "")))
    arguments = raw.get("args")
    return Event(
        str(raw.get("name", "")), str(raw["cat"]), lane, start_us * microsecond_s, end_us * microsecond_s,
        arguments if isinstance(arguments, Mapping) else {},
    )  # fmt: skip


def _time_us(path: Path, raw: Mapping[str, Any], key: str = "ts", missing: float | None = None) -> float:
    value = raw.get(key, missing)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise UsageError(f"{path}: event {shortened(raw.get('name'))} has {key}={shortened(value)}, which is no time; {HOW}")


def _refuse_unrecorded(path: Path, head: Mapping[str, Any], host: tuple[Event, ...], device: tuple[Event, ...]) -> None:
    """Refuse a trace whose program used a device that was not recorded: its gaps would pass for idle time."""
    calls = sum("launch" in event.name.lower() for event in host if event.category in RUNTIME)
    if calls and not device:
        raise UsageError(
            f"{path} has {calls:,} launches but no event of a device; record it with "
            "activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]"
        )
