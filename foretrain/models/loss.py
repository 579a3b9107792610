"""The cross-entropy over a vocabulary-parallel row of logits, in fp32."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.matmul import divided
from foretrain.models.ops import Kernel, Layout, Weightless
from foretrain.models.stream import stream_kernel

FP32_BYTES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy(Weightless):
    """Softmax and loss of `tokens` rows of `vocab` logits, cut over tensor-parallel ranks where they are many (`cut`).

    Logits are cast to fp32 and the softmax is kept in fp32: 4·s·b·v bytes.
    Source: Korthikanti et al., arXiv:2205.05198, section 4.3.
    """

    name: str
    tokens: int
    vocab: int
    pad_to: int = 1
    cut: bool = True
    group: str = ""

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the loss: one sweep that casts and finds the maximum and one that writes the softmax, or kernel by kernel.

        Unfused, as Megatron-LM's vocabulary-parallel loss runs in eager mode: cast, maximum, subtract, exponential, sum, divide.
        """
        if "cross_entropy" in layout.fused:
            return (stream_kernel(self.name, self._logits(layout) * (2 * layout.element_bytes + FP32_BYTES), 2),)
        return (stream_kernel(self.name, self._logits(layout) * (layout.element_bytes + 9 * FP32_BYTES), 6),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return softmax minus target, written in the compute dtype; unfused, scaled in fp32 first and cast afterwards."""
        fp32_passes, launches = (1, 1) if "cross_entropy" in layout.fused else (3, 2)
        moved = self._logits(layout) * (layout.element_bytes + fp32_passes * FP32_BYTES)
        return (stream_kernel(f"{self.name}.grad", moved, launches),)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the fp32 softmax, or of what the software keeps instead."""
        return self._logits(layout) * layout.logit_kept_bytes

    def beside_bytes(self, layout: Layout) -> float:
        """Return the bytes of the logits' copies and gradients at the peak of the loss."""
        return self._logits(layout) * layout.logit_beside_bytes

    def _logits(self, layout: Layout) -> float:
        return float(layout.rows(self.tokens) * divided(self.vocab, layout.tp if self.cut else 1, self.pad_to))
