"""A convolution over one, two or three spatial dimensions, plain, grouped or depthwise, or transposed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from foretrain.models.ops import Convolution, Kernel, KernelKind, Layout, Op
from foretrain.models.stream import stream_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv(Op):
    """`out_channels` filters of `kernel` over `in_channels` maps of `in_size`, to maps of `out_size`; channels count all groups.

    A transposed convolution runs the passes of the plain one that leads back: its forward pass is that one's data gradient.
    `images` are convolved per sample: frames, windows. `input_grad` is off where the input is data; `own_weight` where the filters are
    another op's, or made from them, which counts them. A `shared` one has the filters of another.
    Tensor parallelism does not cut it.
    Source: Chetlur et al., cuDNN, arXiv:1410.0759, sections 2 and 3.
    """

    name: str
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int = 1
    bias: bool = False
    transposed: bool = False
    trained: bool = True
    input_grad: bool = True
    saves_input: bool = True
    shared: bool = False
    images: int = 1
    own_weight: bool = True
    group: str = ""

    @property
    def ordered(self) -> bool:
        """Whether it joins the rows of a sample: its windows overlap."""
        return True

    @property
    def parameters(self) -> int:
        """Filters and biases; none where they are those of another op, which counts them."""
        return 0 if self.shared else self._filters * self.own_weight + self.bias * self.out_channels

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the filters: it does not."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one convolution; the bias is added in its epilogue."""
        return (self._pass(self.name, self._shape(layout), layout),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the sum over pixels for the bias, then the passes for the gradients of the data and of the filters."""
        shape = self._shape(layout)
        outputs = self._samples(layout) * self.out_channels * prod(self.out_size)
        bias = replace(stream_kernel(f"{self.name}.bias_grad", outputs * layout.element_bytes), weight_grad=True)
        data = self._pass(f"{self.name}.dgrad", replace(shape, direction="forward" if self.transposed else "data"), layout)
        weight = replace(self._pass(f"{self.name}.wgrad", replace(shape, direction="weight"), layout), weight_grad=True)
        return (bias,) * (self.bias and self.trained) + (data,) * self.input_grad + (weight,) * self.trained

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the input, which the gradient of the filters reads."""
        kept = self.saves_input and self.trained
        return self._samples(layout) * self.in_channels * prod(self.in_size) * layout.element_bytes if kept else 0.0

    @property
    def _filters(self) -> int:
        return self.in_channels * self.out_channels // self.groups * prod(self.kernel)

    def _samples(self, layout: Layout) -> int:
        return layout.micro_batch * self.images

    def _shape(self, layout: Layout) -> Convolution:
        """Return the forward pass on one rank; of a transposed one, as the pass of the plain convolution that it is."""
        ins, outs = (self.in_channels, self.in_size), (self.out_channels, self.out_size)
        first, second = (outs, ins) if self.transposed else (ins, outs)
        return Convolution(
            direction="data" if self.transposed else "forward", samples=self._samples(layout), in_channels=first[0],
            out_channels=second[0], groups=self.groups, in_size=first[1], out_size=second[1], kernel=self.kernel, stride=self.stride,
        )  # fmt: skip

    def _pass(self, name: str, shape: Convolution, layout: Layout) -> Kernel:
        return Kernel(
            name=name, kind=KernelKind.CONVOLUTION, flop=shape.flop, model_flop=shape.flop,
            moved_bytes=(shape.maps + shape.filters) * layout.element_bytes, convolution=shape,
        )  # fmt: skip
