"""A recurrent layer: products over all steps at once where they can be, and one after another where they cannot."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import ModelError, nearest
from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import Gemm, Kernel, KernelKind, Layout, Op
from foretrain.models.stream import stream_kernel

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent(Op):
    """`steps` steps of a cell of `hidden` units in one or two `directions`, over inputs of `in_features`.

    The input's product covers all steps and directions at once; the state's product and the gates come step by step. Backward likewise,
    with both gradients of weights over all steps at once. Source: Appleyard, Kocisky, Blunsom, arXiv:1604.01946, sections 3 and 4.
    """

    name: str
    cell: str
    steps: int
    in_features: int
    hidden: int
    directions: int = 1
    saves_input: bool = True
    trained: bool = True
    group: str = ""

    def __post_init__(self) -> None:
        """Refuse unknown cells."""
        if self.cell not in GATES:
            raise ModelError(f"cell {self.cell!r} is unknown; use one of {', '.join(GATES)}{nearest(self.cell, GATES)}")

    @property
    def width(self) -> int:
        """Gate values of a step in one direction."""
        return GATES[self.cell] * self.hidden

    @property
    def parameters(self) -> int:
        """Weights of input and state, and, as cuDNN has it, a bias for each."""
        return self.directions * self.width * (self.in_features + self.hidden + 2)

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the weights: it does not."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the input's product, then the steps."""
        rows = layout.micro_batch * self.steps
        inputs = gemm_kernel(f"{self.name}.input", Gemm(batch=1, m=rows, n=self._all, k=self.in_features), layout.element_bytes)
        state = self._stepped(f"{self.name}.state", Gemm(batch=1, m=layout.micro_batch, n=self.width, k=self.hidden), layout)
        return inputs, state, self._gates(f"{self.name}.gates", layout, passes=1)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the steps in reverse, then the gradients of the input and of both weights."""
        rows, element_bytes = layout.micro_batch * self.steps, layout.element_bytes
        state = self._stepped(f"{self.name}.state.dgrad", Gemm(batch=1, m=layout.micro_batch, n=self.hidden, k=self.width), layout)
        data = gemm_kernel(f"{self.name}.dgrad", Gemm(batch=1, m=rows, n=self.in_features, k=self._all), element_bytes)
        weight = gemm_kernel(f"{self.name}.wgrad", Gemm(batch=1, m=self._all, n=self.in_features, k=rows), element_bytes)
        own = gemm_kernel(
            f"{self.name}.state.wgrad", Gemm(batch=self.directions, m=self.width, n=self.hidden, k=rows), element_bytes
        )
        bias = stream_kernel(f"{self.name}.bias_grad", rows * self._all * element_bytes)
        return (self._gates(f"{self.name}.gates.grad", layout, passes=2), state, data, weight, own, bias)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the input, the gates and the states of every step."""
        kept = self.in_features * self.saves_input + self._all + 2 * self.directions * self.hidden
        return layout.micro_batch * self.steps * kept * layout.element_bytes

    @property
    def _all(self) -> int:
        return self.directions * self.width

    def _stepped(self, name: str, gemm: Gemm, layout: Layout) -> Kernel:
        """Return one product per step and direction; the weights are read again for each."""
        one, times = gemm_kernel(name, gemm, layout.element_bytes), self.steps * self.directions
        return Kernel(
            name=name, kind=KernelKind.GEMM, flop=one.flop * times, model_flop=one.flop * times, moved_bytes=one.moved_bytes * times,
            launches=times, gemm=gemm,
        )  # fmt: skip

    def _gates(self, name: str, layout: Layout, passes: int) -> Kernel:
        """Return the gates: two sums per gate are read, activations and two states written; backward reads and writes all of it."""
        elements = layout.micro_batch * self.steps * self.directions * (3 * self.width + 3 * self.hidden)
        return stream_kernel(name, passes * elements * layout.element_bytes, self.steps * self.directions)
