"""Matrix products: squares, the layers of transformers and perceptrons, and what backward makes of them, over types.

`layout` says how the operands lie in memory: `nt` is a layer's forward product, x·Wᵀ (torch.nn.functional.linear); `nn` its gradient of
the data, dy·W; `tn` its gradient of the weights, dyᵀ·x. (m, n) is the result and k the inner dimension in all three.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Any

from foretrain.validate.measuring.bench import SIZES, Bench, Lab, Machine, math_of, merged, scattered

Shape = tuple[int, int, int]
MOST_CPU_FLOP = 3e9
"""What one core does in a tenth of a second or so."""
MOST_FP32_FLOP = 2e12
"""Likewise of a GPU without its tensor cores."""
BUSY = {"cpu": 1, "cuda": 0}
"""Ranks that run the same at once, which only a CPU's records say."""
ODD = {
    "cuda": (
        (1000, 1000, 1000), (8192, 50257, 768), (4095, 4095, 4095), (16, 8192, 8192), (128, 128, 65536), (8192, 16, 8192), (8192, 8192, 1),
    ),
    "cpu": ((500, 500, 500), (8, 1024, 1024), (1, 1024, 1024), (64, 1024, 64), (1024, 16, 1024), (511, 1023, 63)),
}  # fmt: skip
"""m, n and k that tiles do not divide, or that are far from square."""
BATCHES = {
    "cuda": ((96, 2048, 2048, 64), (96, 2048, 64, 2048), (64, 1024, 1024, 128), (512, 128, 128, 64), (8, 4096, 1024, 4096)),
    "cpu": ((16, 128, 128, 64), (16, 128, 64, 128), (64, 64, 64, 32)),
}
"""Products at once, and m, n and k of each: scores and values of attention."""


COLD_BYTES = 24e6
"""Operands and results that are gone through in turn: several times the private caches of a core."""
MOST_COPIES = 64


def plan(machine: Machine) -> list[Bench]:
    """Return coarse products of every type first, then layers and batches."""
    return _cuda() if machine.device == "cuda" else _cpu(machine)


def _cuda() -> list[Bench]:
    squares = [(side, side, side) for side in (4096, 1024, 8192, 512, 2048, 256, 128, 6144, 3072, 16384)]
    layers = _layers((512, 768, 1024, 2048, 4096, 8192), (1024, 4096, 8192, 32768))
    core = [_bench("bf16", shape, "nt") for shape in squares]
    types = [_bench(dtype, shape, "nt") for shape in squares[:6] for dtype in ("fp16", "tf32", "fp32")]
    wide = [_bench("bf16", (m, n, k), layout) for m, n, k, layout in layers]
    other = [_bench(dtype, (m, n, k), layout) for m, n, k, layout in layers[:24] for dtype in ("tf32", "fp32")]
    other += [_bench("fp16", (m, n, k), layout) for m, n, k, layout in layers[:6]]
    found = merged(core, types, wide, merged(_odd("cuda", "bf16"), _batched("cuda", ("bf16", "tf32", "fp16"))), other)
    return [one for one in found if one.flop <= MOST_FP32_FLOP or one.dtype != "fp32"]


def _cpu(machine: Machine) -> list[Bench]:
    squares = [(side, side, side) for side in (512, 128, 1024, 256, 64)]
    core = [_bench("fp32", shape, "nt", busy=1) for shape in squares]
    both = [_bench("fp32", shape, "nt", busy=machine.ranks) for shape in squares[:3]] if machine.ranks > 1 else []
    wide = [_bench("fp32", (m, n, k), layout, busy=1) for m, n, k, layout in _layers((64, 128, 256, 512, 1024), (16, 64, 256, 1024))]
    half = [_bench("bf16", shape, "nt", busy=1) for shape in squares]
    found = merged(core, both, wide, merged(_odd("cpu", "fp32"), _batched("cpu", ("fp32",))), half)
    return [one for one in found if one.flop <= MOST_CPU_FLOP]


def _odd(device: str, dtype: str) -> list[Bench]:
    return [_bench(dtype, shape, "nt", busy=BUSY[device]) for shape in ODD[device]]


def _batched(device: str, dtypes: Iterable[str]) -> list[Bench]:
    return [
        _bench(dtype, shape, layout, batch, busy=BUSY[device])
        for dtype in dtypes
        for batch, *shape in BATCHES[device]
        for layout in ("nt", "nn")
    ]


def _layers(widths: Iterable[int], tokens: Iterable[int]) -> list[tuple[int, int, int, str]]:
    """Return the products of layers of every width over every number of tokens, spread."""
    return scattered([one for width in widths for count in tokens for one in _layer(count, width)])


def _layer(tokens: int, hidden: int) -> list[tuple[int, int, int, str]]:
    """Return the products of a transformer layer and of its gradients: attention's two, the perceptron's two."""
    found: list[tuple[int, int, int, str]] = []
    for outs, ins in ((3 * hidden, hidden), (hidden, hidden), (4 * hidden, hidden), (hidden, 4 * hidden)):
        found += [(tokens, outs, ins, "nt"), (tokens, ins, outs, "nn"), (outs, ins, tokens, "tn")]
    return found


def bench_of(dtype: str, sizes: Iterable[int]) -> Bench:
    """Return the bench of a layer's product of m, n and k."""
    return _bench(dtype, sizes, "nt")


def _bench(dtype: str, shape: Iterable[int], layout: str, batch: int = 1, *, busy: int = 0) -> Bench:
    m, n, k = shape
    size = _touched(dtype, batch, m, n, k)
    named: dict[str, Any] = {"batch": batch, "m": m, "n": n, "k": k, "layout": layout, **({"busy_ranks": busy} if busy else {})}
    return Bench(name="matmul", dtype=dtype, shape=named, flop=2.0 * batch * m * n * k, bytes=size, held_bytes=size, team=busy > 1)


def _touched(dtype: str, batch: int, m: int, n: int, k: int) -> int:
    """Return the bytes of both operands and the result."""
    return SIZES[dtype] * batch * (m * k + k * n + m * n)


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time the product. It allocates its result, as in training; on a processor it finds its operands in no cache but the last.

    A layer's weights and inputs were last touched many layers ago. A GPU's cache holds little of either, warm or not.
    """
    touched = _touched(bench.dtype, *(bench.shape[name] for name in ("batch", "m", "n", "k")))
    copies = min(MOST_COPIES, max(1, round(COLD_BYTES / touched))) if lab.device == "cpu" else 1
    with math_of(bench.dtype, lab.device):
        calls = cycle([product(bench, lab) for _ in range(copies)])

        def one() -> Any:
            return next(calls)()

        return lab.time(one).data()


def product(bench: Bench, lab: Lab) -> Any:
    """Return the call that makes the product."""
    import torch  # noqa: PLC0415 - torch is heavy and optional
    from torch.nn import functional  # noqa: PLC0415

    batch, m, n, k, layout = (bench.shape[name] for name in ("batch", "m", "n", "k", "layout"))
    outer = () if batch == 1 else (batch,)
    left = lab.tensor(*outer, *((k, m) if layout == "tn" else (m, k)), dtype=bench.dtype)
    right = lab.tensor(*outer, *((n, k) if layout == "nt" else (k, n)), dtype=bench.dtype)
    if layout == "nt" and batch == 1:
        return lambda: functional.linear(left, right)
    if layout == "nt":
        return lambda: torch.matmul(left, right.transpose(-1, -2))
    if layout == "tn":
        return lambda: torch.matmul(left.transpose(-1, -2), right)
    return lambda: torch.matmul(left, right)
