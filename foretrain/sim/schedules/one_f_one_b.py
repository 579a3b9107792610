"""Non-interleaved 1F1B."""

from __future__ import annotations

from foretrain.errors import PlanError
from foretrain.sim.schedules.base import BACKWARD, FORWARD, Action, Order, Run, Schedule


class OneForwardOneBackward(Schedule):
    """Warm up with one forward per later stage, then alternate, then drain.

    **Source:** Narayanan et al., PipeDream-Flush, arXiv:2006.09503; Narayanan et al., arXiv:2104.04473, section 2.2.1.
    """

    name = "1f1b"

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return warm-up, steady state and drain of one stage."""
        if chunks != 1:
            raise PlanError(f"schedule 1f1b runs one model chunk per stage, not vpp={chunks}; use schedule interleaved-1f1b or vpp=1")
        forward, backward = Action(FORWARD, 0), Action(BACKWARD, 0)
        warmup = min(microbatches, stages - stage - 1)
        return (
            Run((forward,), warmup),
            Run((forward, backward), microbatches - warmup),
            Run((backward,), warmup),
        )
