"""Memory-bound ops by size: from what fits a cache to what does not."""

from __future__ import annotations

from typing import Any

from foretrain.validate.measuring.bench import SIZES, Bench, Lab, Machine, merged, scattered
from foretrain.validate.measuring.stream_ops import OPS

KEY_OPS = ("add", "gelu", "layer_norm", "copy")
"""Ops that are measured at every size."""
LARGE = {"cpu": 2**25, "cuda": 2**27}
MIDDLE, SMALL = 2**22, 2**17
"""Bytes of one tensor: past what an allocator keeps or a GPU caches, within the last cache, within the second."""
EVERY = tuple(2**power for power in range(14, 29, 2))
LARGEST = {"cpu": 2**26, "cuda": 2**28}
"""Of the ops but copies and sums: a pass of a core over more takes longer than a bench may."""


def plan(machine: Machine) -> list[Bench]:
    """Return every op at a size past the caches, then at others, then in other types."""
    dtype = "bf16" if machine.device == "cuda" else "fp32"
    busy = 0 if machine.device == "cuda" else 1
    large, largest = LARGE[machine.device], LARGEST[machine.device]
    first = [_bench(op, large, dtype, busy=busy) for op in OPS]
    curve = [_bench(op, size, dtype, busy=busy) for op in KEY_OPS for size in scattered(EVERY) if size <= largest or op in {"add", "copy"}]
    rest = [_bench(op, size, dtype, busy=busy) for size in (MIDDLE, SMALL) for op in OPS]
    both = [_bench(op, size, dtype, busy=machine.ranks) for size in (large, SMALL) for op in KEY_OPS] if busy and machine.ranks > 1 else []
    other = [_bench(op, size, "fp32" if dtype == "bf16" else "bf16", busy=busy) for size in (large, MIDDLE) for op in OPS if op != "cast"]
    if machine.device == "cpu":
        other = [one for one in other if one.shape["op"] in KEY_OPS]
    return merged(first, curve, rest, both, other)


def _bench(op: str, size_bytes: int, dtype: str, *, busy: int) -> Bench:
    known = OPS[op]
    elements = max(1, size_bytes // SIZES[dtype] // known.unit) * known.unit
    whole = float(elements * SIZES[dtype])
    shape = {"op": op, "elements": elements, "launches": known.launches, **({"busy_ranks": busy} if busy else {})}
    return Bench(name="stream", dtype=dtype, shape=shape, bytes=known.passes * whole, held_bytes=6 * whole, team=busy > 1)


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time the op."""
    import torch  # noqa: PLC0415 - torch is heavy and optional

    call = OPS[bench.shape["op"]].make(torch, lab, bench.shape["elements"], bench.dtype)
    return lab.time(call).data()
