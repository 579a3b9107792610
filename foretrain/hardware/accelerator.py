"""What one accelerator can do, as the framework sees it: math, memory, attention kernels, power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MatmulCurve:
    """How close to its dense peak an accelerator runs a matrix product.

    A product is cut into output tiles of `tiles` (rows, columns), dealt to `compute_units` in waves; each tile costs as if its
    depth were `depth_fill` longer (pipeline fill and epilogue). `sustained` is the fraction of peak that the largest tile holds
    at great depth under the clock that the power limit leaves; `tile_efficiency` scales it per tile. `wave_smoothing` is 0 where
    a partial last wave costs a whole one and 1 where it costs only its share (stream-K, split-K).
    """

    sustained: Mapping[str, float]
    tiles: tuple[tuple[int, int], ...]
    tile_efficiency: tuple[float, ...]
    depth_fill: float
    wave_smoothing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCurve:
    """Fraction of dense peak that a fused attention kernel reaches on full-length rows, forward and backward.

    At `length` keys a kernel reaches `forward * length / (length + half_length)` of the peak of the dtype it runs in, for heads of
    128; heads of 64 reach `narrow_head` of that (interpolated in log2 of the head dimension).
    """

    forward: float
    backward: float
    half_length: float
    narrow_head: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCurve:
    """Sustained memory bandwidth: `efficiency * bytes / (bytes + half_bytes)` of the data sheet's."""

    efficiency: float
    half_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorPower:
    """Electrical figures of one accelerator. Dynamic energy is what work adds to `idle_w`."""

    idle_w: float
    limit_w: float
    math_j_per_flop: Mapping[str, float]
    memory_j_per_byte: float
    link_j_per_byte: float
    busy_w: float
    """Added while any kernel runs: clock tree, schedulers, instruction issue, caches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One accelerator, in SI units. `peak_flop_per_s` is dense, per dtype: fp32, tf32, fp16, bf16, fp8."""

    name: str
    key: str
    peak_flop_per_s: Mapping[str, float]
    memory_bytes: float
    memory_bytes_per_s: float
    cache_bytes: float
    compute_units: int
    matmul: MatmulCurve
    memory: MemoryCurve
    attention: Mapping[str, AttentionCurve]
    kernel_floor_s: float
    """The least time that any kernel occupies the device."""
    overlap_loss: float
    """Fraction of its rate that compute loses while a collective runs beside it."""
    spread: float
    """Standard deviation of the speed of devices of this kind, relative: a synchronous step waits for the slowest of them."""
    host_bytes_per_s: float
    power: AcceleratorPower
    assumed: tuple[str, ...] = ()
    """Fields of the profile whose source is memory or an estimate, for the 'assumed' line of a prediction."""
