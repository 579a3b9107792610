"""The weighted sum of attention whose scores another op makes."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import Gemm, Kernel, Layout, Weightless
from foretrain.models.patterns import SOFTMAX
from foretrain.models.stream import stream_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Weightless):
    """The softmax over `tokens` scores of each of as many queries, and the sum of vectors of `width` that it weights.

    Source: Bahdanau et al., arXiv:1409.0473, section 3.1.
    """

    name: str
    tokens: int
    width: int
    group: str = ""

    @property
    def ordered(self) -> bool:
        """Whether it joins the rows of a sample: each score needs all rows."""
        return True

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the softmax and one product per sample."""
        gemm = Gemm(batch=layout.micro_batch, m=self.tokens, n=self.width, k=self.tokens)
        return self._softmax("softmax", SOFTMAX.forward, layout), gemm_kernel(self.name, gemm, layout.element_bytes)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the products for weights and vectors, and the gradient of the softmax."""
        batch, tokens, width, size = layout.micro_batch, self.tokens, self.width, layout.element_bytes
        return (
            gemm_kernel(f"{self.name}.weights_grad", Gemm(batch=batch, m=tokens, n=tokens, k=width), size),
            gemm_kernel(f"{self.name}.vectors_grad", Gemm(batch=batch, m=tokens, n=width, k=tokens), size),
            self._softmax("softmax.grad", SOFTMAX.backward, layout),
        )

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the weights."""
        return layout.micro_batch * self.tokens**2 * layout.element_bytes

    def _softmax(self, name: str, passes: float, layout: Layout) -> Kernel:
        return stream_kernel(f"{self.name}.{name}", passes * layout.micro_batch * self.tokens**2 * layout.element_bytes)
