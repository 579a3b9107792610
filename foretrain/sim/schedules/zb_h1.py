"""ZB-H1: the bubble of 1F1B filled with gradients of weights, at its memory."""

from __future__ import annotations

from foretrain.sim.schedules.base import Order, Schedule, require_microbatches, require_one_chunk
from foretrain.sim.schedules.zero_bubble import split_order


class ZeroBubbleH1(Schedule):
    """Warm up as 1F1B does; stage s runs the gradient of the weights s micro-batches behind that of the input.

    With F, B and W seconds for the forward pass and the gradients of input and weights the bubble is (p - 1)(F + B - W), and every stage
    holds at most p micro-batches.

    **Source:** Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section 2.1 and table 2; order as torch's
    `ScheduleInterleavedZeroBubble` with one chunk.
    """

    name = "zb-h1"

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return warm-up, steady state and drain of one stage."""
        require_one_chunk(self.name, chunks, "interleaved-zb")
        require_microbatches(self.name, microbatches)
        warmup = min(microbatches, stages - 1 - stage)
        return split_order(warmup=warmup, lag=stage, chunks=1, size=microbatches, microbatches=microbatches)
