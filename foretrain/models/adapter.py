"""A low-rank adapter beside a frozen product."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.matmul import Cut, divided, gemm_kernel
from foretrain.models.ops import Gemm, Kernel, Layout, Op
from foretrain.models.stream import stream_kernel

FORWARD_PASSES = 5
"""Scaling the result (read, write) and adding it to the product's (two reads, a write)."""
BACKWARD_PASSES = 2
"""Scaling the gradient; it reaches the frozen product as it is."""
SUM_PASSES = 3
"""Adding the gradient of the input to that through the frozen product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter(Op):
    """Two thin products, `in_features` × `rank` and `rank` × `out_features`, added to a product that `cut` divides over ranks.

    Beside a column-parallel product the first is whole on every rank and the second cut; beside a row-parallel one the first is cut and
    the second whole, so that its partial result leaves with the product's. The small gradients of the whole ones would be summed over
    the ranks; they are too few bytes to count. `saves_input` where no adapter before it keeps the same input;
    `shared` weights are those of an earlier layer's adapter.
    **Source:** Hu et al., LoRA, arXiv:2106.09685, section 4.1.
    """

    name: str
    tokens: int
    in_features: int
    out_features: int
    rank: int
    cut: Cut
    saves_input: bool = True
    input_grad: bool = True
    trained: bool = True
    shared: bool = False
    group: str = ""

    @property
    def parameters(self) -> int:
        """Both thin weights, where they are held."""
        return 0 if self.shared else self.rank * (self.in_features + self.out_features)

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides them all: only one of the two."""
        return False

    def parameters_per_rank(self, tp: int, ep: int = 1) -> float:
        """Return the parameters that one of `tp` tensor-parallel ranks holds; no adapter belongs to experts."""
        ins, outs = self._degrees(tp)
        return 0.0 if self.shared else self.rank * (self.in_features / ins + self.out_features / outs)

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the two products, and the sum with the frozen product's result."""
        rows, ins, outs = self._shape(layout)
        return (
            self._product("down", Gemm(batch=1, m=rows, n=self.rank, k=ins), self.in_features, layout),
            self._product("up", Gemm(batch=1, m=rows, n=outs, k=self.rank), self.out_features, layout),
            stream_kernel(f"{self.name}.add", FORWARD_PASSES * rows * outs * layout.element_bytes, 2),
        )

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the gradients of the second product, then of the first; of the input only where something before it trains."""
        rows, ins, outs = self._shape(layout)
        made = [
            stream_kernel(f"{self.name}.scale", BACKWARD_PASSES * rows * outs * layout.element_bytes),
            self._product("up.dgrad", Gemm(batch=1, m=rows, n=self.rank, k=outs), self.out_features, layout),
            replace(self._product("up.wgrad", Gemm(batch=1, m=outs, n=self.rank, k=rows), self.out_features, layout), weight_grad=True),
        ]
        if self.input_grad:
            made.append(self._product("down.dgrad", Gemm(batch=1, m=rows, n=ins, k=self.rank), self.in_features, layout))
            made.append(stream_kernel(f"{self.name}.sum", SUM_PASSES * rows * ins * layout.element_bytes))
        down = self._product("down.wgrad", Gemm(batch=1, m=self.rank, n=ins, k=rows), self.in_features, layout)
        return (*made, replace(down, weight_grad=True))

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the input, kept once for all that read it, and of the thin result."""
        rows, ins, _ = self._shape(layout)
        shared = layout.input_cut if self.cut == "column" else 1
        return rows * (ins / shared * self.saves_input + self.rank) * layout.element_bytes

    def _degrees(self, tp: int) -> tuple[int, int]:
        return (tp if self.cut == "row" else 1), (tp if self.cut == "column" else 1)

    def _shape(self, layout: Layout) -> tuple[int, int, int]:
        """Rows, inputs and outputs on one rank."""
        ins, outs = self._degrees(layout.tp)
        rows = layout.rows(self.tokens)
        if self.cut == "none":
            rows = divided(rows, layout.sequence_cut)
        return rows, divided(self.in_features, ins), divided(self.out_features, outs)

    def _product(self, name: str, gemm: Gemm, wide: int, layout: Layout) -> Kernel:
        share = 2.0 * layout.micro_batch * self.tokens * wide * self.rank / (layout.tp * layout.cp)
        return gemm_kernel(f"{self.name}.{name}", gemm, layout.element_bytes, share)
