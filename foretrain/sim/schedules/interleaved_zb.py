"""Interleaved zero bubble: several chunks per stage, and gradients of weights in the bubble."""

from __future__ import annotations

from foretrain.sim.schedules.base import Order, Schedule, require_microbatches
from foretrain.sim.schedules.interleaved import round_size
from foretrain.sim.schedules.zero_bubble import split_order


class InterleavedZeroBubble(Schedule):
    """Interleave as 1F1B does with half its warm-up; stage s runs the gradient of the weights s passes behind that of the input.

    With one chunk it is ZB-H1.

    **Source:** Qi et al., arXiv:2401.10241 (ZB1P); order as torch's `ScheduleInterleavedZeroBubble`.
    """

    name = "interleaved-zb"

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return warm-up, whole periods, the rest of the last period, and drain of one stage."""
        require_microbatches(self.name, microbatches)
        size = round_size(stages=stages, microbatches=microbatches, schedule=self.name)
        warmup = min((chunks - 1) * size + stages - 1 - stage, chunks * microbatches)
        return split_order(warmup=warmup, lag=stage, chunks=chunks, size=size, microbatches=microbatches)
