"""The core of attention: softmax(Q·Kᵀ)·V, as separate kernels or as one fused one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.matmul import divided, gemm_kernel
from foretrain.models.ops import FusedAttention, Gemm, Kernel, KernelKind, Layout, Op
from foretrain.models.patterns import DROPOUT, SOFTCAP_EAGER, SOFTMAX, SOFTMAX_CAUSAL, SOFTMAX_EAGER
from foretrain.models.stream import Traffic, stream_kernel

STATISTIC_BYTES = 4.0
"""One fp32 log-sum-exp per head and query is all that a fused kernel keeps of the scores."""
FUSED_BACKWARD = 2.5
"""A fused backward pass runs five products of the size that forward runs two of: it computes the scores again.

Source: Dao, FlashAttention-2, arXiv:2307.08691, section 4.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one call of a fused kernel computes of a head: `queries` against `keys`, `pairs` of them; a query meets `reach` at most."""

    queries: int
    keys: int
    reach: int
    pairs: float
    causal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreAttention(Op):
    """Attention of `tokens` queries over as many keys, or over `key_tokens`, `heads` cut over tensor-parallel ranks.

    Values are as wide as queries and keys, or `value_dim`. `softcap` bounds the scores by a tanh. `sinks` are one learned score a
    head that every softmax counts. `gradients` says which of Q, K and V (0, 1, 2) anything before still needs one of; None: all. A
    fused kernel makes all of them anyway.

    It saves only what grows with the square of the sequence (scores after softmax, after dropout, and the mask; fused: the fp32
    log-sum-exp): that is what selective recomputation drops. Q, K and V belong to the product that made them (`Linear.saves_output`)
    and the result to the product that reads it, so both survive. Model FLOPs count causal attention in full and a sliding window
    over its width; a fused kernel skips the masked part, separate products run all of it.
    Source: Korthikanti et al., arXiv:2205.05198, sections 4.1 and 5; Chowdhery et al., arXiv:2204.02311, appendix B.
    """

    name: str
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    causal: bool
    dropout: bool
    score_bias: bool = False
    """A bias is added to the scores (ALiBi): unfused, it is copied into the result that the product then adds to."""
    window: int | None = None
    key_tokens: int | None = None
    value_dim: int | None = None
    softcap: bool = False
    sinks: bool = False
    gradients: frozenset[int] | None = None
    trained: bool = True
    group: str = "core_attention"

    @property
    def parameters(self) -> int:
        """Sinks; its other weights are those of the products around it."""
        return self.heads if self.sinks else 0

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the parameters: with the heads."""
        return True

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one fused kernel, or two batched products with softmax and dropout between them."""
        if layout.flash:
            return (self.fused(layout, self.whole(layout.cp), backward=False),)
        keys, scores = self._keys(), self.head_dim
        return (
            self._product("scores", self._rows(self.tokens, keys, scores, layout), scores, layout, self._bias_bytes(layout)),
            *self._softcap("softcap", SOFTCAP_EAGER.forward, SOFTCAP_EAGER.forward_launches, layout),
            self._scores_stream("softmax", self._softmax(layout), layout),
            *self._dropout(layout),
            self._product("context", self._rows(self.tokens, self._values(), keys, layout), self._values(), layout),
        )

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one fused kernel, or four batched products with the gradients of dropout and softmax between them."""
        if layout.flash:
            return (self.fused(layout, self.whole(layout.cp), backward=True),)
        tokens, keys, width, values = self.tokens, self._keys(), self.head_dim, self._values()
        queries, of_keys, of_values = (self.gradients is None or which in self.gradients for which in (0, 1, 2))
        values_grad = self._product("context.values_grad", self._rows(keys, values, tokens, layout), values, layout)
        queries_grad = self._product("scores.queries_grad", self._rows(tokens, width, keys, layout), width, layout)
        keys_grad = self._product("scores.keys_grad", self._rows(keys, width, tokens, layout), width, layout)
        scores = (
            self._product("context.dgrad", self._rows(tokens, keys, values, layout), values, layout),
            *(values_grad,) * of_values,
            *self._dropout(layout, suffix=".grad"),
            self._scores_stream("softmax.grad", self._softmax(layout), layout, backward=True),
            *self._softcap("softcap.grad", SOFTCAP_EAGER.backward, SOFTCAP_EAGER.backward_launches, layout),
            *(queries_grad,) * queries,
            *(keys_grad,) * of_keys,
        )
        return scores if queries or of_keys or (self.sinks and self.trained) else (values_grad,) * of_values

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes that selective recomputation would drop: 5·a·s²·b in 16 bits with dropout, fused 4·a·s·b."""
        if layout.flash:
            return layout.rows(self.tokens) * divided(self.heads, layout.tp) * STATISTIC_BYTES
        # Without dropout the second product reads the softmax itself, which is saved once.
        per_score = 2 * layout.element_bytes + 1.0 if self.dropout else layout.element_bytes
        return self._scores(layout) * (per_score + (layout.element_bytes if self.softcap else 0.0))

    def _heads(self, layout: Layout) -> int:
        """Heads of all samples of the micro-batch on one rank."""
        return layout.micro_batch * divided(self.heads, layout.tp)

    def _keys(self) -> int:
        return self.tokens if self.key_tokens is None else self.key_tokens

    def _values(self) -> int:
        return self.head_dim if self.value_dim is None else self.value_dim

    def _scores(self, layout: Layout) -> float:
        return float(self._heads(layout)) * self.tokens * self._keys() / layout.cp

    def _reach(self) -> int:
        """Keys that a query may see, before the causal mask."""
        return self._keys() if self.window is None else min(self.window, self._keys())

    def _model_flop(self, width: int, layout: Layout) -> float:
        """One product of the forward pass over `width` numbers a pair on one rank, an equal share of the model's."""
        return 2.0 * layout.micro_batch * self.heads * self.tokens * self._reach() * width / layout.tp

    def _rows(self, m: int, n: int, k: int, layout: Layout) -> Gemm:
        return Gemm(batch=self._heads(layout), m=m, n=n, k=k)

    def _product(self, name: str, gemm: Gemm, width: int, layout: Layout, extra_bytes: float = 0.0) -> Kernel:
        kernel = gemm_kernel(f"{self.name}.{name}", gemm, layout.element_bytes, self._model_flop(width, layout))
        return replace(kernel, moved_bytes=kernel.moved_bytes + extra_bytes) if extra_bytes else kernel

    def _bias_bytes(self, layout: Layout) -> float:
        """Writing the broadcast bias where the scores will be, and reading it back as the product adds to it."""
        return 2.0 * self._scores(layout) * layout.element_bytes if self.score_bias else 0.0

    def _softmax(self, layout: Layout) -> Traffic:
        if "softmax" not in layout.fused:
            return SOFTMAX_EAGER
        return SOFTMAX_CAUSAL if self.causal else SOFTMAX

    def _scores_stream(self, name: str, traffic: Traffic, layout: Layout, *, backward: bool = False) -> Kernel:
        passes, launches = (traffic.backward, traffic.backward_launches) if backward else (traffic.forward, traffic.forward_launches)
        return stream_kernel(f"{self.name}.{name}", self._scores(layout) * passes * layout.bytes_of("softmax"), launches)

    def _softcap(self, name: str, passes: float, launches: int, layout: Layout) -> tuple[Kernel, ...]:
        if not self.softcap:
            return ()
        return (stream_kernel(f"{self.name}.{name}", self._scores(layout) * passes * layout.element_bytes, launches),)

    def _dropout(self, layout: Layout, suffix: str = "") -> tuple[Kernel, ...]:
        if not self.dropout:
            return ()
        per_score = DROPOUT.forward * layout.element_bytes + 1.0
        return (stream_kernel(f"{self.name}.dropout{suffix}", self._scores(layout) * per_score),)

    def pairs(self, first: int, last: int) -> float:
        """Return the pairs of one head that a fused kernel computes for queries `first` to `last`: what the mask leaves of them."""
        return self._pairs_below(last) - self._pairs_below(first)

    def _pairs_below(self, query: int) -> float:
        """Return the pairs of the queries before one: the triangle, or the band, that the mask leaves."""
        reach = self._reach()
        if self.causal and query < reach:
            return query * query / 2
        return query * reach - (reach * reach / 2 if self.causal else 0.0)

    def whole(self, ranks: int = 1) -> Part:
        """Return all of it, or an even share of the queries of `ranks` ranks that have all keys."""
        reach, keys = self._reach(), self._keys()
        return Part(
            queries=-(-self.tokens // ranks),
            keys=keys,
            reach=reach,
            pairs=self._pairs_below(self.tokens) / ranks,
            # A window narrower than the sequence is a band of full rows, not a triangle.
            causal=self.causal and reach == self.tokens,
        )

    def key_elements(self, tp: int) -> int:
        """Return the numbers of K and V together of one token on one tensor-parallel rank."""
        return divided(self.kv_heads, tp) * (self.head_dim + self._values())

    def query_elements(self, tp: int) -> int:
        """Return the numbers of Q and of the result together of one token on one tensor-parallel rank."""
        return divided(self.heads, tp) * (self.head_dim + self._values())

    def result_elements(self, tp: int) -> int:
        """Return the numbers of the result of one token on one tensor-parallel rank."""
        return divided(self.heads, tp) * self._values()

    def fused(self, layout: Layout, part: Part, *, backward: bool) -> Kernel:
        """Return one call of a fused kernel; of the model's FLOPs it counts the share that its pairs are."""
        heads = self._heads(layout)
        width, values = self.head_dim, self._values()
        key_heads = layout.micro_batch * divided(self.kv_heads, layout.tp)
        flop = 2.0 * heads * part.pairs * (width + values)
        query_bytes = heads * part.queries * (width + values) * layout.element_bytes
        key_bytes = key_heads * part.keys * (width + values) * layout.element_bytes
        # Forward: Q, out and K, V. Backward: Q, out, dout, dQ and K, V, dK, dV. The statistics are written once and read once.
        moved = (query_bytes + key_bytes) * (2 if backward else 1)
        asked = (self._model_flop(width, layout) + self._model_flop(values, layout)) * (part.pairs / self._pairs_below(self.tokens))
        return Kernel(
            name=f"{self.name}.grad" if backward else self.name,
            kind=KernelKind.ATTENTION,
            flop=flop * (FUSED_BACKWARD if backward else 1.0),
            model_flop=asked * (2.0 if backward else 1.0),
            moved_bytes=moved + heads * part.queries * STATISTIC_BYTES,
            attention=FusedAttention(
                heads=heads, queries=part.queries, keys=part.reach, head_dim=width, causal=part.causal, backward=backward
            ),
        )
