"""The memory-bound ops that are timed, one entry each. They allocate their results, as training does.

`passes` are reads and writes of all elements: what an op must move. Backward ops are those that autograd runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from foretrain.validate.measuring.bench import Lab

Make = Callable[[Any, Lab, int, str], Any]
"""Of torch, the lab, elements and type: the call to time."""
ROW = 1024
SIDE = 32
"""Side of the images of norms and pools; they have 64 channels."""
CHANNELS = 64
VOCABULARY = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOp:
    """An op by what makes its call, its passes and the kernels it launches. Its elements are a multiple of `unit`."""

    make: Make
    passes: float
    launches: int = 1
    unit: int = 1


def _unary(apply: Callable[[Any], Callable[[Any], Any]]) -> Make:
    """Return the maker of an op of one tensor; `apply` takes torch."""

    def make(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
        op, values = apply(torch), lab.tensor(elements, dtype=dtype)
        return lambda: op(values)

    return make


def _binary(apply: Callable[[Any], Callable[[Any, Any], Any]]) -> Make:
    def make(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
        op, left, right = apply(torch), lab.tensor(elements, dtype=dtype), lab.tensor(elements, dtype=dtype)
        return lambda: op(left, right)

    return make


def _rows(apply: Callable[[Any], Callable[[Any], Any]]) -> Make:
    def make(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
        op, values = apply(torch), lab.tensor(elements // ROW, ROW, dtype=dtype)
        return lambda: op(values)

    return make


def _images(apply: Callable[[Any], Callable[[Any], Any]]) -> Make:
    def make(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
        op, values = apply(torch), _image(lab, elements, dtype)
        return lambda: op(values)

    return make


def _image(lab: Lab, elements: int, dtype: str, channels: int = CHANNELS) -> Any:
    return lab.tensor(elements // (channels * SIDE * SIDE), channels, SIDE, SIDE, dtype=dtype)


def _layer_norm(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    values, weight, bias = lab.tensor(elements // ROW, ROW, dtype=dtype), lab.tensor(ROW, dtype=dtype), lab.tensor(ROW, dtype=dtype)
    return lambda: torch.native_layer_norm(values, [ROW], weight, bias, 1e-5)


def _layer_norm_backward(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    values, weight, bias = lab.tensor(elements // ROW, ROW, dtype=dtype), lab.tensor(ROW, dtype=dtype), lab.tensor(ROW, dtype=dtype)
    _, mean, inverse = torch.native_layer_norm(values, [ROW], weight, bias, 1e-5)
    backward = torch.ops.aten.native_layer_norm_backward
    return lambda: backward(values, values, [ROW], mean, inverse, weight, bias, [True, True, True])


def _batch_norm_of(channels: int) -> Make:
    """Return the maker of a batch norm, which some kernels run channel by channel."""

    def make(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
        values, module = _image(lab, elements, dtype, channels), torch.nn.BatchNorm2d(channels, device=lab.device)
        with_grad = values.requires_grad_()
        return lambda: module(with_grad)

    return make


def _backward_of(forward: Make) -> Make:
    """Return the maker of the backward pass of an op whose call returns one tensor of a graph."""

    def make(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
        result = forward(torch, lab, elements, dtype)()
        leaf = lab.tensor(*result.shape, dtype=dtype) if result.dim() else None
        inputs = _leaves(result)
        return lambda: torch.autograd.grad(result, inputs, leaf, retain_graph=True)

    return make


def _leaves(result: Any) -> list[Any]:
    """Return the tensors with gradients that a graph began with."""
    found, nodes = [], [result.grad_fn]
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            found.append(node.variable)
        nodes += [below for below, _ in node.next_functions if below is not None]
    return found


def _softmax_backward(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    values = lab.tensor(elements // ROW, ROW, dtype=dtype)
    result, backward = torch.softmax(values, -1), torch.ops.aten._softmax_backward_data
    return lambda: backward(values, result, -1, values.dtype)


def _cross_entropy(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    rows = elements // VOCABULARY
    logits, targets = lab.tensor(rows, VOCABULARY, dtype=dtype, grad=True), lab.indices(VOCABULARY, rows)
    return lambda: torch.nn.functional.cross_entropy(logits, targets)


def _embedding(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    table, places = lab.tensor(VOCABULARY, ROW, dtype=dtype, grad=True), lab.indices(VOCABULARY, elements // ROW)
    return lambda: torch.nn.functional.embedding(places, table)


def _max_pool(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    values = _image(lab, elements, dtype).requires_grad_()
    return lambda: torch.nn.functional.max_pool2d(values, 3, 2, 1)


def _dropout(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    values = lab.tensor(elements, dtype=dtype)
    return lambda: torch.native_dropout(values, 0.1, True)  # noqa: FBT003 - torch's own signature


def _fill(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    values = lab.tensor(elements, dtype=dtype)
    return lambda: torch.zeros_like(values)


def _cast(torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    values, other = lab.tensor(elements, dtype=dtype), torch.bfloat16 if dtype == "fp32" else torch.float32
    return lambda: values.to(other)


def _accumulate(_torch: Any, lab: Lab, elements: int, dtype: str) -> Any:
    total, part = lab.tensor(elements, dtype=dtype), lab.tensor(elements, dtype=dtype)
    return lambda: total.add_(part)


IMAGE = CHANNELS * SIDE * SIDE
WIDE_CHANNELS = 512
WIDE_IMAGE = WIDE_CHANNELS * SIDE * SIDE
OPS: Mapping[str, StreamOp] = MappingProxyType({
    "add": StreamOp(make=_binary(lambda torch: torch.add), passes=3),
    "gelu": StreamOp(make=_unary(lambda torch: torch.nn.functional.gelu), passes=2),
    "layer_norm": StreamOp(make=_layer_norm, passes=2, unit=ROW),
    "copy": StreamOp(make=_unary(lambda torch: torch.clone), passes=2),
    "relu": StreamOp(make=_unary(lambda torch: torch.relu), passes=2),
    "softmax": StreamOp(make=_rows(lambda torch: lambda values: torch.softmax(values, -1)), passes=2, unit=ROW),
    "gelu_backward": StreamOp(make=_binary(lambda torch: torch.ops.aten.gelu_backward), passes=3),
    "layer_norm_backward": StreamOp(make=_layer_norm_backward, passes=5, launches=2, unit=ROW),
    "cross_entropy": StreamOp(make=_cross_entropy, passes=2, launches=2, unit=VOCABULARY),
    "batch_norm": StreamOp(make=_batch_norm_of(CHANNELS), passes=3, launches=2, unit=IMAGE),
    "batch_norm_wide": StreamOp(make=_batch_norm_of(WIDE_CHANNELS), passes=3, launches=2, unit=WIDE_IMAGE),
    "embedding": StreamOp(make=_embedding, passes=2, unit=ROW),
    "sum": StreamOp(make=_rows(lambda _torch: lambda values: values.sum(0)), passes=1, unit=ROW),
    "relu_backward": StreamOp(make=_binary(lambda torch: lambda slope, kept: torch.ops.aten.threshold_backward(slope, kept, 0)), passes=3),
    "batch_norm_backward": StreamOp(make=_backward_of(_batch_norm_of(CHANNELS)), passes=5, launches=2, unit=IMAGE),
    "batch_norm_wide_backward": StreamOp(make=_backward_of(_batch_norm_of(WIDE_CHANNELS)), passes=5, launches=2, unit=WIDE_IMAGE),
    "softmax_backward": StreamOp(make=_softmax_backward, passes=3, unit=ROW),
    "cross_entropy_backward": StreamOp(make=_backward_of(_cross_entropy), passes=4, launches=2, unit=VOCABULARY),
    "embedding_backward": StreamOp(make=_backward_of(_embedding), passes=2, launches=2, unit=ROW),
    "accumulate": StreamOp(make=_accumulate, passes=3),
    "mul": StreamOp(make=_binary(lambda torch: torch.mul), passes=3),
    "cast": StreamOp(make=_cast, passes=1.5),
    "dropout": StreamOp(make=_dropout, passes=2.25),
    "max_pool": StreamOp(make=_max_pool, passes=1.75, unit=IMAGE),
    "max_pool_backward": StreamOp(make=_backward_of(_max_pool), passes=1.75, unit=IMAGE),
    "avg_pool": StreamOp(make=_images(lambda _torch: lambda images: images.mean((2, 3))), passes=1, unit=IMAGE),
    "silu": StreamOp(make=_unary(lambda torch: torch.nn.functional.silu), passes=2),
    "tanh": StreamOp(make=_unary(lambda torch: torch.tanh), passes=2),
    "transpose": StreamOp(make=_rows(lambda _torch: lambda values: values.t().contiguous()), passes=2, unit=ROW),
    "fill": StreamOp(make=_fill, passes=1),
})  # fmt: skip
"""The most telling first. A batch norm reads its images twice; a pool writes a quarter of them and as many places of 8 bytes."""
