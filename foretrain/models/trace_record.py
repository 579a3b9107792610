"""Records what a module does, op by op: forward, and backward as autograd really runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foretrain.errors import ModelError
from foretrain.models.trace_constants import Constants
from foretrain.models.trace_data import Call, Data, Record
from foretrain.models.trace_rules import LAUNCHES, PICKED, READS, has_no_formula, is_fusible, is_product
from foretrain.models.trace_shapes import META, OpInfo, Shapes
from foretrain.models.trace_sizes import measure

_current_node: Callable[[], Any] = torch._C._current_autograd_node
_next_sequence: Callable[[], int] = torch._C._autograd._get_sequence_nr


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Records ops as they reach the device, under the module that runs them."""

    def __init__(self, root: Any, compute: Any, shapes: Shapes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
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
        self.quiet: set[int] = set()
        """Parameters and buffers, which nobody keeps for backward: they are there anyway."""
        self.cast: dict[int, int] = {}
        """Records at which a parameter was first cast to fewer bits, by its storage."""
        self._stands_for: dict[int, int] = {}

    @property
    def path(self) -> str:
        """Path of the innermost module that runs; empty for the root."""
        return self._open[-1].path if self._open else ""

    def ignore(self, tensor: Any) -> int:
        """Return the storage of a parameter or buffer, which is not counted as kept for backward."""
        storage = self.storage(tensor)
        self.quiet.add(storage)
        return storage

    def storage(self, tensor: Any) -> int:
        """Return the number of the memory under a tensor, held so that it stays its own."""
        held = tensor.untyped_storage()
        number: int = held._cdata
        if number not in self._alive:
            self._alive[number] = held
        return self._stands_for.get(number, number)

    def stand_in(self, copy: Any, weight: Any) -> None:
        """Take a copy of a parameter in fewer bits for the parameter itself, and note that it was cast here."""
        storage = self.storage(weight)
        self._stands_for[self.storage(copy)] = storage
        self.cast[storage] = len(self.records)

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
        if storage in self.quiet:
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
        if storage in self.quiet:
            return tensor
        last = self.records[-1] if self.records else None
        # What a module finds in its input was written by another: it is kept on the way into its first op.
        here = last is not None and last.path == self.path
        wrote = here and last is not None and last.kind == "moves" and any(one.storage == storage for one in last.writes)
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

    def _picked(self, name: str, tensors: Sequence[Any]) -> Iterator[Data]:
        """Yield what is read of tensors: all of them, but of data that positions pick from no more than there are positions."""
        found = [self.data(one) for one in tensors]
        where = PICKED.get(name)
        if where is not None and where < len(tensors):
            most, before = tensors[where].numel(), found[where - 1]
            size = tensors[where - 1].element_size()
            found[where - 1] = Data(before.storage, min(before.elements, most), min(before.octets, most * size))
        yield from found

    # ── ops ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an op on shapes and record it."""
        kwargs = kwargs or {}
        info = self.shapes.info(func)
        tensors = list(_tensors(args, kwargs))
        if not tensors and info.factory:
            result = self.shapes.constant(func, args, kwargs)
            if result.device.type != "meta":
                return result
            return self._noted(func, info, args, kwargs, result)
        shapes = sum(tensor.device.type == "meta" for tensor in tensors)
        if not shapes:
            return func(*args, **kwargs)  # constants, which a module may look at
        if shapes < len(tensors):
            args, kwargs = self._shaped(args), {key: self._shaped(value) for key, value in kwargs.items()}
        if info.needs_data and not _positions_only(info.name, args):
            return self._looked_at(func, info, args, kwargs)
        _refuse_unknown(info)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": META}
        return self._noted(func, info, args, kwargs, self.shapes.run(func, args, kwargs))

    def _noted(self, func: Any, info: OpInfo, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        """Return the result of an op, recorded."""
        tensors = list(_tensors(args, kwargs))
        self.constants.follow(func, info, tensors, args, kwargs, result)
        if not info.silent:
            self._record(info, tensors, result, args)
        return result

    def _looked_at(self, func: Any, info: OpInfo, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return the result of an op that needs values, where these are constants."""
        if self.constants.all_known(list(_tensors(args, kwargs))):
            return self.constants.evaluate(func, args, kwargs)
        what = {"_local_scalar_dense": ".item()", "equal": "torch.equal"}.get(info.name, info.name)
        raise ModelError(f"{what} needs the values of a tensor, and a trace has shapes only; take the branch on data out of the module")

    def _shaped(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value if value.device.type == "meta" else self.shapes.as_meta(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self._shaped(one) for one in value)
        return value

    def _record(self, info: OpInfo, tensors: Sequence[Any], result: Any, args: Any) -> None:
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

    def _fill(self, record: Record, info: OpInfo, tensors: Sequence[Any], result: Any, args: Any) -> None:
        record.reads = _once(self._picked(info.name, tensors))
        results = [result] if isinstance(result, torch.Tensor) else [one for one in result or () if isinstance(one, torch.Tensor)]
        record.writes = [self.data(one) for one in results]
        record.launches = LAUNCHES.get(info.name, 1)
        record.fusible = is_fusible(info.name)
        if "batch_norm" in info.name:
            record.shape = {"channels": tensors[0].shape[1]}
        if info.name in READS:
            for one in record.reads:
                one.elements *= READS[info.name]
                one.octets *= READS[info.name]
        if info.name in ("copy", "fill", "zero", "normal", "uniform", "bernoulli") and info.inplace:
            record.reads = record.reads[1:]
        if is_product(info.name):
            measure(self.storage, record, args, result)


def _refuse_unknown(info: OpInfo) -> None:
    if not info.view and has_no_formula(info.namespace, info.name):
        raise ModelError(
            f"{info.namespace}::{info.name} multiplies matrices in a way that has no formula here, so its FLOPs are unknown; "
            "write it with matmul, linear, convolution or scaled_dot_product_attention"
        )


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
