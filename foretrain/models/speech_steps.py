"""The steps of a recurrent layer, one product after another: what cannot wait for the next step."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import Gemm, Kernel, KernelKind, Layout, Op
from foretrain.models.stream import stream_kernel

GATES = 4
"""Gates of a long short-term memory cell. Source: Hochreiter and Schmidhuber, Neural Computation 9 (1997)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence(Op):
    """`steps` steps of LSTM cells of `hidden` units in `directions`; the products with the inputs are a `Linear` before it.

    A step multiplies the state by the recurrent weights, which every step reads again, and cannot begin before the one before it has
    ended; directions run side by side. Tensor parallelism does not cut it.
    Source: Appleyard, Kocisky and Blunsom, arXiv:1604.01946, sections 3.1 to 3.3.
    """

    name: str
    steps: int
    hidden: int
    directions: int
    trained: bool = True
    group: str = ""

    @property
    def parameters(self) -> int:
        """Recurrent weights; biases are those of the products with the inputs."""
        return self.directions * GATES * self.hidden**2

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the weights: it does not."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the steps as so many launches of a product with its cell."""
        gates = GATES * self.hidden
        return (self._stepped(self.name, Gemm(batch=self.directions, m=layout.micro_batch, n=gates, k=self.hidden), layout),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the steps of the gradient of the state, then one product for that of the weights."""
        gates, rows = GATES * self.hidden, layout.micro_batch * self.steps
        data = self._stepped(f"{self.name}.dgrad", Gemm(batch=self.directions, m=layout.micro_batch, n=self.hidden, k=gates), layout)
        weight = gemm_kernel(f"{self.name}.wgrad", Gemm(batch=self.directions, m=gates, n=self.hidden, k=rows), layout.element_bytes)
        return (data, weight) if self.trained else (data,)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of gates, cells and states of all steps."""
        return layout.micro_batch * self.steps * self.directions * (GATES + 2) * self.hidden * layout.element_bytes

    def _stepped(self, name: str, gemm: Gemm, layout: Layout) -> Kernel:
        flop = self.steps * 2.0 * gemm.batch * gemm.m * gemm.n * gemm.k
        # Weights, gates before and after, cell and state, once a step.
        moved = self.directions * (GATES * self.hidden**2 + layout.micro_batch * (2 * GATES + 3) * self.hidden) * layout.element_bytes
        return Kernel(
            name=name, kind=KernelKind.GEMM, flop=flop, model_flop=flop, moved_bytes=self.steps * moved, launches=self.steps, gemm=gemm
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceLoss(Op):
    """The connectionist temporal classification of `steps` steps of `labels`: launches of a step each, little else.

    Source: Graves et al., ICML 2006, section 4.1 (forward and backward variables, step by step).
    """

    name: str
    steps: int
    labels: int
    group: str = ""

    @property
    def parameters(self) -> int:
        """None."""
        return 0

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the parameters, of which there are none."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return softmax and forward variables in two kernels."""
        return (stream_kernel(self.name, 4.0 * self._elements(layout) * layout.element_bytes, 2),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return backward variables and the gradient in two kernels."""
        return (stream_kernel(f"{self.name}.grad", 4.0 * self._elements(layout) * layout.element_bytes, 2),)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of softmax and forward variables."""
        return 2.0 * self._elements(layout) * layout.element_bytes

    def _elements(self, layout: Layout) -> float:
        return float(layout.micro_batch * self.steps * self.labels)
