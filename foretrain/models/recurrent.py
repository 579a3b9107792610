"""Recurrent layers (LSTM, GRU, plain) as a library runs them: the inputs' products at once, the states' products step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foretrain.models.ops import Gemm, Kernel, KernelKind, Layout, Op
from foretrain.models.stream import stream_kernel

Cell = Literal["lstm", "gru", "rnn"]
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
KEPT = {"lstm": 6, "gru": 5, "rnn": 1}
"""Vectors of the hidden width that a step keeps: gates, state and output (GRU: the reset candidate besides); plain: its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent(Op):
    """`layers` of `directions` cells over `steps` of a sequence; layers after the first read what the one before wrote.

    Source: Appleyard et al., Optimizing performance of recurrent neural networks on GPUs, arXiv:1604.01946, sections 3.1 and 3.2
    (gates side by side in one product; inputs of all steps in one product).
    """

    name: str
    cell: Cell
    steps: int
    in_features: int
    hidden: int
    layers: int = 1
    directions: int = 1
    bias: bool = True
    trained: bool = True
    input_grad: bool = True
    saves_input: bool = True
    group: str = ""

    @property
    def parameters(self) -> int:
        """Weights of inputs and states, and both biases of each gate."""
        width = GATES[self.cell] * self.hidden
        return self.directions * sum(width * (ins + self.hidden + 2 * self.bias) for ins in self._widths())

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the weights: it does not."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return for each layer the product of its inputs, the products of its states, and the cells' vector operations."""
        return tuple(kernel for ins in self._widths() for kernel in self._layer(ins, layout, "forward"))

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the gradients of states step by step, then those of inputs and weights over all steps at once."""
        found: list[Kernel] = []
        for layer, ins in reversed(list(enumerate(self._widths()))):
            found += self._layer(ins, layout, "data" if layer or self.input_grad else "states")
            found += self._weights(ins, layout) if self.trained else ()
        return tuple(found)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the input, and of what each step keeps."""
        kept = self.layers * self.directions * KEPT[self.cell] * self.hidden + self.saves_input * self.in_features
        return layout.micro_batch * self.steps * kept * layout.element_bytes

    def _widths(self) -> tuple[int, ...]:
        return (self.in_features, *(self.directions * self.hidden for _ in range(self.layers - 1)))

    def _layer(self, ins: int, layout: Layout, direction: str) -> tuple[Kernel, ...]:
        rows, width = layout.micro_batch * self.steps, GATES[self.cell] * self.hidden
        inputs, states = (width, ins), (width, self.hidden)
        if direction != "forward":
            inputs, states = (ins, width), (self.hidden, width)
        name = f"{self.name}.{direction}"
        cells = self.directions * rows * (width + KEPT[self.cell] * self.hidden) * layout.element_bytes
        return (
            *(self._gemm(f"{name}.inputs", rows, *inputs, 1, layout),) * (direction != "states"),
            self._gemm(f"{name}.states", layout.micro_batch, *states, self.steps, layout),
            stream_kernel(f"{name}.cells", cells, self.directions * self.steps),
        )

    def _weights(self, ins: int, layout: Layout) -> tuple[Kernel, ...]:
        rows, width = layout.micro_batch * self.steps, GATES[self.cell] * self.hidden
        return tuple(self._gemm(f"{self.name}.wgrad", width, part, rows, 1, layout) for part in (ins, self.hidden))

    def _gemm(self, name: str, m: int, n: int, k: int, times: int, layout: Layout) -> Kernel:  # a product
        launches = times * self.directions
        flop = 2.0 * m * n * k * launches
        moved = launches * (m * k + k * n + m * n) * layout.element_bytes
        gemm = Gemm(batch=1, m=m, n=n, k=k)
        return Kernel(name=name, kind=KernelKind.GEMM, flop=flop, model_flop=flop, moved_bytes=moved, launches=launches, gemm=gemm)
