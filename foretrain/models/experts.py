"""Products of experts with the tokens that a router sends them, as one grouped matrix product."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from foretrain.models.matmul import Cut, divided
from foretrain.models.ops import Gemm, Kernel, KernelKind, Layout, Op
from foretrain.models.stream import stream_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedLinear(Op):
    """`experts` weights of `in_features` × `out_features`; each of `tokens` rows meets `per_token` of them.

    Rows spread evenly over the experts, of which each of `ep` ranks has its share; where there are fewer rows than experts, some see
    none and are not read. `column` cuts the outputs over tensor-parallel ranks, `row` the inputs. The kernel's FLOPs are those of the
    rows that there are, however they divide.
    **Source:** Gale et al., MegaBlocks, arXiv:2211.15841, section 3 (no token is dropped, nothing padded to a capacity).
    """

    name: str
    tokens: int
    experts: int
    per_token: int
    in_features: int
    out_features: int
    bias: bool
    cut: Cut
    trained: bool = True
    input_grad: bool = True
    group: str = ""

    @property
    def parameters(self) -> int:
        """Weights and biases of all experts."""
        return self.experts * (self.in_features + self.bias) * self.out_features

    @property
    def idle_parameters(self) -> int:
        """Those of the experts that a token does not meet."""
        return self.parameters // self.experts * (self.experts - self.per_token)

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the weights: it does."""
        return True

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one grouped product; the biases are added in its epilogue."""
        rows, width, depth = self._shape(layout)
        return (self._product(self.name, rows, width, depth, layout),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the sums for the biases, then the grouped products for the gradients of the inputs and of the weights."""
        rows, width, depth = self._shape(layout)
        bias = stream_kernel(f"{self.name}.bias_grad", self._routed(layout) * width * layout.element_bytes)
        data = self._product(f"{self.name}.dgrad", rows, depth, width, layout)
        weight = self._product(f"{self.name}.wgrad", width, depth, rows, layout)
        weights = tuple(replace(kernel, weight_grad=True) for kernel in ((bias, weight) if self.bias else (weight,)))
        return (*weights[:-1] * self.trained, *(data,) * self.input_grad, *weights[-1:] * self.trained)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the inputs, one copy for each expert that a token meets."""
        cut = layout.tp if self.cut == "row" else 1
        return self._routed(layout) * self.in_features / cut * layout.element_bytes if self.trained else 0.0

    def _routed(self, layout: Layout) -> int:
        """Rows of all experts together on one rank."""
        routed = layout.rows(self.tokens) * self.per_token
        return routed if layout.expert_load == 1.0 else ceil(routed * layout.expert_load)

    def _busy(self, layout: Layout) -> int:
        """Experts that have rows."""
        return min(self.experts // layout.ep, self._routed(layout))

    def _shape(self, layout: Layout) -> tuple[int, int, int]:
        """Rows, outputs and inputs of one expert on one rank."""
        rows = -(-self._routed(layout) // self._busy(layout))
        if self.cut == "column":
            return rows, divided(self.out_features, layout.tp), self.in_features
        return rows, self.out_features, divided(self.in_features, layout.tp)

    def _product(self, name: str, m: int, n: int, k: int, layout: Layout) -> Kernel:
        busy = self._busy(layout)
        flop = 2.0 * self._routed(layout) * self.in_features * self.out_features / layout.tp
        asked = 2.0 * layout.micro_batch * self.tokens * self.per_token * self.in_features * self.out_features / (layout.tp * layout.cp)
        moved = busy * (m * k + k * n + m * n) * layout.element_bytes
        return Kernel(
            name=name, kind=KernelKind.GEMM, flop=flop, model_flop=asked, moved_bytes=moved, gemm=Gemm(batch=busy, m=m, n=n, k=k)
        )
