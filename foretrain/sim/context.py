"""Attention whose rows are cut over context-parallel ranks: three ways to bring queries and keys together.

Each way turns the core of attention into legs of one rank. Where the mask leaves ranks unlike amounts of work, the slowest sets the
pace: a rank that stands for all of them works its mean share and waits for the rest.

**Source:** Liu et al., Ring Attention, arXiv:2310.01889, section 3; Llama Team, arXiv:2407.21783, section 3.3.2 (all-gather);
Jacobs et al., DeepSpeed-Ulysses, arXiv:2309.14509, section 3; Brandon et al., Striped Attention, arXiv:2311.09431, section 2.2
(imbalance of the causal ring).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, final

from foretrain.models.attention import CoreAttention, Part
from foretrain.models.ops import Layout
from foretrain.models.stream import stream_kernel
from foretrain.sim.inline import waiting
from foretrain.sim.segment import CONTEXT, Leg

if TYPE_CHECKING:
    from foretrain.sim.passes import Passes

MERGED_BYTES = 4.0
"""Partial results of a ring are summed in fp32."""


class ContextMode(ABC):
    """One way to attend across ranks. `rank` is the context rank that is played, None where one stands for all."""

    def __init__(self, *, contiguous: bool, rank: int | None) -> None:
        self.contiguous = contiguous
        self.rank = rank

    @abstractmethod
    def forward(self, op: CoreAttention, desk: Passes) -> list[Leg]:
        """Return the legs of one forward pass."""

    @abstractmethod
    def backward(self, op: CoreAttention, desk: Passes) -> list[Leg]:
        """Return the legs of one backward pass."""

    @abstractmethod
    def buffer_bytes(self, op: CoreAttention, layout: Layout, *, backward: bool) -> float:
        """Return the bytes of other ranks' keys and values, and of their gradients, that one pass holds at a time."""

    def _busy(self, work: Sequence[float]) -> float:
        """Return the share of the slowest rank's work that the played rank has."""
        own = sum(work) / len(work) if self.rank is None else work[self.rank]
        return own / max(work)


@final
class Ring(ContextMode):
    """Keys and values go round in cp - 1 sends, each beside the attention over those that came before.

    Backward they go round again, and their gradients with them, one send more until they are home. With the balanced cut, the first
    block is a triangle and all others are half blocks; with the contiguous one, rank r computes r whole blocks after its triangle.
    """

    def forward(self, op: CoreAttention, desk: Passes) -> list[Leg]:
        """Return block after block, each with its merge and with what the send beside it leaves exposed."""
        size = _key_bytes(op, desk.layout, op.key_tokens or op.tokens) / desk.layout.cp
        legs: list[Leg] = []
        for step in range(desk.layout.cp):
            block = desk.compute_leg(op.fused(desk.layout, self._part(op, desk.layout.cp, step), backward=False))
            merge = (_merge(op, desk, passes=2 * MERGED_BYTES + desk.layout.element_bytes),) if step else ()
            legs += self._played(desk, step, (block, *merge))
            legs += desk.transfers.ring(f"{op.name} keys {step}", size if step < desk.layout.cp - 1 else 0.0, block)
        return legs

    def backward(self, op: CoreAttention, desk: Passes) -> list[Leg]:
        """Return block after block; the gradients of the last one's keys still have to come home."""
        last = desk.layout.cp - 1
        size = _key_bytes(op, desk.layout, op.key_tokens or op.tokens) / desk.layout.cp
        returned = size if _keys_have_gradients(op) else 0.0
        legs: list[Leg] = []
        for step in range(desk.layout.cp):
            block = desk.compute_leg(op.fused(desk.layout, self._part(op, desk.layout.cp, step), backward=True))
            merge = (_merge(op, desk, passes=3 * desk.layout.element_bytes),) if step else ()
            legs += self._played(desk, step, (block, *merge))
            legs += desk.transfers.ring(f"{op.name} keys {step} backward", size * (step < last) + returned * (step > 0), block)
        return [*legs, *desk.transfers.ring(f"{op.name} gradients home", returned, None)]

    def buffer_bytes(self, op: CoreAttention, layout: Layout, *, backward: bool) -> float:
        """Return two blocks: the one in use and the one that comes; backward with their gradients."""
        return 2 * _key_bytes(op, layout, op.key_tokens or op.tokens) / layout.cp * (2 if backward else 1)

    def _part(self, op: CoreAttention, ranks: int, step: int) -> Part:
        """Return what the slowest rank computes in one step."""
        rows, keys = op.tokens // ranks, (op.key_tokens or op.tokens) // ranks
        if op.causal and step == 0:
            return Part(queries=rows, keys=keys, reach=keys, pairs=rows * keys / 2, causal=True)
        # Of the balanced cut, ranks meet half of the keys or have half of the queries to ask: the shorter keys are the slower kernel.
        met = keys if self.contiguous or not op.causal else keys // 2
        return Part(queries=rows, keys=met, reach=met, pairs=float(rows * met), causal=False)

    def _played(self, desk: Passes, step: int, legs: Sequence[Leg]) -> list[Leg]:
        ranks = desk.layout.cp
        busy = self._busy([float(rank >= step) for rank in range(ranks)]) if self.contiguous else 1.0
        return [waiting(leg, busy, CONTEXT) for leg in legs if busy]


