"""Lays the ops of a convolutional network one after another and keeps track of the tensor that the last one left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TypedDict

from foretrain.errors import ModelError
from foretrain.models import image_patterns as patterns
from foretrain.models.convolution import Conv
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Step
from foretrain.models.stream import Streaming, Traffic

Sizes = int | tuple[int, ...]
Branch = Callable[["Tape"], object]


class Learning(TypedDict):
    """What a product with weights learns and keeps."""

    trained: bool
    input_grad: bool
    saves_input: bool


@dataclass(slots=True, kw_only=True)
class Tensor:
    """Maps of one sample. `kept` says that some op keeps them for backward already, `grad` that they need a gradient."""

    channels: int
    size: tuple[int, ...]
    kept: bool = False
    grad: bool = True

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return self.channels * prod(self.size)


class Tape:
    """A block in the making. Every method that adds an op returns the tape, so that layers chain.

    Ops that are not `trained` have no gradient of their own; a `frozen_norm` is a constant factor and shift, and no parameter.
    """

    def __init__(self, tensor: Tensor, *, trained: bool = True, frozen_norm: bool = False) -> None:
        self.tensor = tensor
        self.trained = trained
        self.frozen_norm = frozen_norm
        self.steps: list[Step] = []
        self._input_elements = tensor.elements if tensor.grad else 0

    def close(self, name: str) -> Block:
        """Return the ops laid so far as a block, and begin the next one where it ends."""
        block = Block(name=name, steps=tuple(self.steps), input_elements=self._input_elements)
        self.steps, self._input_elements = [], self.tensor.elements
        return block

    @property
    def channels(self) -> int:
        """Channels that the last op left."""
        return self.tensor.channels

    # ── products ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def conv(  # noqa: PLR0913 - what a layer is, by name
        self, width: int, kernel: Sizes, *, stride: Sizes = 1, padding: Sizes | None = None, groups: int = 1, bias: bool = False,
        shared: bool = False, name: str = "conv",
    ) -> Tape:  # fmt: skip
        """Add a convolution; unless `padding` is given, one that keeps the size where the stride is 1."""
        taps = self._each(kernel)
        given = tuple((k - 1) // 2 for k in taps) if padding is None else self._each(padding)
        strides = self._each(stride)
        size = tuple(places(*each) for each in zip(self.tensor.size, taps, strides, given, strict=True))
        conv = Conv(
            name=name, in_channels=self.channels, out_channels=width, in_size=self.tensor.size, out_size=size, kernel=taps,
            stride=strides, groups=groups, bias=bias, shared=shared, **self._learning(),
        )  # fmt: skip
        return self._weighted(conv, width, size)

    def up_conv(self, width: int, kernel: int, *, bias: bool = False, name: str = "up") -> Tape:
        """Add a transposed convolution that multiplies the size by its kernel."""
        size = tuple(kernel * s for s in self.tensor.size)
        conv = Conv(
            name=name, in_channels=self.channels, out_channels=width, in_size=self.tensor.size, out_size=size,
            kernel=self._each(kernel), stride=self._each(kernel), bias=bias, transposed=True, **self._learning(),
        )  # fmt: skip
        return self._weighted(conv, width, size)

    def linear(self, width: int, *, bias: bool = True, name: str = "linear") -> Tape:
        """Add a product with the flattened tensor."""
        elements = self.tensor.elements
        linear = Linear(name=name, tokens=1, in_features=elements, out_features=width, bias=bias, cut="none", **self._learning())
        return self._weighted(linear, width, (1,) * len(self.tensor.size))

    # ── memory-bound ops ────────────────────────────────────────────────────────────────────────────────────────────────────

    def norm(self, *, relu: bool = False, name: str = "norm") -> Tape:
        """Add a batch normalisation, and a ReLU that software may run in the same kernel."""
        if self.frozen_norm:
            self.stream(name, patterns.FROZEN_NORM)
            return self.relu() if relu else self
        traffic, fused = (patterns.NORM_RELU, patterns.NORM_RELU_FUSED) if relu else (patterns.BATCH_NORM, patterns.BATCH_NORM)
        weights = 2 * self.channels
        return self.stream(name, traffic, fused=fused, pattern="batch_norm_relu", parameters=weights, kept=relu, reads_again=True)

    def relu(self, *, name: str = "relu") -> Tape:
        """Add a ReLU in place, whose result is kept."""
        return self.stream(name, patterns.RELU, kept=True)

    def smooth(self, *, name: str) -> Tape:
        """Add an activation that keeps its input."""
        return self.stream(name, patterns.SMOOTH, reads_again=True)

    def unit(
        self, width: int, kernel: Sizes, *, stride: int = 1, padding: Sizes | None = None, groups: int = 1, name: str = "conv"
    ) -> Tape:
        """Add a convolution without bias, a batch normalisation and a ReLU."""
        return self.conv(width, kernel, stride=stride, padding=padding, groups=groups, name=name).norm(relu=True, name=f"{name}.norm")

    def max_pool(self, kernel: int, stride: int, padding: int = 0, *, up: bool = False, name: str = "max_pool") -> Tape:
        """Add a pooling by maximum, which keeps its input and where each maximum stood; `up` lets windows look past the edge."""
        size = tuple(places(s, kernel, stride, padding, up=up) for s in self.tensor.size)
        return self._pool(name, size, mask_bytes=patterns.MAX_POOL_INDEX_BYTES)

    def average_pool(self, kernel: int, stride: int, padding: int = 0, *, name: str = "average_pool") -> Tape:
        """Add a pooling by mean, which keeps its input as PyTorch's does."""
        return self._pool(name, tuple(places(s, kernel, stride, padding) for s in self.tensor.size), mask_bytes=0.0)

    def mean(self, size: int = 1, *, name: str = "mean") -> Tape:
        """Add the mean over pixels, to maps of `size` a side; over all of them it needs nothing backward."""
        return self._pool(name, self._each(size), mask_bytes=None if size == 1 else 0.0)

    def dropout(self, *, name: str = "dropout") -> Tape:
        """Add a dropout, which keeps a mask of a byte an element."""
        return self.stream(name, patterns.DROPOUT, mask_bytes=1.0)

    def loss(self) -> Tape:
        """Add the cross-entropy over the channels of every pixel."""
        self.steps.append(CrossEntropy(name="cross_entropy", tokens=prod(self.tensor.size), vocab=self.channels))
        return self

    def stream(  # noqa: PLR0913 - what a layer is, by name
        self, name: str, traffic: Traffic, *, fused: Traffic | None = None, pattern: str = "", parameters: int = 0,
        kept: bool = False, reads_again: bool = False, mask_bytes: float = 0.0,
    ) -> Tape:  # fmt: skip
        """Add an op that makes a tensor of the same shape.

        `kept` says that its result is among what it saves, `reads_again` that its input is, unless another op has kept that.
        """
        source = self.tensor
        grad = source.grad or parameters > 0
        spared = 1.0 if reads_again and source.kept else 0.0
        self.steps.append(
            Streaming(
                name=name, elements=source.elements, split="none", pattern=pattern, unfused=_saving(traffic, spared, grad=grad),
                fused=_saving(fused or traffic, spared, grad=grad), mask_bytes=mask_bytes if grad else 0.0, parameters=parameters,
            )
        )  # fmt: skip
        source.kept = source.kept or (reads_again and grad)
        self.tensor = Tensor(channels=source.channels, size=source.size, kept=kept and grad, grad=grad)
        return self

    # ── branches ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def concat(self, *branches: Branch, name: str = "concat") -> Tape:
        """Run branches from here and put their channels side by side."""
        ends = self.branches(*branches)
        self.tensor = Tensor(channels=sum(end.channels for end in ends), size=ends[0].size)
        return self.stream(name, patterns.CONCAT)

    def residual(self, body: Branch, shortcut: Branch, *, norm: bool, name: str = "add") -> Tape:
        """Run two branches from here, sum them and add a ReLU; `norm` puts a batch normalisation behind the first.

        Software may run the normalisation, the sum and the ReLU in one kernel.
        """
        self.tensor = self.branches(body, shortcut)[0]
        if norm and self.frozen_norm:
            self.stream(f"{name}.norm", patterns.FROZEN_NORM)
        if not norm or self.frozen_norm:
            return self.stream(name, patterns.ADD_RELU, fused=patterns.ADD_RELU_FUSED, pattern="add_relu", kept=True)
        return self.stream(
            name, patterns.NORM_ADD_RELU, fused=patterns.NORM_ADD_RELU_FUSED, pattern="batch_norm_add_relu",
            parameters=2 * self.channels, kept=True, reads_again=True,
        )  # fmt: skip

    def branches(self, *branches: Branch) -> list[Tensor]:
        """Run branches from here and return where each ends; backward adds up their gradients."""
        source = self.tensor
        if source.grad:
            self.steps.append(self._fork(source, len(branches)))
        ends = []
        for branch in branches:
            self.tensor = source
            branch(self)
            ends.append(self.tensor)
        return ends

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fork(self, source: Tensor, branches: int) -> Streaming:
        traffic = patterns.fork(branches)
        return Streaming(name="fork", elements=source.elements, split="none", pattern="", fused=traffic, unfused=traffic)

    def _each(self, sizes: Sizes) -> tuple[int, ...]:
        """Return a number per spatial dimension."""
        return sizes if isinstance(sizes, tuple) else (sizes,) * len(self.tensor.size)

    def _learning(self) -> Learning:
        return Learning(trained=self.trained, input_grad=self.tensor.grad, saves_input=not self.tensor.kept)

    def _weighted(self, op: Conv | Linear, width: int, size: tuple[int, ...]) -> Tape:
        self.steps.append(op)
        self.tensor.kept = self.tensor.kept or self.trained
        self.tensor = Tensor(channels=width, size=size, grad=self.trained or self.tensor.grad)
        return self

    def _pool(self, name: str, size: tuple[int, ...], mask_bytes: float | None = None) -> Tape:
        """Add a pooling; one that notes places keeps its input as well."""
        source = self.tensor
        self.tensor = Tensor(channels=source.channels, size=size, grad=source.grad)
        traffic = patterns.pooling(source.elements / self.tensor.elements, keeps_input=mask_bytes is not None and not source.kept)
        source.kept = source.kept or (mask_bytes is not None and source.grad)
        return self.stream(name, traffic, mask_bytes=mask_bytes or 0.0)


def places(size: int, kernel: int, stride: int, padding: int, *, up: bool = False) -> int:
    """Return the places that a kernel takes over `size` pixels, rounded down, or up for poolings that look past the edge."""
    span = size + 2 * padding - kernel
    count = (ceil(span / stride) if up else span // stride) + 1
    # The last window must start inside the image or its left padding.
    count -= up and (count - 1) * stride >= size + padding
    if count < 1:
        raise ModelError(f"an image is too small: a kernel of {kernel} finds no place on maps of {size} pixels a side; use larger images")
    return count


def _saving(traffic: Traffic, spared: float, *, grad: bool) -> Traffic:
    """Return the traffic less the copy that another op keeps; where no gradient is needed there is no backward pass."""
    if not grad:
        return replace(traffic, backward=0.0, backward_launches=0, saved=0.0)
    return replace(traffic, saved=traffic.saved - spared)
