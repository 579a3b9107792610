"""What was measured on an accelerator, where kernels are near it; without measurements, nothing is corrected."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import fields
from math import exp, log, prod
from typing import Any, Literal, cast

from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.measured import Measured, Row
from foretrain.models.attention import CoreAttention
from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import WIDE, Convolution, FusedAttention, Gemm, Kernel, KernelKind, Layout
from foretrain.sim.nearness import Nearness

NOTHING_MEASURED = Measured()
BYTES = {"fp32": 4.0, "tf32": 4.0}
SIXTEEN_BITS = 2.0
UNLIKE = 256.0
"""Written for a causal mask in a row, 1 for none: eight octaves, so that a call with a mask is never near one without."""
CAUSAL = 2.0
ALIGNED = 8
"""Sides of a product that matrix units take come in multiples of 16 bytes: 8 elements of 16 bits."""

Direction = Literal["forward", "data", "weight"]
Bound = Callable[[Kernel], float]
"""Seconds that the curves give a kernel."""


class Streams:
    """Seconds of elementwise kernels by their bytes: straight lines between what was measured, in logarithms; in proportion beyond."""

    def __init__(self, rows: tuple[Row, ...]) -> None:
        self._sizes, self._times = [log(row[0]) for row in rows], [log(row[1]) for row in rows]

    def seconds(self, moved_bytes: float) -> float:
        """Return the time of one launch that moves so many bytes."""
        size = log(moved_bytes)
        inside = min(max(size, self._sizes[0]), self._sizes[-1])
        after = bisect_left(self._sizes, inside)
        known = self._times[after]
        if after > 0:
            low, high = self._sizes[after - 1], self._sizes[after]
            known += (self._times[after - 1] - known) * (high - inside) / (high - low)
        return exp(known + size - inside)


Tables = dict[tuple[str, str, str], Nearness | None]
_KEPT: dict[tuple[object, ...], tuple[tuple[object, ...], Tables]] = {}
MOST_KEPT = 32
"""Accelerators whose tables are kept priced: a fit asks for the same ones thousands of times."""


def _shared_tables(accelerator: Accelerator, lays: tuple[object, ...]) -> Tables:
    """Return the priced tables of an accelerator's curves, kept while those very curves are in use; `lays` as `Corrections` has it."""
    curves = (accelerator.matmul, accelerator.memory, accelerator.convolution, accelerator.attention)
    parts = (accelerator.peak_flop_per_s, accelerator.measured, *curves)
    key = (*map(id, parts), accelerator.compute_units, accelerator.kernel_floor_s, accelerator.memory_bytes_per_s, *lays)
    if key not in _KEPT:
        if len(_KEPT) >= MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)))
        _KEPT[key] = (parts, {})  # holding the parts keeps their identities from being given to others
    return _KEPT[key][1]


class Corrections:
    """Factors on the times of kernels of one dtype on one accelerator; `bound_s` prices a kernel by the curves.

    `lays` is what else the curves' prices hang on: how a software lays maps and which kernels it calls.
    """

    def __init__(self, accelerator: Accelerator, dtype: str, bound_s: Bound, lays: tuple[object, ...]) -> None:
        self._measured = accelerator.measured or NOTHING_MEASURED
        self._dtype = dtype
        self._bound_s = bound_s
        self._tables = _shared_tables(accelerator, (dtype, *lays))
        self.streams = Streams(self._measured.streams) if self._measured.streams else None

    def slowness(self, classes: tuple[tuple[str, float], ...]) -> float:
        """Return how much longer a kernel takes than an elementwise one for the classes of op that it is made of.

        Per byte, 32 bits are quicker where a class is bound by what it does to each element; a class marked as wide is in 32 bits
        whatever the compute dtype.
        """
        own = "fp32" if self._dtype in BYTES else "bf16"
        return 1.0 + sum(share * (self._slowness(name, own) - 1.0) for name, share in classes)

    def _slowness(self, name: str, own: str) -> float:
        plain = name.removesuffix(WIDE)
        dtype, other = ("fp32", "bf16") if plain != name or own == "fp32" else ("bf16", "fp32")
        known = self._measured.slowness
        return known.get(dtype, {}).get(plain, known.get(other, {}).get(plain, 1.0))

    def factor(self, kernel: Kernel) -> float:
        """Return measured over priced time near the shape of a kernel."""
        if self._measured is NOTHING_MEASURED:
            return 1.0
        dtype = kernel.dtype or self._dtype
        if kernel.gemm is not None and kernel.kind == KernelKind.GEMM:
            return self._near("products", dtype, "", _placed("products", _gemm_row(kernel.gemm)))
        if kernel.convolution is not None:
            return self._near("convolutions", dtype, kernel.convolution.direction, _convolution_row(kernel.convolution))
        if kernel.attention is not None:
            direction = "backward" if kernel.attention.backward else "forward"
            # Fused attention of fp32 data does not use the matrix units, whatever products are allowed.
            return self._near("attention", "fp32" if dtype == "tf32" else dtype, direction, _attention_row(kernel.attention))
        return 1.0

    def _near(self, table: str, dtype: str, direction: str, shape: Row) -> float:
        key = (table, dtype, direction)
        if key not in self._tables:
            rows = getattr(self._measured, table).get(dtype, ())
            rows = rows.get(direction, ()) if direction and rows else rows
            rows = tuple((*_placed(table, row[:-1]), row[-1]) for row in rows)
            make = {"products": _product, "convolutions": convolution_kernel, "attention": attention_kernel}[table]
            self._tables[key] = Nearness(rows, lambda row: self._bound_s(make(row, dtype, direction))) if rows else None
        nearness = self._tables[key]
        return 1.0 if nearness is None else nearness.factor(shape)


