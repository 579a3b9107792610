"""What it takes to add up the gradients of the micro-batches of a step, where the products that make them do not.

**Source:** PyTorch, `torch/csrc/autograd/functions/accumulate_grad.h` (a gradient that is there already is added to in place).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foretrain.models.ops import Kernel
from foretrain.models.stream import stream_kernel
from foretrain.sim.matrices import trained_tensors
from foretrain.sim.state import Unit

if TYPE_CHECKING:
    from foretrain.sim.lower import Context

PASSES = 3
"""Reading both gradients, and writing their sum."""


def added_gradients(context: Context, units: Sequence[Unit]) -> Kernel | None:
    """Return the addition of a micro-batch's gradients to those before it, which the first has none of: each has its share of that.

    Gradients that every micro-batch reduces to shards are added as shards.
    """
    placement, plan = context.placement, context.placement.plan
    count = placement.microbatches_each
    if not context.software.adds_gradients or count == 1:
        return None
    tensors = trained_tensors(unit.block for unit in units)
    if not tensors:
        return None
    shards = plan.shards if plan.zero >= 2 else 1
    share = (count - 1) / count
    moved = PASSES * context.numbers.state.reduce_bytes * sum(unit.trained for unit in units) / shards * share
    return stream_kernel("add gradients", moved, max(1, round(tensors * share)))
