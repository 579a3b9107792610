"""ZB-H2: no bubble where all passes are equal, at about twice the memory of 1F1B."""

from __future__ import annotations

from foretrain.sim.schedules.base import Order, Schedule, require_microbatches, require_one_chunk
from foretrain.sim.schedules.zero_bubble import split_order


class ZeroBubbleH2(Schedule):
    """Warm up with twice the forwards, enough to fill the wait for the first backward; stage s runs weights 2s micro-batches behind.

    The bubble of a stage, from its first pass to its last, is (p - 1)(F + B - 2W), and every stage holds at most 2p - 1 micro-batches.
    Stages start and end one after another, so that a step on its own is (p - 1)F longer than its stages take.

    **Source:** Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section 2.2 and table 2.
    """

    name = "zb-h2"

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return warm-up, steady state and drain of one stage."""
        require_one_chunk(self.name, chunks, "interleaved-zb")
        require_microbatches(self.name, microbatches)
        warmup = min(microbatches, 2 * (stages - 1 - stage))
        return split_order(warmup=warmup, lag=2 * stage, chunks=1, size=microbatches, microbatches=microbatches)
