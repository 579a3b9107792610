"""Sizes and FLOPs of products as they run: matrix products, convolutions, and the gradients of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from foretrain.models.trace_data import Record
from foretrain.models.trace_rules import CONVOLUTION, CONVOLUTION_BACKWARD, PRODUCTS

Storage = Callable[[Any], int]


def measure(storage: Storage, record: Record, args: Any, result: Any) -> None:
    """Note in a record of a product its kind, its sizes and its FLOPs; `storage` numbers the memory under a tensor."""
    _SIZES[record.name](storage, record, args, result)


def _needs(tensor: Any) -> bool:
    return bool(torch.is_grad_enabled() and tensor.requires_grad)


def _product(storage: Storage, record: Record, args: Any, _result: Any) -> None:
    left_at, right_at, bias_at = PRODUCTS[record.name]
    left, right = args[left_at], args[right_at]
    batch = left.shape[0] if left.dim() == 3 else 1
    m, k = left.shape[-2:] if left.dim() > 1 else (1, left.shape[0])
    n = right.shape[-1] if right.dim() > 1 else 1
    record.kind = "product"
    record.flop = 2 * batch * m * n * k
    bias = args[bias_at] if bias_at is not None else None
    record.shape = {
        "sizes": (batch, m, n, k), "left": storage(left), "right": storage(right),
        "left_grad": _needs(left), "right_grad": _needs(right), "added": None if bias is None else storage(bias),
        "added_grad": bias is not None and _needs(bias), "added_row": bias is not None and bias.dim() == 1,
    }  # fmt: skip


def _convolution(storage: Storage, record: Record, args: Any, result: Any) -> None:
    data, weight, bias, stride = args[0], args[1], args[2], args[3]
    transposed, groups = args[6], args[8]
    record.kind = "convolution"
    spatial = data.dim() - 2
    grid = data.shape[2:] if transposed else result.shape[2:]
    taps, pixels = 1, 1
    for size in weight.shape[2:]:
        taps *= size
    for size in grid:
        pixels *= size
    record.flop = 2 * data.shape[0] * pixels * weight.shape[0] * weight.shape[1] * taps
    record.shape = {
        "images": data.shape[0], "ins": data.shape[1], "outs": result.shape[1], "groups": groups, "in_size": tuple(data.shape[2:]),
        "out_size": tuple(result.shape[2:]), "kernel": tuple(weight.shape[2:]), "stride": tuple(stride) * (spatial // len(stride)),
        "transposed": transposed, "left": storage(data), "right": storage(weight), "left_grad": _needs(data),
        "right_grad": _needs(weight), "added": None if bias is None else storage(bias),
        "added_grad": bias is not None and _needs(bias), "added_row": bias is not None,
    }  # fmt: skip


def _convolution_backward(_storage: Storage, record: Record, args: Any, _result: Any) -> None:
    """Count the FLOPs of the gradients that were asked for: each those of the forward pass."""
    grad, data, weight = args[0], args[1], args[2]
    transposed, wanted = args[7], args[10]
    grid = data.shape[2:] if transposed else grad.shape[2:]
    flop = 2 * data.shape[0] * weight.numel()
    for size in grid:
        flop *= size
    record.kind = "convolution"
    record.flop = flop * (bool(wanted[0]) + bool(wanted[1]))


def _grouped(storage: Storage, record: Record, args: Any, _result: Any) -> None:
    """Count a product whose rows go to one of several matrices each: every row meets one of them."""
    left, right = args[0], args[1]
    m, k = left.shape[-2:]
    record.kind = "product"
    if left.dim() == 2 and right.dim() == 2:  # the gradient of the matrices: rows are summed over
        record.flop = 2 * m * k * right.shape[-1]
        return
    rows = m * (left.shape[0] if left.dim() == 3 else 1)
    record.flop = 2 * rows * k * right.shape[-1]
    record.shape = {
        "sizes": (1, rows, right.shape[-1], k), "left": storage(left), "right": storage(right),
        "left_grad": _needs(left), "right_grad": _needs(right), "added": None, "added_grad": False, "added_row": False,
        "groups": right.shape[0],
    }  # fmt: skip


_SIZES: dict[str, Callable[[Storage, Record, Any, Any], None]] = {
    **dict.fromkeys(PRODUCTS, _product),
    CONVOLUTION: _convolution,
    CONVOLUTION_BACKWARD: _convolution_backward,
    "_grouped_mm": _grouped,
}
