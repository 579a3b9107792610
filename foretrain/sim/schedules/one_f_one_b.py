"""Non-interleaved 1F1B."""

from __future__ import annotations

from foretrain.sim.schedules.base import (
    BACKWARD,
    FORWARD,
    Action,
    Order,
    Run,
    Schedule,
    order_of,
    require_microbatches,
    require_one_chunk,
)


class OneForwardOneBackward(Schedule):
    """Warm up with one forward per later stage, then alternate, then drain.

    **Source:** Narayanan et al., PipeDream-Flush, arXiv:2006.09503; Narayanan et al., arXiv:2104.04473, section 2.2.1.
    """

    name = "1f1b"

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return warm-up, steady state and drain of one stage; it holds at most `stages - stage` micro-batches at once."""
        require_one_chunk(self.name, chunks)
        require_microbatches(self.name, microbatches)
        forward, backward = Action(FORWARD, 0), Action(BACKWARD, 0)
        warmup = min(microbatches, stages - stage - 1)
        return order_of(
            Run((forward,), warmup),
            Run((forward, backward), microbatches - warmup),
            Run((backward,), warmup),
        )
