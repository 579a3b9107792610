"""Recurrent layers (LSTM, GRU, plain) as a library runs them: the inputs' products at once, the states' products step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from foretrain.models.matmul import gemm_kernel
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
    def ordered(self) -> bool:
        """Whether it joins the rows of a sample: each step reads the state of the one before."""
        return True

    @property
    def parameters(self) -> int:
        """Weights of inputs and states, and both biases of each gate."""
        return self.directions * sum(self._width * (ins + self.hidden + 2 * self.bias) for ins in self._widths())

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the weights: it does not."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return for each layer the product of its inputs, the products of its states, and the cells' vector operations."""
        return tuple(kernel for layer, ins in enumerate(self._widths()) for kernel in self._layer(self._label(layer), ins, layout))

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return for each layer, last first, the steps in reverse, then the gradients of its inputs and of both its weights."""
        found: list[Kernel] = []
        for layer, ins in reversed(list(enumerate(self._widths()))):
            name = self._label(layer)
            found += self._states(name, layout)
            found += (self._inputs_grad(name, ins, layout),) * bool(layer or self.input_grad)
            found += self._weights_grad(name, ins, layout) if self.trained else ()
        return tuple(found)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the input, and of what each step keeps."""
        kept = self.layers * self.directions * KEPT[self.cell] * self.hidden + self.saves_input * self.in_features
        return layout.micro_batch * self.steps * kept * layout.element_bytes

    def _widths(self) -> tuple[int, ...]:
        return (self.in_features, *(self.directions * self.hidden for _ in range(self.layers - 1)))

    def _label(self, layer: int) -> str:
        return self.name if self.layers == 1 else f"{self.name}.{layer}"

    @property
    def _width(self) -> int:
        """Gate values of a step in one direction."""
        return GATES[self.cell] * self.hidden

    def _layer(self, name: str, ins: int, layout: Layout) -> tuple[Kernel, ...]:
        # Both directions read the same inputs: one product with their gates side by side.
        inputs = Gemm(batch=1, m=self._rows(layout), n=self.directions * self._width, k=ins)
        states = Gemm(batch=1, m=layout.micro_batch, n=self._width, k=self.hidden)
        return (
            gemm_kernel(f"{name}.input", inputs, layout.element_bytes), self._stepped(f"{name}.state", states, layout),
            self._gates(f"{name}.gates", layout, passes=1),
        )  # fmt: skip

    def _states(self, name: str, layout: Layout) -> tuple[Kernel, ...]:
        states = Gemm(batch=1, m=layout.micro_batch, n=self.hidden, k=self._width)
        return self._gates(f"{name}.gates.grad", layout, passes=2), self._stepped(f"{name}.state.dgrad", states, layout)

    def _inputs_grad(self, name: str, ins: int, layout: Layout) -> Kernel:
        inputs = Gemm(batch=1, m=self._rows(layout), n=ins, k=self.directions * self._width)
        return gemm_kernel(f"{name}.dgrad", inputs, layout.element_bytes)

    def _weights_grad(self, name: str, ins: int, layout: Layout) -> tuple[Kernel, ...]:
        rows, every = self._rows(layout), self.directions * self._width
        inputs = Gemm(batch=1, m=every, n=ins, k=rows)
        states = Gemm(batch=self.directions, m=self._width, n=self.hidden, k=rows)
        products = (
            gemm_kernel(f"{name}.wgrad", inputs, layout.element_bytes),
            gemm_kernel(f"{name}.state.wgrad", states, layout.element_bytes),
        )
        bias = stream_kernel(f"{name}.bias_grad", rows * every * layout.element_bytes)
        return tuple(replace(kernel, weight_grad=True) for kernel in ((*products, bias) if self.bias else products))

    def _rows(self, layout: Layout) -> int:
        return layout.micro_batch * self.steps

    def _stepped(self, name: str, gemm: Gemm, layout: Layout) -> Kernel:
        """Return one product per step and direction; the weights are read again for each."""
        one, times = gemm_kernel(name, gemm, layout.element_bytes), self.steps * self.directions
        return Kernel(
            name=name, kind=KernelKind.GEMM, flop=one.flop * times, model_flop=one.flop * times, moved_bytes=one.moved_bytes * times,
            launches=times, gemm=gemm,
        )  # fmt: skip

    def _gates(self, name: str, layout: Layout, passes: int) -> Kernel:
        """Return the gates: two sums per gate are read, activations and two states written; backward reads and writes all of it."""
        elements = self._rows(layout) * self.directions * (3 * self._width + 3 * self.hidden)
        return stream_kernel(name, passes * elements * layout.element_bytes, self.steps * self.directions)
