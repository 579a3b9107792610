"""What a process puts on the wire: every collective and message that torch starts, in order, with its bytes and its ranks.

A dispatch mode sees the operators of `c10d` and `_c10d_functional`, whoever calls them: DDP's reducer in C++ from autograd's
threads, FSDP2, pipelines, DTensor. A profiler sees them as well, but with no group, and of a list of tensors no dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import distributed
from torch.distributed import distributed_c10d
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

Entry = dict[str, Any]


class _Call(NamedTuple):
    """How an operator says what it sends: its name in the log, and which argument holds the full tensor."""

    op: str
    payload: int
    """Position of the full tensor, or of the local one where `gathers` says that the group's ranks give as much each."""
    gathers: bool = False


CALLS = {
    "c10d::allreduce_": _Call("all_reduce", 0),
    "c10d::allreduce_coalesced_": _Call("all_reduce", 0),
    "c10d::allgather_": _Call("all_gather", 0),
    "c10d::allgather_coalesced_": _Call("all_gather", 0),
    "c10d::_allgather_base_": _Call("all_gather", 0),
    "c10d::allgather_into_tensor_coalesced_": _Call("all_gather", 0),
    "c10d::reduce_scatter_": _Call("reduce_scatter", 1),
    "c10d::_reduce_scatter_base_": _Call("reduce_scatter", 1),
    "c10d::reduce_scatter_tensor_coalesced_": _Call("reduce_scatter", 1),
    "c10d::broadcast_": _Call("broadcast", 0),
    "c10d::alltoall_": _Call("all_to_all", 1),
    "c10d::alltoall_base_": _Call("all_to_all", 1),
    "c10d::send": _Call("send", 0),
    "c10d::recv_": _Call("recv", 0),
    "c10d::recv_any_source_": _Call("recv", 0),
    "c10d::reduce_": _Call("reduce", 0),
    "c10d::gather_": _Call("gather", 1, gathers=True),
    "c10d::scatter_": _Call("scatter", 0, gathers=True),
    "_c10d_functional::all_reduce": _Call("all_reduce", 0),
    "_c10d_functional::all_reduce_": _Call("all_reduce", 0),
    "_c10d_functional::all_reduce_coalesced": _Call("all_reduce", 0),
    "_c10d_functional::all_reduce_coalesced_": _Call("all_reduce", 0),
    "_c10d_functional::all_gather_into_tensor": _Call("all_gather", 0, gathers=True),
    "_c10d_functional::all_gather_into_tensor_out": _Call("all_gather", 0, gathers=True),
    "_c10d_functional::all_gather_into_tensor_coalesced": _Call("all_gather", 0, gathers=True),
    "_c10d_functional::reduce_scatter_tensor": _Call("reduce_scatter", 0),
    "_c10d_functional::reduce_scatter_tensor_out": _Call("reduce_scatter", 0),
    "_c10d_functional::reduce_scatter_tensor_coalesced": _Call("reduce_scatter", 0),
    "_c10d_functional::broadcast": _Call("broadcast", 0),
    "_c10d_functional::broadcast_": _Call("broadcast", 0),
    "_c10d_functional::all_to_all_single": _Call("all_to_all", 0),
    "_c10d_functional::isend": _Call("send", 0),
    "_c10d_functional::irecv": _Call("recv", 0),
}
"""Operators that put data on the wire; barriers and waits carry none."""
MESSAGES = {"send": "dst", "recv": "src"}


@contextmanager
def log_collectives() -> Iterator[list[Entry]]:
    """Yield a list that gets one entry of this process for each collective that starts inside, in order.

    An entry is {"op", "bytes", "group"}: the bytes of the full tensor (of a gather what is gathered, of a scatter what is reduced), and
    the global ranks; of a message, its sender and its receiver.
    """
    entries: list[Entry] = []
    with _Watch(entries):
        yield entries


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators that communicate, and runs all as they are."""

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries = entries

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(one, DTensor) for one in types):
            return NotImplemented  # it comes back as operators on local tensors, and as the collectives it needs
        call = CALLS.get(func._schema.name) if isinstance(func, torch._ops.OpOverload) else None
        if call is not None:
            self.entries.append(_entry(func, call, _named(func, args, kwargs or {})))
        return func(*args, **(kwargs or {}))


def _entry(func: Any, call: _Call, given: dict[str, Any]) -> Entry:
    group = given["process_group"] if "process_group" in given else given["group_name"]
    ranks = _ranks(group)
    size = _bytes(list(given.values())[call.payload]) * (len(ranks) if call.gathers else 1)
    if call.op in MESSAGES:
        peer, own = given.get(MESSAGES[call.op]), distributed.get_rank()
        other = own if peer is None else ranks[peer]
        ranks = [own, other] if call.op == "send" else [other, own]
    return {"op": call.op, "bytes": size, "group": ranks}


def _named(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operator by name, in its order."""
    names = [one.name for one in func._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _ranks(group: Any) -> list[int]:
    """Return the global ranks of a group that is given as itself, boxed for the dispatcher, or by name."""
    if isinstance(group, str):
        group = distributed_c10d._resolve_process_group(group)  # type: ignore[attr-defined, arg-type]
    elif not isinstance(group, distributed.ProcessGroup):
        group = distributed.ProcessGroup.unbox(group)
    return sorted(distributed.get_process_group_ranks(group))


def _bytes(tensors: Any) -> int:
    """Return the bytes of a tensor, or of all in lists of them."""
    if isinstance(tensors, torch.Tensor):
        return tensors.numel() * tensors.element_size()
    return sum(_bytes(one) for one in tensors)
