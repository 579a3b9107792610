"""Attention whose queries, keys and values differ in number or width: cross-attention, latent attention."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.attention import STATISTIC_BYTES
from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import FusedAttention, Gemm, Kernel, KernelKind, Layout, Weightless
from foretrain.models.patterns import DROPOUT, SOFTMAX, SOFTMAX_EAGER
from foretrain.models.stream import stream_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttention(Weightless):
    """`heads` of `queries` over `keys`, `head_dim` wide, their values `value_dim` wide; all per sample, uncut by tensor parallelism.

    Saves what `CoreAttention` saves: scores and mask, or one fp32 log-sum-exp per query where it runs fused.
    Source: as of `CoreAttention`; the fused backward pass runs three products of width `head_dim` and two of `value_dim`
    (Dao, arXiv:2307.08691, algorithm 2).
    """

    name: str
    queries: int
    keys: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    causal: bool = False
    dropout: bool = False
    score_bias: bool = False
    group: str = "core_attention"

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one fused kernel, or two batched products with softmax and dropout between them."""
        if layout.flash:
            return (self._fused(layout, backward=False),)
        scores = self._product("scores", self.keys, self.head_dim, layout)
        bias = (self._scores_stream("bias", 2.0, 1, layout),) if self.score_bias else ()
        soft = SOFTMAX if "softmax" in layout.fused else SOFTMAX_EAGER
        softmax = self._scores_stream("softmax", soft.forward, soft.forward_launches, layout)
        return (scores, *bias, softmax, *self._dropout(layout), self._product("context", self.value_dim, self.keys, layout))

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one fused kernel, or four batched products with the gradients of dropout and softmax between them."""
        if layout.flash:
            return (self._fused(layout, backward=True),)
        soft = SOFTMAX if "softmax" in layout.fused else SOFTMAX_EAGER
        return (
            self._product("context.dgrad", self.keys, self.value_dim, layout),
            self._product("context.values_grad", self.value_dim, self.keys, layout),
            *self._dropout(layout),
            self._scores_stream("softmax.grad", soft.backward, soft.backward_launches, layout),
            self._product("scores.queries_grad", self.head_dim, self.keys, layout),
            self._product("scores.keys_grad", self.head_dim, self.keys, layout),
        )

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes that selective recomputation would drop."""
        if layout.flash:
            return layout.micro_batch * self.heads * self.queries * STATISTIC_BYTES
        return self._scores(layout) * (2 * layout.element_bytes + 1.0 if self.dropout else layout.element_bytes)

    def _scores(self, layout: Layout) -> float:
        return float(layout.micro_batch * self.heads * self.queries * self.keys)

    def _product(self, name: str, n: int, k: int, layout: Layout) -> Kernel:
        gemm = Gemm(batch=layout.micro_batch * self.heads, m=self.queries, n=n, k=k)
        return gemm_kernel(f"{self.name}.{name}", gemm, layout.element_bytes)

    def _scores_stream(self, name: str, passes: float, launches: int, layout: Layout) -> Kernel:
        return stream_kernel(f"{self.name}.{name}", self._scores(layout) * passes * layout.element_bytes, launches)

    def _dropout(self, layout: Layout) -> tuple[Kernel, ...]:
        per_score = DROPOUT.forward * layout.element_bytes + 1.0
        return (stream_kernel(f"{self.name}.dropout", self._scores(layout) * per_score),) if self.dropout else ()

    def _fused(self, layout: Layout, *, backward: bool) -> Kernel:
        widths = 3 * self.head_dim + 2 * self.value_dim if backward else self.head_dim + self.value_dim
        asked = 2.0 * self._scores(layout) * (self.head_dim + self.value_dim) * (2.0 if backward else 1.0)
        # A causal kernel skips the masked part; with fewer queries than keys the triangle sits at the end of a rectangle.
        short = min(self.queries, self.keys)
        seen = 1.0 - short / (2.0 * self.keys) if self.causal else 1.0
        tokens = self.heads * self.queries + self.kv_heads * self.keys
        moved = layout.micro_batch * tokens * (self.head_dim + self.value_dim) * layout.element_bytes * (2 if backward else 1)
        return Kernel(
            name=f"{self.name}.grad" if backward else self.name,
            kind=KernelKind.ATTENTION,
            flop=2.0 * self._scores(layout) * widths * seen,
            model_flop=asked,
            moved_bytes=moved + layout.micro_batch * self.heads * self.queries * STATISTIC_BYTES,
            attention=FusedAttention(
                heads=layout.micro_batch * self.heads, queries=self.queries, keys=self.keys, head_dim=max(self.head_dim, self.value_dim),
                causal=self.causal, backward=backward,
            ),
        )  # fmt: skip
