"""How much of its rate computing loses while a collective runs beside it."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from typing import Any

from foretrain.validate.measuring.bench import Bench, Lab, Machine
from foretrain.validate.measuring.bench_collective import together
from foretrain.validate.measuring.timer import Call, events, spread_of

WHATS = ("matmul", "memory")
BYTES = {"cpu": 2**25, "cuda": 2**29}
SIDE = {"cpu": 256, "cuda": 4096}
STREAMED = {"cpu": 2**21, "cuda": 2**26}
SHARE = 0.6
"""Of the collective's time that is filled with computing, so that it ends first."""
REPEATS = 5


def plan(machine: Machine) -> list[Bench]:
    """Return products and copies beside an all-reduce of the whole team."""
    if machine.ranks < 2:
        return []
    size, dtype = BYTES[machine.device], "bf16" if machine.device == "cuda" else "fp32"
    return [
        Bench(name="overlap", dtype=dtype, shape={"what": what, "bytes": size, "ranks": machine.ranks}, held_bytes=3.0 * size, team=True)
        for what in WHATS
    ]


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time computing alone and beside an all-reduce that outlasts it. On a CPU every rank computes both times."""
    import torch.distributed as dist  # noqa: PLC0415 - torch is heavy and optional

    group, whole = lab.group(lab.ranks), lab.tensor(bench.shape["bytes"] // 4)
    compute = _compute(bench, lab)
    alone_s = statistics.median(max(one) for one in together(lambda: dist.all_reduce(whole, group=group), group, lab))
    once_s = lab.time(compute).seconds.median
    calls = max(1, int(SHARE * alone_s / once_s))
    losses, seconds = [], []
    for _ in range(REPEATS):
        dist.barrier(group=group)
        lab.finish()
        free_s = _seconds(compute, calls, lab)
        dist.barrier(group=group)
        lab.finish()
        work = dist.all_reduce(whole, group=group, async_op=True)
        beside_s = _seconds(compute, calls, lab)
        work.wait()
        lab.finish()
        losses.append(1 - free_s / beside_s)
        seconds.append(beside_s)
    spread = spread_of(losses)
    return {"loss": spread.median, "losses": asdict(spread), "seconds": asdict(spread_of(seconds)), "collective_s": alone_s}


def _seconds(compute: Call, calls: int, lab: Lab) -> float:
    """Return the seconds of all calls, without waiting first for what else runs on the device."""
    begin, end = events() if lab.device == "cuda" else (None, None)
    began_s = time.perf_counter()
    if begin is not None:
        begin.record()
    for _ in range(calls):
        compute()
    if end is None or begin is None:
        return time.perf_counter() - began_s
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _compute(bench: Bench, lab: Lab) -> Any:
    import torch  # noqa: PLC0415

    if bench.shape["what"] == "memory":
        values = lab.tensor(STREAMED[lab.device], dtype=bench.dtype)
        return values.clone
    side = SIDE[lab.device]
    left, right = lab.tensor(side, side, dtype=bench.dtype), lab.tensor(side, side, dtype=bench.dtype)
    return lambda: torch.matmul(left, right)
