"""Automatic mixed precision in a trace: products in 16 bits, what sums or normalises in fp32, as torch.autocast does on accelerators.

**Source:** PyTorch documentation, "Automatic Mixed Precision package", op reference for CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from foretrain.models.trace_data import Data, Record
from foretrain.models.trace_record import Recorder

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

_LOWER = frozenset({
    functional.linear, functional.conv1d, functional.conv2d, functional.conv3d, functional.conv_transpose1d, functional.conv_transpose2d,
    functional.conv_transpose3d, functional.scaled_dot_product_attention, functional.prelu, torch.matmul, torch.mm, torch.bmm, torch.mv,
    torch.addmm, torch.addbmm, torch.baddbmm, torch.addmv, torch.einsum, torch.chain_matmul, torch._VF.lstm, torch._VF.gru,
    torch._VF.rnn_tanh, torch._VF.rnn_relu, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.__rmatmul__, torch.Tensor.mm,
    torch.Tensor.bmm, torch.Tensor.mv, torch.Tensor.addmm, torch.Tensor.baddbmm,
})  # fmt: skip
_HIGHER = frozenset({
    functional.layer_norm, functional.group_norm, functional.softmax, functional.log_softmax, functional.cross_entropy,
    functional.nll_loss, functional.mse_loss, functional.l1_loss, functional.smooth_l1_loss, functional.huber_loss, functional.kl_div,
    functional.cosine_similarity, functional.softplus, torch.softmax, torch.log_softmax, torch.exp, torch.log, torch.pow, torch.rsqrt,
    torch.sum, torch.cumsum, torch.norm, torch.Tensor.softmax, torch.Tensor.log_softmax, torch.Tensor.exp, torch.Tensor.log,
    torch.Tensor.pow, torch.Tensor.__pow__, torch.Tensor.rsqrt, torch.Tensor.sum, torch.Tensor.cumsum, torch.Tensor.norm,
})  # fmt: skip


class Autocast(TorchFunctionMode):
    """Casts the floating operands of calls to what autocast runs them in.

    Weights are cast once a pass and kept: their copies pass for the weights themselves, and the recorder notes which there are.
    """

    def __init__(self, recorder: Recorder, dtype: Any) -> None:
        super().__init__()
        self._recorder = recorder
        self._dtype = dtype
        self._kept: dict[int, Any] = {}

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call on operands of its dtype."""
        kwargs = kwargs or {}
        if func is functional.cross_entropy and self._in_one_kernel(args, kwargs):
            # The logarithms of the softmax of 16-bit logits are written in fp32 by the kernel that reads them.
            plain = {key: one for key, one in kwargs.items() if key != "label_smoothing"}
            return functional.nll_loss(self._log_softmax(args[0]), *args[1:], **plain)
        if func in _LOWER:
            args, kwargs = self._cast(args, self._dtype), {key: self._cast(one, self._dtype) for key, one in kwargs.items()}
        elif func in _HIGHER:
            args, kwargs = self._cast(args, torch.float32), {key: self._cast(one, torch.float32) for key, one in kwargs.items()}
        return func(*args, **kwargs)

    def _in_one_kernel(self, args: Any, kwargs: Any) -> bool:
        plain = not kwargs.get("label_smoothing") and len(args) == 2 and not args[1].dtype.is_floating_point
        return plain and args[0].dtype == self._dtype and args[0].dim() > 1

    def _log_softmax(self, logits: Any) -> Any:
        """Return the logarithms of a softmax in fp32, recorded as the kernel that reads and, backward, writes 16 bits."""
        recorder, count = self._recorder, logits.numel()
        record = Record("_log_softmax", "moves", recorder.path, len(recorder.records), launches=1, fusible=True, live=logits.requires_grad)
        record.reads = [recorder.data(logits)]
        recorder.add(record)
        out = _Copy.apply(logits, torch.float32)  # type: ignore[no-untyped-call]
        record.writes = [recorder.data(out)]
        recorder.keep(record, out)
        if record.live:
            read = [Data(0, 0, count * out.element_size()), recorder.data(out)]
            name = "_log_softmax_backward_data"
            grad = Record(name, "moves", record.path, record.number, reads=read, writes=[Data(0, count, 0)], launches=1, fusible=True)
            record.grads.append(grad)
        return out

    def _cast(self, value: Any, dtype: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self._cast(one, dtype) for one in value)
        if not isinstance(value, torch.Tensor) or value.dtype not in (torch.float32, self._dtype) or value.dtype == dtype:
            return value
        if dtype == self._dtype and value.is_leaf and value.requires_grad:
            return self._kept_copy(value)
        return value.to(dtype) if torch.float32 in {value.dtype, dtype} else value

    def _kept_copy(self, weight: Any) -> Any:
        key = id(weight)
        if key not in self._kept:
            copy = _Copy.apply(weight, self._dtype)  # type: ignore[no-untyped-call]
            self._recorder.stand_in(copy, weight)
            self._kept[key] = copy
        return self._kept[key]


class _Copy(torch.autograd.Function):
    """A weight in few bits, whose gradient comes back in as many as it has."""

    @staticmethod
    def forward(ctx: Any, weight: Any, dtype: Any) -> Any:
        ctx.dtype = weight.dtype
        return torch.empty_like(weight, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return torch.empty_like(grad, dtype=ctx.dtype), None
