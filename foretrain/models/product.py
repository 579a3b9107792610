"""A (batched) matrix product of any two operands: of activations with one another, or of weights whatever the batch."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.matmul import gemm_kernel
from foretrain.models.moves import NOTHING, Amount
from foretrain.models.ops import Gemm, Kernel, Layout, Op


@dataclass(frozen=True, slots=True)
class Size:
    """A dimension: `each` for every sample and `once` besides."""

    once: int = 0
    each: int = 0

    def of(self, samples: int) -> int:
        """Return the dimension for so many samples."""
        return self.once + self.each * samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(Op):
    """`batch` products of (m, k) by (k, n); backward one more for each operand that needs a gradient. Tensor parallelism cuts none of it.

    `parameters` are those of an operand that is a weight. `saved` is what it keeps of its operands.
    """

    name: str
    batch: Size
    m: Size
    n: Size
    k: Size
    left_grad: bool = True
    right_grad: bool = True
    saved: Amount = NOTHING
    parameters: int = 0
    trained: bool = True
    group: str = ""

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the parameters: it does not."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one batched product."""
        batch, m, n, k = self._sizes(layout)
        return (gemm_kernel(self.name, Gemm(batch=batch, m=m, n=n, k=k), layout.element_bytes),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the products for the gradients of the operands: dC·Bᵀ and Aᵀ·dC."""
        batch, m, n, k = self._sizes(layout)
        left = gemm_kernel(f"{self.name}.left_grad", Gemm(batch=batch, m=m, n=k, k=n), layout.element_bytes)
        right = gemm_kernel(f"{self.name}.right_grad", Gemm(batch=batch, m=k, n=n, k=m), layout.element_bytes)
        return (left,) * self.left_grad + (right,) * self.right_grad

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the operands that nobody else keeps."""
        return self.saved.size_bytes(layout)

    def _sizes(self, layout: Layout) -> tuple[int, int, int, int]:
        samples = layout.micro_batch
        return self.batch.of(samples), self.m.of(samples), self.n.of(samples), self.k.of(samples)
