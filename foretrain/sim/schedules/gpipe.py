"""GPipe: fill, then drain."""

from __future__ import annotations

from foretrain.sim.schedules.base import BACKWARD, FORWARD, Action, Order, Run, Schedule, require_microbatches, require_one_chunk


class GPipe(Schedule):
    """Run every forward, then every backward, in the order of the micro-batches; a stage holds all of them in between.

    torch's `ScheduleGPipe` drains in the same order; GPipe's own figure 2 draws the drain from the last micro-batch back, which
    costs the same time and memory.

    **Source:** Huang et al., GPipe, arXiv:1811.06965, section 2.3.
    """

    name = "gpipe"

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return all forwards, then all backwards."""
        require_one_chunk(self.name, chunks)
        require_microbatches(self.name, microbatches)
        return (Run((Action(FORWARD, 0),), microbatches), Run((Action(BACKWARD, 0),), microbatches))
