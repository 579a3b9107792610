"""Calls of torch that an accelerator runs as one kernel of a library, caught before they fall apart into small ops.

Attention, recurrent layers and dropout would be traced as what a processor without such kernels does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from foretrain.errors import ModelError
from foretrain.models.trace_data import Data, Record
from foretrain.models.trace_record import Recorder

_attention = torch.nn.functional.scaled_dot_product_attention
_CELLS: dict[Any, str] = {
    torch._VF.lstm: "lstm", torch._VF.gru: "gru", torch._VF.rnn_tanh: "rnn", torch._VF.rnn_relu: "rnn",
}  # fmt: skip


class Calls(TorchFunctionMode):
    """Records library calls of a module whole, and gives them outputs that autograd connects with their inputs."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self._handlers: dict[Any, Callable[..., Any]] = {
            _attention: self._attend,
            torch.nn.functional.dropout: _dropout,
            **{function: self._cells(function) for function in _CELLS},
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call, or record it whole."""
        handler = self._handlers.get(func)
        if handler is None or not any(isinstance(one, torch.Tensor) and one.device.type == "meta" for one in args):
            return func(*args, **(kwargs or {}))
        return handler(*args, **(kwargs or {}))

    def _attend(  # noqa: PLR0913, PLR0917  # torch's signature
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:  # fmt: skip
        del scale, enable_gqa
        if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
            raise ModelError(f"attention of {tuple(query.shape)} over {tuple(key.shape)} and {tuple(value.shape)} fits no product")
        recorder = self.recorder
        record = Record("attention", "attention", recorder.path, len(recorder.records))
        operands = [one for one in (query, key, value, attn_mask) if isinstance(one, torch.Tensor)]
        record.reads = [recorder.data(one) for one in operands]
        kv_heads = prod(key.shape[:-2])
        record.shape = {
            "heads": prod(query.shape[:-2]), "kv_heads": kv_heads, "queries": query.shape[-2], "keys": key.shape[-2],
            "head_dim": query.shape[-1], "value_dim": value.shape[-1], "causal": bool(is_causal), "dropout": dropout_p > 0.0,
            "score_bias": attn_mask is not None,
        }  # fmt: skip
        operands = operands if attn_mask is None or attn_mask.dtype.is_floating_point else operands[:3]
        record.live = torch.is_grad_enabled() and any(one.requires_grad for one in operands)
        if len(operands) > 3 and record.live and attn_mask.requires_grad:
            record.grads.append(self._bias_gradient(record, attn_mask))
        # Laid out as the fused kernels write it, heads side by side, so that joining them copies nothing.
        *lead, heads, rows, _ = query.shape if query.dim() > 3 else (*query.shape[:-3], 1, *query.shape[-3:])
        width = value.shape[-1]
        shape = (*lead, rows, heads, width)
        out = self._opaque(record, shape, *operands).transpose(-2, -3)
        return out if query.dim() > 3 else out.reshape(*query.shape[:-1], width)

    def _bias_gradient(self, record: Record, bias: Any) -> Record:
        """Return the sum of the scores' gradients that a trained bias takes: they are read once and summed over what it repeats."""
        scores = record.shape["heads"] * record.shape["queries"] * record.shape["keys"]
        read = Data(0, scores, 0) if bias.dtype == self.recorder.compute else Data(0, 0, scores * bias.element_size())
        return Record("sum", "moves", record.path, record.number, reads=[read], writes=[self.recorder.data(bias)], launches=1)

    def _opaque(self, record: Record, shape: Sequence[int], *tensors: Any) -> Any:
        """Return an output of a recorded call that depends on `tensors`."""
        recorder = self.recorder
        recorder.add(record)
        if record.live:
            for one in tensors:
                recorder.keep(record, one)
        out = _Opaque.apply(tuple(shape), *tensors)  # type: ignore[no-untyped-call]
        record.writes = [recorder.data(out)]
        return out

    def _cells(self, function: Any) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            return self._recur(_CELLS[function], *args, **kwargs)

        return run

    def _recur(  # noqa: PLR0913, PLR0917  # torch's signature
        self, cell: str, data: Any, states: Any, weights: Any, has_bias: Any = None, layers: Any = None, dropout: float = 0.0,
        train: bool = True, bidirectional: bool = False, batch_first: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:  # fmt: skip
        if not isinstance(has_bias, bool):
            raise ModelError("a recurrent layer over packed sequences runs as often as its data say; pad the sequences to one length")
        first = states[0] if isinstance(states, (list, tuple)) else states
        hidden, directions = first.shape[-1], 2 if bidirectional else 1
        if weights[1].shape[1] != hidden or len(weights) % (layers * directions * (4 if has_bias else 2)):
            raise ModelError("a recurrent layer with projections (proj_size) has no formula here; leave proj_size out")
        if data.dim() != 3:
            raise ModelError(f"a recurrent layer over {tuple(data.shape)} has no batch; give it batch, steps and features")
        recorder = self.recorder
        record = Record(cell, "recurrent", recorder.path, len(recorder.records))
        samples, steps = (data.shape[0], data.shape[1]) if batch_first else (data.shape[1], data.shape[0])
        record.reads = [recorder.data(one) for one in (data, *weights)]
        record.live = torch.is_grad_enabled()
        record.shape = {
            "cell": cell, "samples": samples, "steps": steps, "in_features": data.shape[2], "hidden": hidden, "layers": layers,
            "directions": directions, "bias": has_bias, "trained": any(one.requires_grad for one in weights),
            "input_grad": data.requires_grad, "left": recorder.storage(data), "weights": [recorder.storage(one) for one in weights],
        }  # fmt: skip
        out = self._opaque(record, (data.shape[0], data.shape[1], directions * hidden), data, *weights)
        last = torch.empty(first.shape, dtype=out.dtype, device=out.device)
        return (out, last, torch.empty_like(last)) if cell == "lstm" else (out, last)


class _Opaque(torch.autograd.Function):
    """A result that depends on its inputs, without saying how."""

    @staticmethod
    def forward(ctx: Any, shape: Any, *tensors: Any) -> Any:
        ctx.inputs = [(one.shape, one.stride(), one.dtype) for one in tensors]
        return torch.empty(shape, dtype=tensors[0].dtype, device=tensors[0].device)

    @staticmethod
    def backward(ctx: Any, *_grads: Any) -> Any:
        wanted = zip(ctx.inputs, ctx.needs_input_grad[1:], strict=True)
        return (None, *(_like(*made) if needed else None for made, needed in wanted))


def _like(shape: Any, stride: Any, dtype: Any) -> Any:
    """Return a gradient laid out as the input is, which is how the kernels write it; where that repeats data, without repeats."""
    if 0 in stride:
        return torch.empty(shape, dtype=dtype, device="meta")
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def _dropout(data: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: FBT001, FBT002  # torch's signature
    del inplace
    # The kernel of accelerators, which keeps a mask of one byte an element.
    return torch.native_dropout(data, p, True)[0] if training and p > 0.0 else data  # noqa: FBT003  # torch's signature
