"""Power at rest and under steady loads of one kind each, over windows that the counters can resolve."""

from __future__ import annotations

import time
from typing import Any

from foretrain.validate.measuring import bench_attention, bench_matmul
from foretrain.validate.measuring.bench import Bench, Lab, Machine, math_of
from foretrain.validate.measuring.counters import UnavailableError
from foretrain.validate.meter import LEAST_WINDOW_S, measured, open_meter

WINDOW_S = LEAST_WINDOW_S + 0.1
WARM_S = 0.3
REST_S = 1.0
"""After which a device that worked is at rest."""
CUDA: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("idle", "fp32", ()),
    ("matmul", "bf16", (8192, 8192, 8192)),
    ("memory", "fp32", (2**28,)),
    ("matmul_small", "bf16", (2048, 2048, 512)),
    ("matmul_small", "tf32", (2048, 2048, 512)),
    ("matmul_small", "fp32", (1024, 1024, 1024)),
    ("attention", "bf16", (64, 4096, 128)),
)
CPU: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("idle", "fp32", ()), ("matmul", "fp32", (512, 512, 512)), ("memory", "fp32", (2**24,)),
)  # fmt: skip
"""What runs, its type and its sizes: those of a product, elements of a copy, or heads, tokens and width. Small products stay below the
power limit: a load that is held there tells only what it would draw at least."""


def plan(machine: Machine) -> list[Bench]:
    """Return rest first: every load is read as more than it.

    Rest is that of a device that holds a context, between steps of a job; `sizes` are read by `what`.
    """
    return [_bench(*load) for load in (CUDA if machine.device == "cuda" else CPU)]


def _bench(what: str, dtype: str, sizes: tuple[int, ...]) -> Bench:
    work = _work(what, dtype, sizes)
    shape: dict[str, Any] = {"what": what, **({"sizes": list(sizes)} if sizes else {})}
    flop, moved, held = (work.flop, work.bytes, work.held_bytes) if work else (0.0, 0.0, 0.0)
    return Bench(
        name="power",
        dtype=dtype,
        shape=shape,
        flop=flop,
        bytes=moved,
        held_bytes=held,
        least_s=WINDOW_S + (REST_S if what == "idle" else WARM_S),
    )


def _work(what: str, dtype: str, sizes: tuple[int, ...]) -> Bench | None:
    """Return the bench whose call is the load; None at rest."""
    if what == "idle":
        return None
    if what == "memory":
        return Bench(name="stream", dtype=dtype, shape={"elements": sizes[0]}, bytes=8.0 * sizes[0], held_bytes=12.0 * sizes[0])
    if what == "attention":
        return bench_attention.bench_of(dtype, sizes)
    return bench_matmul.bench_of(dtype, sizes)


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Run the load for the window; the meter counts the whole device, and on a CPU the whole package.

    Raises:
        UnavailableError: where nothing counts, with the reason.
    """
    meter = open_meter(lab.device)
    if meter.reason:
        raise UnavailableError(meter.reason)
    call = _load(bench, lab)
    lab.finish()
    with math_of(bench.dtype, lab.device):
        if bench.shape["what"] == "idle":
            time.sleep(REST_S)
        else:
            measured(meter, call, finish=lab.finish, window_s=WARM_S)
        energy, count = measured(meter, call, finish=lab.finish, window_s=WINDOW_S)
    if energy.watts is None:
        raise UnavailableError(energy.reason)
    each_s = energy.window_s / count
    seconds = {"median": each_s, "q1": each_s, "q3": each_s, "repeats": 1}
    return {"watts": energy.watts, "seconds": seconds, "energy": energy.data(count), "calls": count}


def _load(bench: Bench, lab: Lab) -> Any:
    what, sizes = bench.shape["what"], tuple(bench.shape.get("sizes", ()))
    if what == "idle":
        return lambda: time.sleep(0.05)
    work = _work(what, bench.dtype, sizes)
    assert work is not None
    if what == "memory":
        return lab.tensor(sizes[0], dtype=bench.dtype).clone
    return bench_attention.attention(work, lab) if what == "attention" else bench_matmul.product(work, lab)
