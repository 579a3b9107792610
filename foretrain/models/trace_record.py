"""Records what a module does, op by op: forward, and backward as autograd really runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foretrain.errors import ModelError
from foretrain.models.trace_constants import Constants
from foretrain.models.trace_rules import (
    CONVOLUTION,
    CONVOLUTION_BACKWARD,
    LAUNCHES,
    PRODUCTS,
    READS,
    has_no_formula,
    is_fusible,
    is_product,
)
from foretrain.models.trace_shapes import Shapes

_current_node: Callable[[], Any] = torch._C._current_autograd_node
_next_sequence: Callable[[], int] = torch.autograd._get_sequence_nr


@dataclass(slots=True)
class Data:
    """What an op reads, writes or keeps of one piece of memory: elements in the compute dtype, or bytes of another."""

    storage: int
    elements: int
    octets: int


@dataclass(slots=True, eq=False)
class Record:
    """One op that ran: forward, with the ops of its backward pass in `grads`, or one of those."""

    name: str
    kind: str
    """view, moves, product, convolution, attention, recurrent."""
    path: str
    number: int
    reads: list[Data] = field(default_factory=list)
    writes: list[Data] = field(default_factory=list)
    launches: int = 0
    fusible: bool = False
    shape: dict[str, Any] = field(default_factory=dict)
    """Sizes and facts of a product."""
    flop: int = 0
    saved: list[Data] = field(default_factory=list)
    grads: list[Record] = field(default_factory=list)
    live: bool = False
    """Whether its results need a gradient."""


@dataclass(slots=True)
class Call:
    """One run of a module: which, and the records it made."""

    path: str
    first: int
    last: int = -1


class Recorder(TorchDispatchMode):
    """Records ops as they reach the device, under the module that runs them."""

    def __init__(self, root: Any, compute: Any, shapes: Shapes) -> None:
        super().__init__()
        self.compute = compute
        self.shapes = shapes
        self.constants = Constants()
        self.records: list[Record] = []
        self.calls: list[Call] = []
        self.savers: dict[int, list[int]] = {}
        """Records that keep a piece of memory for backward."""
        self.paths = {module: path for path, module in root.named_modules()}
        self.backward = False
        self._open: list[Call] = []
        self._alive: dict[int, Any] = {}
        self._by_sequence: dict[int, Record] = {}
        self._pending: list[Data] = []
        self._owner: Record | None = None
        self._quiet: set[int] = set()

    @property
    def path(self) -> str:
        """Path of the innermost module that runs; empty for the root."""
        return self._open[-1].path if self._open else ""

    def ignore(self, tensor: Any) -> int:
        """Return the storage of a parameter or buffer, which is not counted as kept for backward."""
        storage = self.storage(tensor)
        self._quiet.add(storage)
        return storage

    def storage(self, tensor: Any) -> int:
        """Return the number of the memory under a tensor, held so that it stays its own."""
        held = tensor.untyped_storage()
        number: int = held._cdata
        if number not in self._alive:
            self._alive[number] = held
        return number

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow modules in and out, and see what autograd keeps."""
        enter = torch.nn.modules.module.register_module_forward_pre_hook(self._enter)
        leave = torch.nn.modules.module.register_module_forward_hook(self._leave)
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor), self:
                yield
        finally:
            enter.remove()
            leave.remove()

    def finish_forward(self) -> None:
        """Close the forward pass: what comes next is backward."""
        if self._pending and self.records:
            self._settle(self.records[-1])
        self.backward = True
        self._owner = self.records[-1] if self.records else None

    def add(self, record: Record) -> Record:
        """Add a forward record, which takes what was kept on its way in."""
        self.records.append(record)
        self._by_sequence.setdefault(_next_sequence() - 1, record)
        self._settle(record)
        return record

    def data(self, tensor: Any) -> Data:
        """Return the memory that a tensor reads or writes; what is repeated without being there counts once."""
        count = 1
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            count *= size if stride else min(size, 1)
        return self._amount(self.storage(tensor), count, tensor)

    def keep(self, record: Record, tensor: Any) -> None:
        """Note that a record keeps the memory under a tensor for backward."""
        storage = self.storage(tensor)
        if storage in self._quiet:
            return
        first = storage not in self.savers
        self.savers.setdefault(storage, []).append(record.number)
        if first:
            record.saved.append(self._whole(storage, tensor))

    # ── modules and autograd ────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, module: Any, _args: Any) -> None:
        call = Call(self.paths.get(module, self.path), len(self.records))
        self._open.append(call)
        self.calls.append(call)

    def _leave(self, module: Any, _args: Any, _output: Any) -> None:
        path = self.paths.get(module)
        while self._open:
            call = self._open.pop()
            call.last = len(self.records)
            if path is None or call.path == path:
                break

    def _keep(self, tensor: Any) -> Any:
        """Note what autograd keeps: of the op that has just run if it wrote it, else of the one that comes next."""
        if self.backward or tensor.device.type != "meta":
            return tensor
        storage = self.storage(tensor)
        if storage in self._quiet:
            return tensor
        last = self.records[-1] if self.records else None
        wrote = last is not None and last.kind == "moves" and any(one.storage == storage for one in last.writes)
        if last is not None and wrote:
            self.keep(last, tensor)
        else:
            self._pending.append(self._whole(storage, tensor))
        return tensor

    def _settle(self, record: Record) -> None:
        for one in self._pending:
            if one.storage not in self.savers:
                record.saved.append(one)
            self.savers.setdefault(one.storage, []).append(record.number)
        self._pending.clear()

    def _whole(self, storage: int, tensor: Any) -> Data:
        count = tensor.untyped_storage().nbytes() // max(1, tensor.element_size())
        return self._amount(storage, count, tensor)

    def _amount(self, storage: int, count: int, tensor: Any) -> Data:
        if tensor.dtype == self.compute:
            return Data(storage, count, 0)
        return Data(storage, 0, count * tensor.element_size())

    # ── ops ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an op on shapes and record it."""
        kwargs = kwargs or {}
        info = self.shapes.info(func)
        tensors = list(_tensors(args, kwargs))
        if not tensors and info.factory:
            made = self.shapes.constant(func, args, kwargs)
            if made.device.type == "meta" and not info.empty:
                self.constants.follow(func, info, tensors, args, kwargs, made)
                self._record(info, [], made, args)
            return made
        if all(tensor.device.type != "meta" for tensor in tensors):
            return func(*args, **kwargs)  # constants, which a module may look at
        if any(tensor.device.type != "meta" for tensor in tensors):
            args, kwargs = self._shaped(args), {key: self._shaped(value) for key, value in kwargs.items()}
            tensors = list(_tensors(args, kwargs))
        if info.needs_data and not _positions_only(info.name, args):
            if self.constants.all_known(tensors):
                return self.constants.evaluate(func, args, kwargs)
            raise ModelError(_data_needed(info.name))
        if has_no_formula(info.namespace, info.name) and not info.view:
            raise ModelError(
                f"{info.namespace}::{info.name} multiplies matrices in a way that has no formula here, so its FLOPs are unknown; "
                "write it with matmul, linear, convolution or scaled_dot_product_attention"
            )
        if "device" in kwargs and kwargs["device"] is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        result = self.shapes.run(func, args, kwargs)
        if not info.empty:
            self.constants.follow(func, info, tensors, args, kwargs, result)
            self._record(info, tensors, result, args)
        return result

    def _shaped(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value if value.device.type == "meta" else self.shapes.as_meta(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self._shaped(one) for one in value)
        return value

    def _record(self, info: Any, tensors: Sequence[Any], result: Any, args: Any) -> None:
        record = Record(info.name, "view" if info.view else "moves", self.path, len(self.records), fusible=info.view)
        if not info.view:
            self._fill(record, info, tensors, result, args)
        if self.backward:
            node = _current_node()
            if node is not None:
                self._owner = self._by_sequence.get(node._sequence_nr(), self._owner)
            if self._owner is not None and not info.view:
                self._owner.grads.append(record)
            return
        record.live = torch.is_grad_enabled() and any(one.requires_grad for one in tensors)
        self.add(record)

    def _fill(self, record: Record, info: Any, tensors: Sequence[Any], result: Any, args: Any) -> None:
        record.reads = _once(self.data(one) for one in tensors)
        results = [result] if isinstance(result, torch.Tensor) else [one for one in result or () if isinstance(one, torch.Tensor)]
        record.writes = [self.data(one) for one in results]
        record.launches = LAUNCHES.get(info.name, 1)
        record.fusible = is_fusible(info.name)
        if info.name in READS:
            for one in record.reads:
                one.elements *= READS[info.name]
        if info.name in ("copy", "fill", "zero", "normal", "uniform", "bernoulli") and info.inplace:
            record.reads = record.reads[1:]
        if is_product(info.name):
            _PRODUCT_SHAPES[info.name](self, record, args)


def _data_needed(name: str) -> str:
    what = {"_local_scalar_dense": ".item()", "equal": "torch.equal"}.get(name, name)
    return f"{what} needs the values of a tensor, which a trace has not (only shapes); take the branch on data out of the module"


def _positions_only(name: str, args: Any) -> bool:
    """Tell whether an indexing op is given positions, as many as there are results, and no mask of which it would count the true."""
    masks = (torch.bool, torch.uint8)
    return name == "index" and not any(isinstance(one, torch.Tensor) and one.dtype in masks for one in args[1])


def _tensors(args: Any, kwargs: dict[str, Any]) -> Iterator[Any]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (one for one in value if isinstance(one, torch.Tensor))


def _once(found: Iterator[Data]) -> list[Data]:
    """Return each piece of memory once, as large as it is read at most."""
    largest: dict[int, Data] = {}
    for one in found:
        known = largest.get(one.storage)
        if known is None or one.elements + one.octets > known.elements + known.octets:
            largest[one.storage] = one
    return list(largest.values())


def _needs(tensor: Any) -> bool:
    return bool(torch.is_grad_enabled() and tensor.requires_grad)


def _product(recorder: Recorder, record: Record, args: Any) -> None:
    left_at, right_at, bias_at = PRODUCTS[record.name]
    left, right = args[left_at], args[right_at]
    batch = left.shape[0] if left.dim() == 3 else 1
    m, k = left.shape[-2:] if left.dim() > 1 else (1, left.shape[0])
    n = right.shape[-1] if right.dim() > 1 else 1
    record.kind = "product"
    record.flop = 2 * batch * m * n * k
    bias = args[bias_at] if bias_at is not None else None
    record.shape = {
        "sizes": (batch, m, n, k), "left": recorder.storage(left), "right": recorder.storage(right),
        "left_grad": _needs(left), "right_grad": _needs(right), "added": None if bias is None else recorder.storage(bias),
        "added_grad": bias is not None and _needs(bias), "added_row": bias is not None and bias.dim() == 1,
    }  # fmt: skip


def _convolution(recorder: Recorder, record: Record, args: Any) -> None:
    data, weight, bias, stride = args[0], args[1], args[2], args[3]
    transposed, groups = args[6], args[8]
    record.kind = "convolution"
    spatial = data.dim() - 2
    out = recorder.shapes.run(torch.ops.aten.convolution.default, args, {}).shape
    grid = data.shape[2:] if transposed else out[2:]
    taps, pixels = 1, 1
    for size in weight.shape[2:]:
        taps *= size
    for size in grid:
        pixels *= size
    record.flop = 2 * data.shape[0] * pixels * weight.shape[0] * weight.shape[1] * taps
    record.shape = {
        "images": data.shape[0], "ins": data.shape[1], "outs": out[1], "groups": groups, "in_size": tuple(data.shape[2:]),
        "out_size": tuple(out[2:]), "kernel": tuple(weight.shape[2:]), "stride": tuple(stride) * (spatial // len(stride)),
        "transposed": transposed, "left": recorder.storage(data), "right": recorder.storage(weight), "left_grad": _needs(data),
        "right_grad": _needs(weight), "added": None if bias is None else recorder.storage(bias),
        "added_grad": bias is not None and _needs(bias), "added_row": bias is not None,
    }  # fmt: skip


def _convolution_backward(recorder: Recorder, record: Record, args: Any) -> None:
    """Count the FLOPs of the gradients that were asked for: each those of the forward pass."""
    grad, data, weight = args[0], args[1], args[2]
    transposed, wanted = args[7], args[10]
    grid = data.shape[2:] if transposed else grad.shape[2:]
    flop = 2 * data.shape[0] * weight.numel()
    for size in grid:
        flop *= size
    record.kind = "convolution"
    record.flop = flop * (bool(wanted[0]) + bool(wanted[1]))


def _grouped(recorder: Recorder, record: Record, args: Any) -> None:
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
        "sizes": (1, rows, right.shape[-1], k), "left": recorder.storage(left), "right": recorder.storage(right),
        "left_grad": _needs(left), "right_grad": _needs(right), "added": None, "added_grad": False, "added_row": False,
        "groups": right.shape[0],
    }  # fmt: skip


_PRODUCT_SHAPES: dict[str, Callable[[Recorder, Record, Any], None]] = {
    **dict.fromkeys(PRODUCTS, _product),
    CONVOLUTION: _convolution,
    CONVOLUTION_BACKWARD: _convolution_backward,
    "_grouped_mm": _grouped,
}
