"""Looped breadth-first: every micro-batch through a chunk before the next chunk's turn."""

from __future__ import annotations

from foretrain.sim.schedules.base import BACKWARD, FORWARD, Action, Order, Run, Schedule, require_microbatches


class LoopedBFS(Schedule):
    """Run all forwards of the first chunk, then of the next, and back the same way, the last micro-batch first.

    The bubble is GPipe's over the chunks, and so is what is held: everything. It pays where parameters are gathered or gradients reduced
    per chunk, once for all micro-batches.

    **Source:** Lamy-Poirier, Breadth-First Pipeline Parallelism, arXiv:2211.05953, section 4.1; order as torch's `ScheduleLoopedBFS`.
    """

    name = "looped-bfs"

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return all forwards chunk by chunk, then all backwards from the last chunk back."""
        require_microbatches(self.name, microbatches)
        forwards = (Run((Action(FORWARD, chunk),), microbatches) for chunk in range(chunks))
        backwards = (Run((Action(BACKWARD, chunk),), microbatches, falling=True) for chunk in reversed(range(chunks)))
        return (*forwards, *backwards)