def _placed(table: str, shape: Row) -> Row:
    """Return a shape as it is compared with others: products whose sides the matrix units take are never near those with odd ones."""
    if table != "products":
        return shape
    return (*shape, 1.0 if all(size % ALIGNED == 0 for size in shape[1:4]) else UNLIKE)


def product_kernel(row: Row, dtype: str) -> Kernel:
    """Return the kernel of a row of products."""
    batch, m, n, k = (int(size) for size in row[:4])
    return gemm_kernel("measured", Gemm(batch=batch, m=m, n=n, k=k), BYTES.get(dtype, SIXTEEN_BITS))


def convolution_row(shape: Mapping[str, Any]) -> Row:
    """Return the row of a convolution's shape, as `Convolution` names its sizes, without seconds."""
    pixels = (float(prod(shape["in_size"])), float(prod(shape["out_size"])))
    counts = tuple(float(shape[name]) for name in ("samples", "in_channels", "out_channels", "groups"))
    return (*counts, *pixels, float(prod(shape["kernel"])), float(max(shape["stride"])))


def convolution_kernel(row: Row, dtype: str, direction: str) -> Kernel:
    """Return the kernel of a row of convolutions."""
    samples, ins, outs, groups, pixels_in, pixels_out, taps, stride = (int(size) for size in row[:8])
    sides = (pixels_in, pixels_out, taps)
    square = all(round(size**0.5) ** 2 == size for size in sides)
    in_size, out_size, kernel = ((round(size**0.5),) * 2 if square else (size,) for size in sides)
    call = Convolution(
        direction=cast(Direction, direction), samples=samples, in_channels=ins, out_channels=outs, groups=groups, in_size=in_size,
        out_size=out_size, kernel=kernel, stride=(stride,) * len(in_size),
    )  # fmt: skip
    moved = (call.maps + call.filters) * BYTES.get(dtype, SIXTEEN_BITS)
    return Kernel(
        name="measured", kind=KernelKind.CONVOLUTION, flop=call.flop, model_flop=call.flop, moved_bytes=moved, convolution=call,
    )  # fmt: skip


def attention_row(heads: int, queries: int, keys: int, head_dim: int, *, causal: bool) -> Row:
    """Return the row of an attention's shape, without seconds."""
    return (float(heads), float(queries), float(keys), float(head_dim), UNLIKE if causal else 1.0)


def attention_kernel(row: Row, dtype: str, direction: str) -> Kernel:
    """Return the kernel of a row of attention."""
    heads, queries, _keys, head_dim = (int(size) for size in row[:4])
    causal = row[4] > CAUSAL
    op = CoreAttention(name="measured", tokens=queries, heads=heads, kv_heads=heads, head_dim=head_dim, causal=causal, dropout=False)
    layout = Layout(micro_batch=1, element_bytes=BYTES.get(dtype, SIXTEEN_BITS), flash=True)
    kernels = op.backward(layout) if direction == "backward" else op.forward(layout)
    return next(kernel for kernel in kernels if kernel.attention is not None)


def _product(row: Row, dtype: str, _direction: str) -> Kernel:
    return product_kernel(row, dtype)


def _gemm_row(gemm: Gemm) -> Row:
    return (float(gemm.batch), float(gemm.m), float(gemm.n), float(gemm.k))


def _convolution_row(call: Convolution) -> Row:
    return convolution_row({field.name: getattr(call, field.name) for field in fields(call)})


def _attention_row(call: FusedAttention) -> Row:
    return attention_row(call.heads, call.queries, call.keys, call.head_dim, causal=call.causal)
