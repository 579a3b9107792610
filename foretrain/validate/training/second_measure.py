"""Repeats of a step under a budget of seconds, and what the process used in them."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from foretrain.validate.measuring.timer import spread_of

WARM_UP = 5
"""Steps before the first that counts: allocators and thread pools settle in them."""
LEAST, MOST = 5, 1000
"""Fewer repeats have no quartiles; more say nothing new."""
LOSSES = 3
QUEUED_S = {"cpu": 1e-3, "cuda": 0.05}
"""Steps are queued one after the other for so long, as in training, before the device is waited for."""
Run = Callable[[int], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Seconds by the wall and of processor time a step, and the losses of the first steps, which are of the warm-up."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    losses: tuple[float, ...]

    def data(self) -> dict[str, Any]:
        """Return what a record says of them; processor time is that of all ranks, which are one process."""
        wall, cpu = spread_of(self.wall_s), spread_of(self.cpu_s)
        return {"step_s": asdict(wall), "cpu_s": asdict(cpu), "losses": list(self.losses)}


def repeated(run: Run, *, device: str, seconds: float) -> Repeats:
    """Run steps until the budget is spent. `run(count)` runs so many, waits for the devices and returns the last loss."""
    losses = [run(1) for _ in range(WARM_UP)]
    start = time.perf_counter()
    run(1)
    count = max(1, math.ceil(QUEUED_S[device] / (time.perf_counter() - start)))
    wall, cpu = list[float](), list[float]()
    end = time.perf_counter() + seconds
    while len(wall) < LEAST or (len(wall) < MOST and time.perf_counter() < end):
        start, used = time.perf_counter(), time.process_time()
        run(count)
        wall.append((time.perf_counter() - start) / count)
        cpu.append((time.process_time() - used) / count)
    return Repeats(wall_s=tuple(wall), cpu_s=tuple(cpu), losses=tuple(losses[:LOSSES]))


def most_resident_bytes() -> int:
    """Return the most memory that this process held: kilobytes on Linux, bytes on macOS."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
