"""The weights of the networks, without any framework: names and counts are those of the torch modules of `nets`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretrain.validate.case import Net

GPT_DEVIATION = 0.02
WIDENING = 4
"""Width of a GPT block's perceptron over that of the model."""
RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
RESNET_WIDTHS = (64, 128, 256, 512)
BOTTLENECK_FROM = 50
EXPANSION = 4
COLUMN, ROW = 1, 0
"""Dimension of a matrix (in, out) that tensor-parallel ranks share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One array, drawn with this mean and deviation: matrices are (in, out), kernels (rows, columns, in, out).

    `cut` is the dimension that tensor-parallel ranks share, None where each has it whole.
    """

    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float = 0.0
    cut: int | None = None


Named = Iterator[tuple[str, Weight]]


def weights_of(net: Net) -> dict[str, Weight]:
    """Return the weights of a network, by name, in the order of its torch module."""
    return dict({"mlp": _mlp, "resnet": _resnet, "gpt": _gpt}[net.kind](net.sizes))


def parameters_of(net: Net) -> int:
    """Return how many numbers a network learns."""
    return sum(math.prod(one.shape) for one in weights_of(net).values())


def drawn(weights: Mapping[str, Weight], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return weights as every framework starts from them."""
    random = np.random.default_rng(seed)
    return {
        name: (one.mean + one.deviation * random.standard_normal(one.shape)).astype(np.float32) for name, one in weights.items()
    }  # fmt: skip


def batch_of(net: Net, samples: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return inputs and classes: pictures are channels last."""
    random = np.random.default_rng(seed)
    sizes = net.sizes
    if net.kind == "gpt":
        tokens = random.integers(sizes["vocab"], size=(samples, sizes["seq"] + 1), dtype=np.int32)
        return tokens[:, :-1], tokens[:, 1:]
    shape = (sizes["width"],) if net.kind == "mlp" else (sizes["image"], sizes["image"], 3)
    inputs = random.standard_normal((samples, *shape)).astype(np.float32)
    return inputs, random.integers(sizes["classes"], size=samples, dtype=np.int32)


def _linear(name: str, size: tuple[int, int], *, deviation: float | None = None, cut: int | None = None, bias: bool = True) -> Named:
    spread = 1 / math.sqrt(3 * size[0])  # of the uniform numbers that torch draws
    yield f"{name}.weight", Weight(shape=size, deviation=spread if deviation is None else deviation, cut=cut)
    if bias:
        yield f"{name}.bias", Weight(shape=size[1:], deviation=spread, cut=0 if cut == COLUMN else None)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", Weight(shape=(width,), mean=1.0)
    yield f"{name}.bias", Weight(shape=(width,))


def _mlp(sizes: Mapping[str, int]) -> Named:
    width = sizes["width"]
    yield from _linear("stem", (width, width))
    for number in range(sizes["depth"]):
        yield from _linear(f"blocks.{number}.up", (width, width), cut=COLUMN)
        yield from _linear(f"blocks.{number}.down", (width, width), cut=ROW)
    yield from _linear("head", (width, sizes["classes"]), cut=COLUMN)


def _gpt(sizes: Mapping[str, int]) -> Named:
    hidden = sizes["hidden"]
    yield "stem.positions", Weight(shape=(sizes["seq"], hidden), deviation=GPT_DEVIATION)
    yield "stem.tokens.weight", Weight(shape=(sizes["vocab"], hidden), deviation=GPT_DEVIATION, cut=ROW)
    for number in range(sizes["layers"]):
        block = f"blocks.{number}"
        yield from _norm(f"{block}.norm1", hidden)
        for name in ("query", "key", "value"):
            yield from _linear(f"{block}.attention.{name}", (hidden, hidden), deviation=GPT_DEVIATION, cut=COLUMN)
        yield from _linear(f"{block}.attention.out", (hidden, hidden), deviation=GPT_DEVIATION, cut=ROW)
        yield from _norm(f"{block}.norm2", hidden)
        yield from _linear(f"{block}.mlp.up", (hidden, WIDENING * hidden), deviation=GPT_DEVIATION, cut=COLUMN)
        yield from _linear(f"{block}.mlp.down", (WIDENING * hidden, hidden), deviation=GPT_DEVIATION, cut=ROW)
    yield from _norm("head.norm", hidden)
    yield from _linear("head.output", (hidden, sizes["vocab"]), deviation=GPT_DEVIATION, cut=COLUMN, bias=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A convolution and its norm: names of both, channels in and out, side of the kernel, stride."""

    name: str
    norm: str
    channels: int
    out: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """A residual block: its convolutions in a row, and the one beside them where the shape changes."""

    body: tuple[Conv, ...]
    shortcut: Conv | None


STEM = Conv(name="stem.0", norm="stem.1", channels=3, out=RESNET_WIDTHS[0], kernel=7, stride=2)


def residuals(depth: int) -> Iterator[Residual]:
    """Yield the blocks of a ResNet v1.5. **Source:** He et al., arXiv:1512.03385, table 1; the stride is in the 3x3 convolution."""
    channels, number = RESNET_WIDTHS[0], 0
    for group, (count, width) in enumerate(zip(RESNET_BLOCKS[depth], RESNET_WIDTHS, strict=True)):
        for place in range(count):
            yield _residual(f"blocks.{number}", channels, width, stride=2 if group and not place else 1, narrow=depth >= BOTTLENECK_FROM)
            channels, number = width * (EXPANSION if depth >= BOTTLENECK_FROM else 1), number + 1


def _residual(name: str, channels: int, width: int, *, stride: int, narrow: bool) -> Residual:
    out = width * EXPANSION if narrow else width
    # (channels in, channels out, side of the kernel, stride), norm and activation between them
    layers = [(channels, width, 3, stride), (width, width, 3, 1)]
    if narrow:
        layers = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
    body = tuple(
        Conv(name=f"{name}.body.{3 * at}", norm=f"{name}.body.{3 * at + 1}", channels=one, out=to, kernel=kernel, stride=step)
        for at, (one, to, kernel, step) in enumerate(layers)
    )
    if stride == 1 and channels == out:
        return Residual(body=body, shortcut=None)
    beside = Conv(name=f"{name}.shortcut.0", norm=f"{name}.shortcut.1", channels=channels, out=out, kernel=1, stride=stride)
    return Residual(body=body, shortcut=beside)


def _conv(conv: Conv) -> Named:
    fan_in = conv.channels * conv.kernel**2
    yield f"{conv.name}.weight", Weight(shape=(conv.kernel, conv.kernel, conv.channels, conv.out), deviation=1 / math.sqrt(3 * fan_in))
    yield from _norm(conv.norm, conv.out)


def _resnet(sizes: Mapping[str, int]) -> Named:
    yield from _conv(STEM)
    out = STEM.out
    for block in residuals(sizes["depth"]):
        for conv in (*block.body, *filter(None, (block.shortcut,))):
            yield from _conv(conv)
        out = block.body[-1].out
    yield from _linear("head.2", (out, sizes["classes"]))
