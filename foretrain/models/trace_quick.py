"""Shapes of the commonest ops, known without asking torch, which takes milliseconds to derive some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

_SAME = frozenset({
    "add", "sub", "mul", "div", "relu", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "neg", "threshold_backward",
    "gelu_backward", "silu_backward", "sigmoid_backward", "tanh_backward", "hardswish_backward", "hardsigmoid_backward",
})  # fmt: skip
"""Ops whose result is as their operands are, where those are all alike."""


def quick(name: str, args: Sequence[Any]) -> Any:
    """Return the result of an op on shapes where it is one of the common, else None."""
    if name in _SAME:
        return _alike(args)
    made = _QUICK.get(name)
    return None if made is None else made(args)


def _alike(args: Sequence[Any]) -> Any:
    tensors = [one for one in args if isinstance(one, torch.Tensor)]
    first = tensors[0]
    if not first.dtype.is_floating_point or not first.is_contiguous():
        return None
    same = all(one.shape == first.shape and one.dtype == first.dtype and one.is_contiguous() for one in tensors[1:])
    return torch.empty_like(first) if same else None


def _batch_norm(args: Sequence[Any]) -> Any:
    data, weight, trained = args[0], args[1], args[5]
    if not trained or not data.dtype.is_floating_point:
        return None
    kept = torch.empty(data.shape[1], dtype=data.dtype if weight is None else weight.dtype, device=data.device)
    return torch.empty_like(data), kept, torch.empty_like(kept)


def _batch_norm_backward(args: Sequence[Any]) -> Any:
    data, weight, wanted = args[1], args[2], args[9]
    like = data.new_empty(data.shape[1]) if weight is None else weight
    return (
        torch.empty_like(data) if wanted[0] else None, torch.empty_like(like) if wanted[1] else None,
        torch.empty_like(like) if wanted[2] else None,
    )  # fmt: skip


def _layer_norm(args: Sequence[Any]) -> Any:
    data, normal = args[0], args[1]
    if not data.is_contiguous() or data.dtype not in (torch.float32, torch.float64):
        return None
    rows = (*data.shape[: data.dim() - len(normal)], *(1 for _ in normal))
    kept = torch.empty(rows, dtype=data.dtype, device=data.device)
    return torch.empty_like(data), kept, torch.empty_like(kept)


def _layer_norm_backward(args: Sequence[Any]) -> Any:
    data, weight, bias, wanted = args[1], args[5], args[6], args[7]
    return (
        torch.empty_like(data, memory_format=torch.contiguous_format) if wanted[0] else None,
        torch.empty_like(weight) if wanted[1] and weight is not None else None,
        torch.empty_like(bias) if wanted[2] and bias is not None else None,
    )  # fmt: skip


_QUICK: dict[str, Callable[[Sequence[Any]], Any]] = {
    "native_batch_norm": _batch_norm,
    "native_batch_norm_backward": _batch_norm_backward,
    "native_layer_norm": _layer_norm,
    "native_layer_norm_backward": _layer_norm_backward,
}
