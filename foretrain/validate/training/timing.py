"""How long a step takes: the slowest process's time of each repeat, which all processes run equally often."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from foretrain.validate.measuring.pace import pace_s
from foretrain.validate.measuring.timer import Clock, EventClock, HostClock, Limit, Sample, spread_of
from foretrain.validate.records import Spread
from foretrain.validate.training.peers import Peers

Step = Callable[[], object]
GPU_SAMPLE_S = 0.05
"""Steps on a GPU are queued one after the other for so long, as in training, before it is waited for."""
CPU_SAMPLE_S = 1e-3
DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of a step, of the slowest process in each repeat; those on the device where that has a clock of its own."""

    samples: tuple[Sample, ...]

    @property
    def step_s(self) -> Spread:
        """As the host's clock says."""
        return spread_of([one.wall_s for one in self.samples])

    def data(self) -> dict[str, Any]:
        """Return what a record says: spreads, and the repeats that they are of."""
        names = {"step_s": "wall_s", "cpu_s": "cpu_s", "device_s": "device_s", "reference_s": "reference_s"}
        seconds = {name: [getattr(one, of) for one in self.samples] for name, of in names.items()}
        known = {name: values for name, values in seconds.items() if None not in values}
        spreads = {name: asdict(spread_of(values)) for name, values in known.items() if name != "reference_s"}
        return {"device_s": None, **spreads, "samples": {name: [_rounded(one) for one in values] for name, values in known.items()}}


def step_clock(device: str) -> Clock:
    """Return the clock of whole steps."""
    return EventClock() if device == "cuda" else HostClock()


def time_step(step: Step, peers: Peers, device: str, limit: Limit) -> StepTime:
    """Return how long a step takes that has been warmed up.

    The first process decides in batches how many repeats follow, so that agreeing disturbs none of them.
    """
    clock = step_clock(device)
    peers.meet()
    once_s = max(peers.each(clock.warm(step)))
    aim_s = GPU_SAMPLE_S if device == "cuda" else CPU_SAMPLE_S
    count = max(1, math.ceil(aim_s / once_s))
    samples: list[Sample] = []
    began_s = time.perf_counter()
    while batch := peers.decided(wanted(samples, once_s * count, time.perf_counter() - began_s, limit)):
        peers.meet()
        own = [_beside(clock, step, count) if device == "cpu" else clock.sample(step, count) for _ in range(batch)]
        samples += [_slowest(same) for same in zip(*peers.each(own), strict=True)]
    return StepTime(samples=tuple(samples))


def wanted(samples: Sequence[Sample], sample_s: float, elapsed_s: float, limit: Limit) -> int:
    """Return how many more samples to take: 0 where the median is known to `limit.relative`, or time or samples are used up.

    The median of n samples is known to about their relative quartile distance over √n.
    """
    count = len(samples)
    if count < limit.least:
        return limit.least - count
    known = spread_of([one.wall_s for one in samples]).relative <= limit.relative * math.sqrt(count)
    left = min(limit.most - count, math.ceil((limit.most_s - elapsed_s) / sample_s))
    return 0 if known else max(0, min(left, count))


def _slowest(same: Sequence[Sample]) -> Sample:
    """Return the longest times among those of one repeat on all processes."""
    device = [one.device_s for one in same if one.device_s is not None]
    references = [one.reference_s for one in same if one.reference_s is not None]
    return Sample(
        wall_s=max(one.wall_s for one in same), cpu_s=max(one.cpu_s for one in same), device_s=max(device) if device else None,
        reference_s=max(references) if references else None,
    )  # fmt: skip


def _beside(clock: Clock, step: Step, count: int) -> Sample:
    """Return a sample with the seconds of the reference work before and after it."""
    before_s = pace_s()
    found = clock.sample(step, count)
    return replace(found, reference_s=(before_s + pace_s()) / 2)


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{DIGITS}g}")
