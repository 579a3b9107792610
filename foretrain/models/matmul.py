"""A matrix product with weights, cut by columns or by rows over tensor-parallel ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from foretrain.models.casts import Casts
from foretrain.models.ops import Gemm, Kernel, KernelKind, Layout, Op
from foretrain.models.stream import stream_kernel

REDUCE = (("reduce", 1.0),)
"""The class of what only sums."""

Cut = Literal["column", "row", "none"]


def divided(size: int, ranks: int, pad_to: int = 1) -> int:
    """Return one rank's part of `size` after padding it to a multiple of `pad_to * ranks`."""
    if ranks == 1 and pad_to == 1:
        return size
    return -(-size // (pad_to * ranks)) * pad_to


def gemm_kernel(name: str, gemm: Gemm, element_bytes: float, model_flop: float | None = None) -> Kernel:
    """Return the kernel of a (batched) product: both operands are read and the result is written once.

    `model_flop` defaults to what the product runs, 2·batch·m·n·k.
    """
    flop = 2.0 * gemm.batch * gemm.m * gemm.n * gemm.k
    moved = gemm.batch * (gemm.m * gemm.k + gemm.k * gemm.n + gemm.m * gemm.n) * element_bytes
    asked = flop if model_flop is None else model_flop
    return Kernel(name=name, kind=KernelKind.GEMM, flop=flop, model_flop=asked, moved_bytes=moved, gemm=gemm)


def _for_weights(kernels: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    return tuple(replace(kernel, weight_grad=True) for kernel in kernels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Op):
    """`tokens` rows times an `in_features` × `out_features` weight, per sample.

    `column` cuts the outputs over tensor-parallel ranks, `row` the inputs; inside the region every rank holds all rows, so only that one
    dimension shrinks. A column-parallel input is replicated, or sharded where sequence parallelism keeps only a shard of it
    (Korthikanti et al., arXiv:2205.05198, section 4.2.2). `saves_output` where a later op reads the result in backward and may be
    recomputed from it: attention, whose Q, K and V outlive its recomputation. Layers that read the same input (Q, K and V; gate and
    up) are one Linear with their outputs side by side, so the input is saved once. `pad_to` pads the cut dimension to a multiple of
    itself times the ranks, as Megatron-LM pads its vocabulary; parameters and model FLOPs count the unpadded size. `input_grad` is off
    where the input is data and needs no gradient; a frozen weight, not `trained`, has none either, and its input is then not saved.
    A `shared` weight is one that another op holds: its gradient is made here too, its parameters are counted there. `parts` names the
    products that a framework keeps apart, with their outputs, where they are run as one here.
    `own_weight` is off where the weight is another op's, or made from one, which counts it. `casts` is how its operands come to fewer
    bits, where they do.
    """

    name: str
    tokens: int
    in_features: int
    out_features: int
    bias: bool
    cut: Cut
    saves_input: bool = True
    saves_output: bool = False
    pad_to: int = 1
    trained: bool = True
    input_grad: bool = True
    shared: bool = False
    parts: tuple[tuple[str, int], ...] = ()
    own_weight: bool = True
    casts: Casts | None = None
    group: str = ""

    @property
    def parameters(self) -> int:
        """Weights and biases, where they are held."""
        return 0 if self.shared else (self.in_features * self.own_weight + self.bias) * self.out_features

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the weights."""
        return self.cut != "none"

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one product, after the casts of its operands; the bias is added in its epilogue."""
        rows, width, depth = self._shape(layout)
        cast: tuple[Kernel, ...] = ()
        if self.casts is not None:
            cast = self.casts.inputs.kernels(f"{self.name}.cast", rows * depth)
            cast += self.casts.weights.kernels(f"{self.name}.weight_cast", width * depth)
        return (*cast, self._product(self.name, Gemm(batch=1, m=rows, n=width, k=depth), layout),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the sum over rows for the bias, then the products for the gradients of the input and of the weight.

        The products come last because tensor-parallel collectives hide behind them: the gather of the input behind the first, the
        reduction of its gradient behind the second.
        """
        rows, width, depth = self._shape(layout)
        data = self._product(f"{self.name}.dgrad", Gemm(batch=1, m=rows, n=depth, k=width), layout)
        weight = replace(self._product(f"{self.name}.wgrad", Gemm(batch=1, m=width, n=depth, k=rows), layout), weight_grad=True)
        moved = rows * width * layout.element_bytes
        bias = replace(stream_kernel(f"{self.name}.bias_grad", moved, classes=REDUCE), weight_grad=True)
        made = (bias,) * (self.bias and self.trained) + (data,) * self.input_grad + (weight,) * self.trained
        return self._casts_again(rows, width, depth) + made

    def _casts_again(self, rows: int, width: int, depth: int) -> tuple[Kernel, ...]:
        """Return the casts of backward: of the gradient, and of what forward has not kept the right way.

        Those that the gradient of the input does not read wait with that of the weight, where it runs apart.
        """
        if self.casts is None or not (self.input_grad or self.trained):
            return ()
        gradients = self.casts.gradients.kernels(f"{self.name}.grad_cast", rows * width)
        weights = self.casts.weights_again.kernels(f"{self.name}.weight_recast", width * depth) if self.input_grad else ()
        inputs = self.casts.inputs_again.kernels(f"{self.name}.recast", rows * depth) if self.trained else ()
        return (*(gradients if self.input_grad else _for_weights(gradients)), *weights, *_for_weights(inputs))

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the input, and of the output where `saves_output`."""
        input_bytes = output_bytes = 0.0
        if self.saves_input and self.trained:
            shared = {"row": layout.tp, "column": layout.input_cut, "none": layout.sequence_cut}[self.cut]
            few = self.casts.saved_bytes if self.casts is not None else None
            input_bytes = self.in_features / shared * (layout.element_bytes if few is None else few)
        if self.saves_output:
            output_bytes = self.out_features / (layout.tp if self.cut == "column" else layout.sequence_cut) * layout.element_bytes
        return layout.rows(self.tokens) * (input_bytes + output_bytes)

    def _shape(self, layout: Layout) -> tuple[int, int, int]:
        """Rows, outputs and inputs on one rank. Without a cut the rows are those of the rank's shard of the sequence."""
        rows = layout.rows(self.tokens)
        if self.cut == "column":
            return rows, divided(self.out_features, layout.tp, self.pad_to), self.in_features
        if self.cut == "row":
            return rows, self.out_features, divided(self.in_features, layout.tp, self.pad_to)
        return divided(rows, layout.sequence_cut), self.out_features, self.in_features

    def _product(self, name: str, gemm: Gemm, layout: Layout) -> Kernel:
        # An equal share of the model's FLOPs each, so that the ranks of a group sum to the model's whatever is padded or replicated.
        share = 2.0 * layout.micro_batch * self.tokens * self.in_features * self.out_features / (layout.tp * layout.cp)
        kernel = gemm_kernel(name, gemm, layout.element_bytes, share)
        if self.casts is None:
            return kernel
        operands = gemm.batch * gemm.k * (gemm.m + gemm.n)
        moved = kernel.moved_bytes - operands * (layout.element_bytes - self.casts.element_bytes)
        return replace(kernel, moved_bytes=moved, dtype=self.casts.dtype)