@final
class AllGather(ContextMode):
    """Keys and values of all ranks are gathered before one call, again backward, and their gradients scattered after it."""

    def forward(self, op: CoreAttention, desk: Passes) -> list[Leg]:
        """Return the gather, then the rank's rows over all keys."""
        return [*self._gather(op, desk, "keys"), *self._attention(op, desk, backward=False)]

    def backward(self, op: CoreAttention, desk: Passes) -> list[Leg]:
        """Return the gather, the rank's rows, and the reduction of the gradients of all keys."""
        size = _key_bytes(op, desk.layout, op.key_tokens or op.tokens) * _keys_have_gradients(op)
        scatter = desk.transfers.context(f"{op.name} gradients", "reduce_scatter", size)
        return [*self._gather(op, desk, "keys backward"), *self._attention(op, desk, backward=True), *scatter]

    def buffer_bytes(self, op: CoreAttention, layout: Layout, *, backward: bool) -> float:
        """Return the keys and values of the whole sequence; backward with their gradients."""
        return _key_bytes(op, layout, op.key_tokens or op.tokens) * (2 if backward else 1)

    def _gather(self, op: CoreAttention, desk: Passes, what: str) -> tuple[Leg, ...]:
        return desk.transfers.context(f"{op.name} {what}", "all_gather", _key_bytes(op, desk.layout, op.key_tokens or op.tokens))

    def _attention(self, op: CoreAttention, desk: Passes, *, backward: bool) -> list[Leg]:
        work = shares(op, desk.layout.cp, contiguous=self.contiguous)
        part = replace(op.whole(desk.layout.cp), pairs=max(work))
        leg = desk.compute_leg(op.fused(desk.layout, part, backward=backward))
        return [waiting(leg, self._busy(work), CONTEXT)]


@final
class Ulysses(ContextMode):
    """Ranks swap rows for heads: each has its share of the heads over the whole sequence, and swaps the result back."""

    def forward(self, op: CoreAttention, desk: Passes) -> list[Leg]:
        """Return the swap of Q, K and V, attention of a share of the heads, and the swap of the result."""
        kernels = [desk.compute_leg(kernel) for kernel in op.forward(_heads_cut(desk.layout))]
        return [*self._swap(op, desk, "forward", keys=True), *kernels, *self._swap(op, desk, "forward", keys=False)]

    def backward(self, op: CoreAttention, desk: Passes) -> list[Leg]:
        """Return the same in reverse."""
        kernels = [desk.compute_leg(kernel) for kernel in op.backward(_heads_cut(desk.layout))]
        return [*self._swap(op, desk, "backward", keys=False), *kernels, *self._swap(op, desk, "backward", keys=True)]

    def buffer_bytes(self, op: CoreAttention, layout: Layout, *, backward: bool) -> float:
        """Return one tensor under way, the largest: Q, or K and V."""
        rows = layout.rows(op.tokens)
        return rows * max(op.key_elements(layout.tp), op.query_elements(layout.tp) / 2) * layout.element_bytes

    def _swap(self, op: CoreAttention, desk: Passes, direction: str, *, keys: bool) -> tuple[Leg, ...]:
        """Return the swap of Q, K and V (`keys`) or of the result, as one exchange."""
        layout = desk.layout
        values = layout.rows(op.tokens) * op.result_elements(layout.tp)
        queries = layout.rows(op.tokens) * op.query_elements(layout.tp) - values
        size = queries + layout.rows(op.key_tokens or op.tokens) * op.key_elements(layout.tp) if keys else values
        name = f"{op.name} {'heads' if keys else 'result'} {direction}"
        return desk.transfers.context(name, "all_to_all", size * layout.element_bytes)


MODES: dict[str, type[ContextMode]] = {"ring": Ring, "all-gather": AllGather, "ulysses": Ulysses}


def shares(op: CoreAttention, ranks: int, *, contiguous: bool) -> list[float]:
    """Return the pairs of one head that each context rank computes.

    `contiguous`: rank r has the r-th part of the rows. Balanced: parts r and 2 · ranks - 1 - r of twice as many, whose causal triangles
    add up to the same. **Source:** Megatron-Core, `get_batch_on_this_cp_rank`; torch, `_HeadTailLoadBalancer`.
    """
    parts = ranks if contiguous else 2 * ranks
    edges = [op.tokens * edge // parts for edge in range(parts + 1)]
    work = [op.pairs(first, last) for first, last in pairwise(edges)]
    return work if contiguous else [work[rank] + work[-1 - rank] for rank in range(ranks)]


def _heads_cut(layout: Layout) -> Layout:
    return replace(layout, tp=layout.tp * layout.cp, cp=1)


def _key_bytes(op: CoreAttention, layout: Layout, tokens: int) -> float:
    """Return the bytes of K and V of `tokens` a sample on one tensor-parallel rank."""
    return layout.micro_batch * tokens * op.key_elements(layout.tp) * layout.element_bytes


def _keys_have_gradients(op: CoreAttention) -> bool:
    return op.gradients is None or bool(op.gradients & {1, 2})


def _merge(op: CoreAttention, desk: Passes, passes: float) -> Leg:
    """Return the kernel that adds a block's result, or the gradient of its queries, to those before; `passes` are bytes an element."""
    elements = desk.layout.rows(op.tokens) * op.result_elements(desk.layout.tp)
    return desk.compute_leg(stream_kernel(f"{op.name}.merge", elements * passes))
