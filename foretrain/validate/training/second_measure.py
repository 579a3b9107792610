"""Repeats of a step under a budget of seconds, and what the process used in them."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foretrain.validate.records import Spread

WARM_UP = 3
"""Steps before the first that counts: allocators and thread pools settle in them."""
LEAST, MOST = 5, 1000
"""Fewer repeats have no quartiles; more say nothing new."""
LOSSES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Seconds by the wall and of processor time of each repeat, and the losses of the first steps, warm-up included."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    losses: tuple[float, ...]


def repeated(step: Callable[[], float], *, seconds: float) -> Repeats:
    """Run a step, which returns its loss once the devices are done, until the budget is spent; warm-up does not count."""
    losses = [step() for _ in range(WARM_UP)]
    wall, cpu = list[float](), list[float]()
    end = time.perf_counter() + seconds
    while len(wall) < LEAST or (len(wall) < MOST and time.perf_counter() < end):
        start, used = time.perf_counter(), time.process_time()
        loss = step()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
        losses.append(loss)
    return Repeats(wall_s=tuple(wall), cpu_s=tuple(cpu), losses=tuple(losses[:LOSSES]))


def spread_data(values: Sequence[float]) -> dict[str, Any]:
    """Return median and quartiles of repeats as a record holds them."""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return asdict(Spread(median=median, q1=q1, q3=q3, repeats=len(values)))


def most_resident_bytes() -> int:
    """Return the most memory that this process held: kilobytes on Linux, bytes on macOS."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
