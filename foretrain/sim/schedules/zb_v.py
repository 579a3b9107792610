"""ZB-V: zero bubble at the memory of 1F1B, the model laid over the stages as a V."""

from __future__ import annotations

from foretrain.sim.schedules.base import (
    FORWARD,
    INPUT,
    WEIGHT,
    Action,
    Order,
    Run,
    Schedule,
    first_of,
    order_of,
    require_chunks,
    require_microbatches,
)
from foretrain.sim.schedules.seats import VEE

F0, F1 = Action(FORWARD, 0), Action(FORWARD, 1)
B0, B1 = Action(INPUT, 0), Action(INPUT, 1)
W0, W1 = Action(WEIGHT, 0), Action(WEIGHT, 1)


class ZeroBubbleV(Schedule):
    """Two chunks per stage, the second on the way back, so that the backward pass begins where the forward pass ends.

    Every stage holds at most 2p passes of its two chunks, as much as 1F1B's first stage; where the passes F, B and W of a chunk take
    equally long, no stage waits between its first pass and its last.

    **Source:** Qi et al., Pipeline Parallelism with Controllable Memory, arXiv:2405.15362; arXiv:2401.10241, section 6; order as torch's
    `ScheduleZBVZeroBubble`.
    """

    name = "zb-v"
    seats = VEE

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return warm-up, steady state and drain of one stage."""
        require_chunks(self.name, chunks, 2)
        require_microbatches(self.name, microbatches)
        least = 2 * stages - 1
        order = _order(stage, stages, max(least, microbatches))
        return order if microbatches >= least else first_of(order, microbatches)


def _order(stage: int, stages: int, microbatches: int) -> Order:
    """Return the order for at least 2 · stages - 1 micro-batches."""
    later = stages - stage
    return order_of(
        Run((F0,), 2 * later - 1),
        Run((F1, F0), stage),
        Run((F1, B1, W1), later),
        Run((F0, B0, W0, F1, B1, W1), microbatches - 2 * stages + 1 + stage),
        Run((B0, W0, F1, B1, W1), later - 1),
        Run((B0, B1), stage),
        Run((B0, W0), later),
        Run((W1,), stage),
        Run((W0,), stage),
    )
