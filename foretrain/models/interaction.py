"""Where the features of a recommender meet: dot products of all pairs, or an element by element factor."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import Gemm, Kernel, Layout, Weightless
from foretrain.models.stream import Traffic, stream_kernel

# x0 · y + x, for the result of a cross layer's two products; backward makes the gradients of all three, the first added up.
CROSS = Traffic(forward=4, backward=8, forward_launches=2, backward_launches=3, saved=2)
# Two vectors, element by element; backward makes both gradients.
PRODUCT = Traffic(forward=3, backward=5, forward_launches=1, backward_launches=2, saved=2)
PATTERN = "interaction"
"""What software calls the fused kernel of dot products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DotInteraction(Weightless):
    """The dot products of all pairs of `features` vectors of `width`, beside the last vector itself.

    Where `interaction` is fused, one kernel a direction holds the vectors of a sample on the chip: it reads them (and the gradient) and
    writes the triangle beside the last vector (or the vectors' gradients), so that its few products hide behind its bytes.

    Source: Naumov et al., DLRM, arXiv:1906.00091, section 2; NVIDIA, DeepLearningExamples, DLRM, `dot_based_interact`; HugeCTR,
    `InteractionLayer`.
    """

    name: str
    features: int
    width: int
    group: str = ""

    @property
    def out_features(self) -> int:
        """Pairs, and the vector beside them."""
        return self.features * (self.features - 1) // 2 + self.width

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the concatenation, a product per sample, and the triangle picked from it."""
        vectors = self.features * self.width
        if PATTERN in layout.fused:
            return (self._fused(self.name, vectors + self.out_features, 1, layout),)
        gemm = Gemm(batch=layout.micro_batch, m=self.features, n=self.features, k=self.width)
        picked = self.features**2 + 2 * self.out_features
        return (
            self._stream("concat", 2 * vectors, layout),
            gemm_kernel(self.name, gemm, layout.element_bytes),
            self._stream("pick", picked, layout),
        )

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the same in reverse: the triangle spread, a product for either factor, their sum taken apart."""
        if PATTERN in layout.fused:
            return (self._fused(f"{self.name}.grad", 2 * self.features * self.width + self.out_features, 2, layout),)
        gemm = Gemm(batch=layout.micro_batch, m=self.features, n=self.width, k=self.features)
        product = gemm_kernel(f"{self.name}.grad", gemm, layout.element_bytes)
        spread = self.features**2 + 2 * self.out_features
        return (
            self._stream("pick.grad", spread, layout), product, product,
            self._stream("concat.grad", 5 * self.features * self.width, layout, 2),
        )  # fmt: skip

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the vectors side by side."""
        return layout.micro_batch * self.features * self.width * layout.element_bytes

    def _fused(self, name: str, elements: int, products: int, layout: Layout) -> Kernel:
        """Return one kernel that moves so many elements a sample and runs so many products of all pairs beside."""
        flop = 2.0 * products * layout.micro_batch * self.features**2 * self.width
        return replace(stream_kernel(name, layout.micro_batch * elements * layout.element_bytes), flop=flop, model_flop=flop)

    def _stream(self, name: str, elements: int, layout: Layout, launches: int = 1) -> Kernel:
        return stream_kernel(f"{self.name}.{name}", layout.micro_batch * elements * layout.element_bytes, launches)
