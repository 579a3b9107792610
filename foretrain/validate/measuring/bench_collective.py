"""Collectives and sends by size and group. Bytes are those of the whole buffer on a rank, as nccl-tests count them.

Ranks meet before each call. The first to be done has waited for nobody: the least over the ranks is the collective's own time, and what
the last took longer is the skew, kept apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from foretrain.validate.measuring.bench import Bench, Lab, Machine, merged, scattered
from foretrain.validate.measuring.timer import spread_of

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "barrier")
POWERS = {"gloo": range(10, 27, 2), "nccl": range(12, 31, 2)}
"""Buffers of 2ⁿ bytes."""
SAMPLES = (5, 40)
ENOUGH_S = 0.2


def plan(machine: Machine) -> list[Bench]:
    """Return collectives of the whole team and sends at three sizes, then at every size, then of smaller groups."""
    if machine.ranks < 2:
        return []
    powers = list(POWERS[machine.backend])
    coarse = [powers[-2], powers[0], powers[len(powers) // 2]]
    sizes = [*coarse, *scattered([one for one in powers if one not in coarse])]
    whole = [_bench(op, 2**power, machine.ranks, machine) for power in sizes for op in (*COLLECTIVES[:-1], "send")]
    small = [2**one for one in range(1, machine.ranks.bit_length()) if 2**one < machine.ranks]
    part = [_bench(op, 2**power, ranks, machine) for power in coarse for ranks in small for op in COLLECTIVES[:3]]
    return merged([_bench("barrier", 0, machine.ranks, machine)], whole, part)


def _bench(op: str, size: int, ranks: int, machine: Machine) -> Bench:
    if op == "send":
        shape: dict[str, Any] = {"bytes": size, "backend": machine.backend}
        return Bench(name="send", dtype="fp32", shape=shape, bytes=size, held_bytes=2.0 * size, team=True)
    shape = {"op": op, "bytes": size, "ranks": ranks, "backend": machine.backend}
    return Bench(name="collective", dtype="fp32", shape=shape, bytes=size, held_bytes=3.0 * size, team=True)


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time one exchange on every rank and gather what the ranks saw."""
    ranks = 2 if bench.name == "send" else bench.shape["ranks"]
    group = lab.group(ranks)
    if lab.rank >= ranks:
        return {}
    call = exchange("send" if bench.name == "send" else bench.shape["op"], bench.shape["bytes"], group, lab)
    seen = together(call, group, lab)
    least, most = [min(one) for one in seen], [max(one) for one in seen]
    skew = [longest - shortest for shortest, longest in zip(least, most, strict=True)]
    return {"seconds": asdict(spread_of(least)), "skew_s": asdict(spread_of(skew))}


def exchange(op: str, size: int, group: Any, lab: Lab) -> Callable[[], object]:
    """Return the call that makes an exchange of buffers of `size` bytes."""
    import torch.distributed as dist  # noqa: PLC0415 - torch is heavy and optional

    ranks = dist.get_world_size(group)
    count = max(ranks, size // 4 // ranks * ranks)
    whole, part = lab.tensor(count), lab.tensor(count // ranks)
    other = lab.tensor(count) if op == "all_to_all" else whole
    calls: dict[str, Callable[[], object]] = {
        "all_reduce": lambda: dist.all_reduce(whole, group=group),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part, group=group),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole, group=group),
        "broadcast": lambda: dist.broadcast(whole, 0, group=group),
        "all_to_all": lambda: dist.all_to_all_single(other, whole, group=group),
        "barrier": lambda: dist.barrier(group=group),
        "send": lambda: dist.send(whole, 1, group=group) if lab.rank == 0 else dist.recv(whole, 0, group=group),
    }
    return calls[op]


def together(call: Callable[[], object], group: Any, lab: Lab) -> list[list[float]]:
    """Return, for each sample, the seconds of each rank."""
    import torch.distributed as dist  # noqa: PLC0415

    for _ in range(2):
        once_s = _once(call, group, lab)
    agreed: list[Any] = [min(SAMPLES[1], max(SAMPLES[0], int(ENOUGH_S / max(once_s, 1e-6))))]
    dist.broadcast_object_list(agreed, 0, group=group)
    own = [_once(call, group, lab) for _ in range(agreed[0])]
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, own, group=group)
    return [list(one) for one in zip(*gathered, strict=True)]


def _once(call: Callable[[], object], group: Any, lab: Lab) -> float:
    """Return the seconds of one exchange after the ranks have met; on a device, of several that are queued."""
    import torch.distributed as dist  # noqa: PLC0415

    dist.barrier(group=group)
    if lab.device == "cuda":
        sample = lab.clock.sample(call, 4)
        return float(sample.device_s or sample.wall_s)
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s
