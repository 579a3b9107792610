"""DualPipe: two copies of the model, fed from both ends of the pipeline."""

from __future__ import annotations

from foretrain.errors import PlanError
from foretrain.sim.schedules.base import Order, Schedule, require_microbatches, require_one_chunk
from foretrain.sim.schedules.dualpipe_v import phases
from foretrain.sim.schedules.seats import BIDIRECTIONAL


class DualPipe(Schedule):
    """Every stage holds a part of both copies; half of the micro-batches come from each end, and pairs of passes run as one.

    With F and B seconds for the passes of a part, W of B for its weights and F&B for a pair, the bubble is (p/2 - 1)(F&B + B - 3W), a
    stage holds at most p + 1 passes, and the parameters twice.

    **Source:** DeepSeek-AI, DeepSeek-V3, arXiv:2412.19437, section 3.2.1 and table 2; order as github.com/deepseek-ai/DualPipe.
    """

    name = "dualpipe"
    seats = BIDIRECTIONAL

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return the eight phases of one stage; its near copy is the one whose first part is closer."""
        require_one_chunk(self.name, chunks, "dualpipe-v")
        require_microbatches(self.name, microbatches)
        if stages % 2:
            raise PlanError(f"schedule dualpipe meets in the middle of an even number of stages, not pp={stages}; use pp={_even(stages)}")
        if microbatches % 2 or microbatches < 2 * stages:
            least = 2 * stages
            nearest = f"{least}" if microbatches < least else f"{microbatches - 1} or {microbatches + 1}"
            raise PlanError(
                f"schedule dualpipe feeds {stages} stages from both ends with an even number of micro-batches from {least}, not "
                f"{microbatches}; nearest that it can: {nearest}"
            )
        half = stages // 2
        return phases(min(stage, stages - 1 - stage), half, microbatches // 2, near=int(stage >= half))


def _even(stages: int) -> str:
    return f"{stages + 1}" if stages == 1 else f"{stages - 1} or {stages + 1}"
