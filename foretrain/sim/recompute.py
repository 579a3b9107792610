"""Which steps of a layer run again in backward instead of keeping their activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from foretrain.models.attention import CoreAttention
from foretrain.models.matmul import Linear, divided
from foretrain.models.model import Block, Step
from foretrain.models.ops import Boundary, Layout, Op
from foretrain.models.stream import Streaming
from foretrain.sim.recompute_share import recompute_share

CORE = "core_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputation:
    """What runs again, named by `again`, and what a layer keeps for it.

    Where `feeding`, they run again from what they keep, to give the products after them their inputs, which are then not kept.
    Steps that do not run again keep what they always keep, unless `outputs` says what the layer keeps of results instead. `inputs`
    counts the tensors of the size of its input that it keeps besides.
    """

    again: Callable[[Sequence[Step]], tuple[Step, ...]]
    inputs: int
    outputs: Callable[[Block, Layout], float] | None = None
    feeding: bool = False

    def kept_bytes(self, block: Block, layout: Layout) -> float:
        """Return the activation bytes that one micro-batch keeps on one rank for a layer."""
        if block.still:
            return 0.0
        again = {id(step) for step in self.again(block.steps)}
        boundary = self.inputs * block.input_elements * layout.micro_batch * layout.element_bytes / (layout.sequence_cut * layout.cp)
        if self.feeding:
            fed = sum(_input_bytes(op, layout) for op in _fed(block.steps, again))
            return sum(op.saved_bytes(layout) for op in block.ops) - fed
        if self.outputs is not None:
            return boundary + self.outputs(block, layout)
        return boundary + sum(op.saved_bytes(layout) for op in block.ops if id(op) not in again)


def _products(block: Block) -> list[tuple[Linear, int]]:
    """Return the products of a block in order, as a framework keeps them apart, each with its outputs."""
    linears = [op for op in block.ops if isinstance(op, Linear)]
    return [(op, outs) for op in linears for outs in ([outs for _, outs in op.parts] or [op.out_features])]


def _output_bytes(linear: Linear, outs: int, layout: Layout) -> float:
    cut = {"column": layout.tp, "row": layout.sequence_cut, "none": 1}[linear.cut]
    return layout.rows(linear.tokens) * outs * layout.element_bytes / cut


def _all_outputs(block: Block, layout: Layout) -> float:
    """Return the results of all products."""
    return sum(_output_bytes(op, outs, layout) for op, outs in _products(block))


def _alternate_outputs(block: Block, layout: Layout) -> float:
    """Return the results of the first, third and so on of the products, and of attention with what it keeps of the scores."""
    cores = [op for op in block.ops if isinstance(op, CoreAttention)]
    attended = sum(op.saved_bytes(replace(layout, flash=True)) + _attended_bytes(op, layout) for op in cores)
    return attended + sum(_output_bytes(op, outs, layout) for op, outs in _products(block)[::2])


def _alternate_outputs_read(block: Block, layout: Layout) -> float:
    """Return the same without products whose result backward does not read: it is only added to the residual stream."""
    added = [before for before, after in pairwise(block.ops) if isinstance(after, Streaming) and after.pattern == "bias_dropout_add"]
    unread = {id(op) for op in added if isinstance(op, Linear)}
    spared = sum(_output_bytes(op, outs, layout) for op, outs in _products(block)[::2] if id(op) in unread)
    return _alternate_outputs(block, layout) - spared


def _attended_bytes(core: CoreAttention, layout: Layout) -> float:
    """Return the bytes of what attention makes."""
    width = core.head_dim if core.value_dim is None else core.value_dim
    return layout.rows(core.tokens) * divided(core.heads, layout.tp) * width * layout.element_bytes


def _input_bytes(linear: Linear, layout: Layout) -> float:
    return replace(linear, saves_output=False).saved_bytes(layout)


def _fed(steps: Sequence[Step], again: set[int]) -> list[Linear]:
    """Return the products whose input one of the steps that run again makes."""
    ops = [step for step in steps if isinstance(step, Op)]
    return [after for before, after in pairwise(ops) if id(before) in again and isinstance(after, Linear)]


def _of(*patterns: str) -> Callable[[Sequence[Step]], tuple[Step, ...]]:
    """Return what names the memory-bound ops of some patterns that feed a product."""

    def named(steps: Sequence[Step]) -> tuple[Step, ...]:
        ops = [step for step in steps if isinstance(step, Op)]
        feeding = {id(before) for before, after in pairwise(ops) if isinstance(after, Linear)}
        return tuple(op for op in ops if isinstance(op, Streaming) and op.pattern in patterns and id(op) in feeding)

    return named


def _core(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if isinstance(step, Op) and step.group == CORE)


def _alternate(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return all but attention and every other product: torchtitan's per-op policy saves the first product of each pair.

    It counts products that read the same input apart (Q, K, V; gate and up), and keeps the results of those saved, the attention's and
    the layer's input.
    **Source:** torchtitan, `models/llama/parallelize_llama.py`, `_apply_ac_to_transformer_block`.
    """
    result: list[Step] = []
    products = 0
    for step in steps:
        if isinstance(step, Linear):
            products += 1
            if products % 2:
                continue
        if isinstance(step, Boundary) or step.group != CORE:
            result.append(step)
    return tuple(result)


def _all_but_products(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if isinstance(step, Op) and not isinstance(step, Linear))


NOTHING_AGAIN = Recomputation(again=lambda _steps: (), inputs=0)
_NAMED = {
    "none": NOTHING_AGAIN,
    "full": Recomputation(again=tuple, inputs=1),
    "attention": Recomputation(again=_core, inputs=0),
    "norms": Recomputation(again=_of("norm"), inputs=0, feeding=True),
    "activations": Recomputation(again=_of("bias_gelu", "swiglu"), inputs=0, feeding=True),
}
_SELECTIVE = {
    "core_attention": Recomputation(again=_core, inputs=0),
    "alternate_products": Recomputation(again=_alternate, inputs=1, outputs=_alternate_outputs),
    "alternate_products_read": Recomputation(again=_alternate, inputs=1, outputs=_alternate_outputs_read),
    "all_but_products": Recomputation(again=_all_but_products, inputs=1, outputs=_all_outputs),
}


def recomputation(recompute: str, selective: str) -> Recomputation:
    """Return the policy of a plan's `recompute` under a software's meaning of `selective`.

    **Source:** Chen et al., arXiv:1604.06174 (full); Korthikanti et al., arXiv:2205.05198, section 5 (core attention).
    """
    return _NAMED.get(recompute_share(recompute).policy) or _SELECTIVE[selective]
