"""How long a call takes: warmed up, repeated until its median is known or time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from foretrain.validate.records import Spread

Call = Callable[[], object]
MOST_CALLS = 256
CYCLES_PER_S = 2e9
"""Cycles of a GPU that give its host at least a second: none runs much faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """When repeats end: the median is known to `relative`, or `most_s` have passed; between `least` and `most` samples."""

    most_s: float = 0.3
    relative: float = 0.01
    least: int = 5
    most: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Seconds per call: as the host's clock says, of the process on its processors, and on the device.

    `reference_s` are those of the reference work beside it, where the processor is the device.
    """

    wall_s: float
    cpu_s: float
    device_s: float | None = None
    reference_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Spreads of the seconds per call; `device_s` only where a device has a clock of its own."""

    wall_s: Spread
    cpu_s: Spread
    device_s: Spread | None

    @property
    def seconds(self) -> Spread:
        """The device's seconds where it has a clock of its own, else the host's."""
        return self.device_s or self.wall_s

    def data(self) -> dict[str, Any]:
        """Return what a microbenchmark's record says of its time; `host_s` is what the host took to queue the device's work."""
        found = {"seconds": asdict(self.seconds), "cpu_s": asdict(self.cpu_s)}
        return found if self.device_s is None else {**found, "host_s": asdict(self.wall_s)}


class Clock(Protocol):
    """How a sample is taken."""

    sample_s: float
    """Calls are repeated within a sample until it is this long: what reading the clock costs then disappears."""

    def warm(self, call: Call) -> float:
        """Run a call once to its end and return its seconds."""

    def sample(self, call: Call, count: int) -> Sample:
        """Run a call `count` times to its end."""


class HostClock:
    """The host's clock, for work that the host does itself."""

    sample_s = 200e-6

    def warm(self, call: Call) -> float:
        """Return the seconds of one call."""
        return self.sample(call, 1).wall_s

    def sample(self, call: Call, count: int) -> Sample:
        """Return the seconds per call."""
        cpu_s, began_s = time.process_time(), time.perf_counter()
        for _ in range(count):
            call()
        wall_s = time.perf_counter() - began_s
        return Sample(wall_s=wall_s / count, cpu_s=(time.process_time() - cpu_s) / count)


class EventClock:
    """CUDA events beside the host's clock: what a whole step takes as its user sees it."""

    sample_s = 0.0

    def warm(self, call: Call) -> float:
        """Return the seconds of one call, the device's work included."""
        return self.sample(call, 1).wall_s

    def sample(self, call: Call, count: int) -> Sample:
        """Return the seconds per call; the device is idle before and after."""
        import torch  # noqa: PLC0415 - torch is heavy and optional

        begin, end = events()
        torch.cuda.synchronize()
        cpu_s, began_s = time.process_time(), time.perf_counter()
        begin.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        return Sample(wall_s=wall_s / count, cpu_s=cpu_s / count, device_s=begin.elapsed_time(end) / 1e3 / count)


class QueuedClock:
    """CUDA events around calls that were queued before the first began: the device never waits for its host.

    A kernel that spins goes first and gives the host its head start; so kernels shorter than their own launch are timed too.
    """

    sample_s = 1e-3

    def __init__(self) -> None:
        self._host_s = 0.0
        self._device_bound = False

    def warm(self, call: Call) -> float:
        """Return the seconds of one call; notes how much of them the host needs."""
        import torch  # noqa: PLC0415

        torch.cuda.synchronize()
        began_s = time.perf_counter()
        call()
        self._host_s = time.perf_counter() - began_s
        torch.cuda.synchronize()
        total_s = time.perf_counter() - began_s
        self._device_bound = total_s > 3 * self._host_s + 100e-6
        return total_s

    def sample(self, call: Call, count: int) -> Sample:
        """Return the device's seconds per call; the host's stand for the queueing alone."""
        import torch  # noqa: PLC0415

        begin, end = events()
        torch.cuda.synchronize()
        spin: Callable[[int], None] | None = getattr(torch.cuda, "_sleep", None)
        if spin is not None and not self._device_bound:
            spin(int(CYCLES_PER_S * (50e-6 + 1.5 * self._host_s * count)))
        cpu_s, began_s = time.process_time(), time.perf_counter()
        begin.record()
        for _ in range(count):
            call()
        end.record()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        torch.cuda.synchronize()
        return Sample(wall_s=wall_s / count, cpu_s=cpu_s / count, device_s=begin.elapsed_time(end) / 1e3 / count)


def events() -> tuple[Any, Any]:
    """Return two CUDA events that keep the time."""
    import torch  # noqa: PLC0415

    event: Any = torch.cuda.Event
    return event(enable_timing=True), event(enable_timing=True)


def clock_of(device: str) -> Clock:
    """Return the clock for small pieces of a device's work."""
    return QueuedClock() if device == "cuda" else HostClock()


def timed(call: Call, *, clock: Clock, limit: Limit = Limit(), warmup: int = 2) -> Timing:
    """Return how long a call takes, after `warmup` calls that do not count (one where it is as long as the limit)."""
    began_s = time.perf_counter()
    once_s = clock.warm(call)
    for _ in range(warmup - 1):
        if time.perf_counter() - began_s < limit.most_s:
            once_s = clock.warm(call)
    count = min(MOST_CALLS, max(1, math.ceil(clock.sample_s / max(once_s, 1e-9))))
    samples: list[Sample] = []
    began_s = time.perf_counter()
    while _wanted(samples, time.perf_counter() - began_s, limit):
        samples.append(clock.sample(call, count))
    device = [one.device_s for one in samples if one.device_s is not None]
    return Timing(
        wall_s=spread_of([one.wall_s for one in samples]),
        cpu_s=spread_of([one.cpu_s for one in samples]),
        device_s=spread_of(device) if device else None,
    )


def _wanted(samples: Sequence[Sample], elapsed_s: float, limit: Limit) -> bool:
    """Whether another sample is. The median of n samples is known to about their relative quartile distance over √n."""
    count = len(samples)
    if count < limit.least:
        return not samples or elapsed_s < limit.most_s
    if count >= limit.most or elapsed_s >= limit.most_s:
        return False
    spread = spread_of([one.wall_s if one.device_s is None else one.device_s for one in samples])
    return spread.relative > limit.relative * math.sqrt(count)


def spread_of(values: Sequence[float]) -> Spread:
    """Return median and quartiles of values, interpolated between neighbours."""
    ordered = sorted(values)
    return Spread(median=_at(ordered, 0.5), q1=_at(ordered, 0.25), q3=_at(ordered, 0.75), repeats=len(ordered))


def _at(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
