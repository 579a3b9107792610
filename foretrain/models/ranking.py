"""Ranking by deep learning recommendation models: look-ups in large tables, an interaction of their vectors, two perceptrons."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from foretrain.errors import ModelError
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear, gemm_kernel
from foretrain.models.model import Block, Model, Step
from foretrain.models.ops import Gemm, Kernel, Layout, Op
from foretrain.models.patterns import RELU
from foretrain.models.stream import Streaming, Traffic, stream_kernel

TABLE_BYTES = 4.0
"""Tables are kept in fp32."""
CROSS = Traffic(forward=3, backward=5, forward_launches=1, backward_launches=1, saved=1)
"""x0 * (W x + b) + x. Source: Wang et al., DCN V2, arXiv:2008.13535, equation 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Op):
    """`lookups` rows of `width` a sample, summed into one vector a table; backward updates the rows that were read.

    The tables are shared out over the accelerators, so an accelerator looks up as many rows as its share of the batch needs; they are
    no parameters here, since they are neither reduced nor updated as a whole.
    Source: Naumov et al., arXiv:1906.00091, sections 2.1 and 2.3.
    """

    name: str
    tables: int
    lookups: int
    width: int
    group: str = ""

    @property
    def parameters(self) -> int:
        """None that are replicated."""
        return 0

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the parameters, of which there are none."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the gather and the sums."""
        rows, sums = self._bytes(layout)
        return (stream_kernel(self.name, rows + sums, 1),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the update: gradients read, rows read and written, after their numbers are sorted."""
        rows, sums = self._bytes(layout)
        return (stream_kernel(f"{self.name}.update", 2.0 * rows + sums, 4),)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the row numbers."""
        return layout.micro_batch * self.lookups * 8.0

    def _bytes(self, layout: Layout) -> tuple[float, float]:
        samples = layout.micro_batch * self.width
        return samples * self.lookups * TABLE_BYTES, samples * self.tables * layout.element_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot(Op):
    """Inner products of all pairs of `vectors` of `width`. Source: Naumov et al., arXiv:1906.00091, section 2.2."""

    name: str
    vectors: int
    width: int
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
        """Return one batched product."""
        gemm = Gemm(batch=layout.micro_batch, m=self.vectors, n=self.vectors, k=self.width)
        return (gemm_kernel(self.name, gemm, layout.element_bytes),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one batched product for the gradient of the vectors, which stand on both sides."""
        gemm = Gemm(batch=layout.micro_batch, m=self.vectors, n=self.width, k=self.vectors)
        return (gemm_kernel(f"{self.name}.grad", gemm, layout.element_bytes),)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the vectors."""
        return layout.micro_batch * self.vectors * self.width * layout.element_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """`dense` numbers and `tables` with `lookups` rows a sample, vectors of `width`, perceptrons `bottom` and `top`.

    Vectors meet in inner products of all pairs, or in `crosses` layers of rank `rank` where there are any.

    Raises:
        ModelError: where the last width of the bottom is not that of the vectors.
    """

    name: str
    dense: int
    tables: int
    lookups: int
    width: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    crosses: int = 0
    rank: int = 0
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse vectors that cannot meet."""
        if self.bottom[-1] != self.width:
            raise ModelError(f"{self.name}: the bottom ends in {self.bottom[-1]}, but vectors have {self.width}; make them equal")
        if self.crosses and not self.rank:
            raise ModelError(f"{self.name}: {self.crosses} cross layers need a rank above zero")

    @property
    def joined(self) -> int:
        """Numbers of all vectors side by side."""
        return (self.tables + 1) * self.width


def build(spec: Ranking) -> Model:
    """Return the model; a sample is one impression."""
    lookup = Lookup(name="lookup", tables=spec.tables, lookups=spec.lookups, width=spec.width)
    bottom = (lookup, *_perceptron("bottom", (spec.dense, *spec.bottom), data=True))
    pairs = spec.tables * (spec.tables + 1) // 2 + spec.width
    meet = _crosses(spec) if spec.crosses else (Dot(name="interaction", vectors=spec.tables + 1, width=spec.width),)
    top = _perceptron("top", (spec.joined if spec.crosses else pairs, *spec.top), data=False)
    return Model(
        name=spec.name, key=spec.key or spec.name, seq_len=None,
        prologue=(Block(name="bottom", steps=bottom, input_elements=0),),
        layers=((Block(name="interaction", steps=meet, input_elements=spec.joined), 1),),
        epilogue=(Block(name="top", steps=(*top, CrossEntropy(name="loss", tokens=1, vocab=1)), input_elements=pairs),),
        tied_parameters=0, tensor_dims={}, assumed=spec.assumed,
    )  # fmt: skip


def _perceptron(name: str, widths: tuple[int, ...], *, data: bool) -> tuple[Step, ...]:
    steps: list[Step] = []
    for number, (ins, outs) in enumerate(pairwise(widths)):
        steps += [
            Linear(name=f"{name}{number}", tokens=1, in_features=ins, out_features=outs, bias=True, cut="none", input_grad=number > 0 or not data),
            Streaming(name=f"{name}{number}.relu", elements=outs, split="none", pattern="bias_gelu", fused=NOTHING, unfused=RELU),
        ]
    return tuple(steps)


NOTHING = Traffic(forward=0, backward=0, forward_launches=0, backward_launches=0, saved=1)
"""An activation in the epilogue of its product."""


def _crosses(spec: Ranking) -> tuple[Step, ...]:
    steps: list[Step] = []
    for number in range(spec.crosses):
        steps += [
            Linear(name=f"cross{number}.down", tokens=1, in_features=spec.joined, out_features=spec.rank, bias=False, cut="none"),
            Linear(name=f"cross{number}.up", tokens=1, in_features=spec.rank, out_features=spec.joined, bias=True, cut="none"),
            Streaming(name=f"cross{number}", elements=spec.joined, split="none", pattern="", fused=CROSS, unfused=CROSS),
        ]
    return tuple(steps)
