"""Convolutions forward and backward, of the shapes that residual and depthwise networks have."""

from __future__ import annotations

from typing import Any

from foretrain.models.ops import Convolution
from foretrain.validate.measuring.bench import SIZES, Bench, Lab, Machine, math_of, merged, scattered

DIRECTIONS = ("forward", "data", "weight")
LAYERS = {
    "cuda": (
        (64, 256, 256, 1, 14, 3, 1),
        (64, 64, 64, 1, 56, 3, 1),
        (64, 3, 64, 1, 224, 7, 2),
        (64, 256, 64, 1, 56, 1, 1),
        (64, 512, 512, 1, 7, 3, 1),
        (64, 128, 128, 1, 28, 3, 1),
        (64, 1024, 256, 1, 14, 1, 1),
        (64, 512, 2048, 1, 7, 1, 1),
        (64, 256, 512, 1, 56, 1, 2),
        (64, 128, 128, 1, 56, 3, 2),
        (64, 96, 96, 96, 56, 7, 1),
        (64, 384, 384, 384, 14, 3, 1),
        (256, 64, 64, 1, 56, 3, 1),
        (8, 256, 256, 1, 14, 3, 1),
        (32, 3, 768, 1, 224, 16, 16),
    ),
    "cpu": (
        (8, 64, 64, 1, 16, 3, 1),
        (8, 3, 64, 1, 64, 7, 2),
        (8, 128, 128, 1, 8, 3, 1),
        (8, 64, 128, 1, 16, 1, 2),
        (8, 256, 256, 1, 4, 3, 1),
        (2, 64, 64, 1, 16, 3, 1),
        (8, 64, 128, 1, 16, 3, 2),
        (8, 512, 512, 1, 2, 3, 1),
        (8, 64, 64, 64, 16, 3, 1),
        (32, 16, 16, 1, 32, 3, 1),
        (8, 64, 256, 1, 16, 1, 1),
    ),
}
"""Samples, channels in and out, groups, side of the image, side of the kernel, stride."""


def plan(machine: Machine) -> list[Bench]:
    """Return every layer in three directions; types after one another."""
    layers = [(layer, direction) for layer in LAYERS[machine.device] for direction in DIRECTIONS]
    if machine.device == "cpu":
        return [_bench("fp32", layer, direction, busy=1) for layer, direction in layers]
    half = [_bench("bf16", layer, direction) for layer, direction in layers]
    others = [_bench(dtype, layer, direction) for layer, direction in scattered(layers[:15]) for dtype in ("tf32", "fp16", "fp32")]
    return merged(half, others)


def shape_of(layer: tuple[int, ...], direction: Any) -> Convolution:
    """Return the convolution of a layer, padded by half its kernel unless it cuts patches."""
    samples, ins, outs, groups, side, kernel, stride = layer
    out = (side + 2 * _padding(kernel, stride) - kernel) // stride + 1
    return Convolution(
        direction=direction,
        samples=samples,
        in_channels=ins,
        out_channels=outs,
        groups=groups,
        in_size=(side, side),
        out_size=(out, out),
        kernel=(kernel, kernel),
        stride=(stride, stride),
    )


def _padding(kernel: int, stride: int) -> int:
    return 0 if kernel == stride else kernel // 2


def _bench(dtype: str, layer: tuple[int, ...], direction: str, *, busy: int = 0) -> Bench:
    one = shape_of(layer, direction)
    size = SIZES[dtype] * (one.maps + one.filters)
    shape = {
        "direction": direction,
        "samples": one.samples,
        "in_channels": one.in_channels,
        "out_channels": one.out_channels,
        "groups": one.groups,
        "in_size": list(one.in_size),
        "out_size": list(one.out_size),
        "kernel": list(one.kernel),
        "stride": list(one.stride),
        **({"busy_ranks": busy} if busy else {}),
    }
    return Bench(name="convolution", dtype=dtype, shape=shape, flop=one.flop, bytes=size, held_bytes=3 * size)


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time one direction. Images lie channel by channel, as torch makes them."""
    import torch  # noqa: PLC0415 - torch is heavy and optional
    from torch.nn import functional  # noqa: PLC0415

    shape, dtype = bench.shape, bench.dtype
    groups, stride, kernel = shape["groups"], shape["stride"], shape["kernel"]
    padding = [_padding(kernel[0], stride[0])] * 2
    images = lab.tensor(shape["samples"], shape["in_channels"], *shape["in_size"], dtype=dtype)
    filters = lab.tensor(shape["out_channels"], shape["in_channels"] // groups, *kernel, dtype=dtype)
    with math_of(dtype, lab.device):
        if shape["direction"] == "forward":
            return lab.time(lambda: functional.conv2d(images, filters, stride=stride, padding=padding, groups=groups)).data()
        slope = lab.tensor(shape["samples"], shape["out_channels"], *shape["out_size"], dtype=dtype)
        wanted = [shape["direction"] == "data", shape["direction"] == "weight", False]
        backward = torch.ops.aten.convolution_backward
        rest = (None, stride, padding, [1, 1], False, [0, 0], groups, wanted)
        return lab.time(lambda: backward(slope, images, filters, *rest)).data()
