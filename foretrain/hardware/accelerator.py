"""What one accelerator can do, as the framework sees it: math, memory, attention kernels, power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foretrain.errors import ProfileError
from foretrain.hardware.measured import Measured
from foretrain.units import show


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

    def __post_init__(self) -> None:
        """Refuse tiles without their efficiency."""
        if len(self.tiles) != len(self.tile_efficiency):
            raise ProfileError(f"{len(self.tile_efficiency)} values of tile_efficiency for {len(self.tiles)} tiles; give one per tile")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionRates:
    """Rates of the passes of a convolution relative to products of the same shape: result, gradient of data, of weights.

    `strided_data` scales the gradient of data where the convolution strides; `depth_fill` is that of `MatmulCurve`, shorter where several
    small tiles on a unit hide each other's.
    """

    forward: float
    data: float
    weight: float
    strided_data: float
    depth_fill: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionCurve:
    """How an accelerator runs convolutions: as products on `matrix` units where it has them, in fp32 and else on `vector` units.

    Vector units run 3×3 and 5×5 convolutions of stride 1 `winograd` times as fast. Matrix units take channels in multiples of
    `channel_multiple`, and keep the share `few_channels` of their rate where there are fewer.
    Depthwise convolutions, and small groups where that is quicker, run without products at the share `direct` of the vector peak.
    """

    matrix: ConvolutionRates | None
    vector: ConvolutionRates
    winograd: float
    channel_multiple: int
    few_channels: float
    direct: float


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
class ClockCurve:
    """What the clock of the compute units does to voltage and speed; memory and links have clocks of their own.

    The voltage is flat up to `knee_hz` and rises in a straight line to `highest_voltage` times that at `highest_hz`. All other
    figures of the accelerator (sustained rates, energies) hold at `reference_hz`, the clock that `limit_w` leaves under full load.
    """

    lowest_hz: float
    highest_hz: float
    reference_hz: float
    knee_hz: float
    highest_voltage: float
    math_share: float
    """Share of the time of matrix math that goes with the clock; the rest waits for memory, whose clock stays."""
    memory_share: float
    """Share of the time of memory-bound work that goes with the clock: caches and the network on the chip."""
    window_s: float
    """Time over which the controller of a power cap averages."""

    def __post_init__(self) -> None:
        """Refuse clocks that are out of order."""
        if not 0.0 < self.lowest_hz <= self.knee_hz <= self.highest_hz or not self.lowest_hz <= self.reference_hz <= self.highest_hz:
            raise ProfileError("clocks are out of order; give lowest <= knee <= highest, with the reference between lowest and highest")


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorPower:
    """Electrical figures of one accelerator. Dynamic energy is what work adds to `idle_w`.

    `cap_w` and `clock_hz` are settings: a power cap below `limit_w`, a fixed clock (None: neither).
    """

    idle_w: float
    limit_w: float
    math_j_per_flop: Mapping[str, float]
    memory_j_per_byte: float
    link_j_per_byte: float
    busy_w: float
    """Added while any kernel runs: clock tree, schedulers, instruction issue, caches."""

    rest_w: float = 0.0
    """Drawn where no program holds it, so that clocks and memory rest (0: as much as `idle_w`, which is drawn while a program waits)."""
    operand_j_per_byte: float = 0.0
    """What bringing operands of products through the caches to the units takes; small tiles bring them more often."""

    padding_share: float = 1.0
    """Of the energy of a FLOP, what one costs that only pads a tile: its operands are zeros, and little but control switches."""
    clocks: ClockCurve | None = None
    cap_w: float | None = None
    clock_hz: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that the accelerator cannot have."""
        if self.idle_w >= self.limit_w:
            raise ProfileError(f"idle of {self.idle_w:g} W is not below the limit of {self.limit_w:g} W; correct one of them")
        if (self.cap_w is not None or self.clock_hz is not None) and self.clocks is None:
            raise ProfileError("power cap and clock need the clocks of the accelerator, which its profile lacks; add power.clocks to it")
        if self.cap_w is not None and not self.idle_w < self.cap_w <= self.limit_w:
            limits = f"above {self.idle_w:g} W (idle) to {self.limit_w:g} W (limit)"
            raise ProfileError(f"power cap of {self.cap_w:g} W is out of range; give {limits}, such as {0.75 * self.limit_w:.0f}W")
        if self.clocks is not None and self.clock_hz is not None:
            _clock_in_range(self.clocks, self.clock_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One accelerator, in SI units. `peak_flop_per_s` is dense, per dtype: fp32, tf32, fp16, bf16, fp8, mxfp8, nvfp4."""

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
    convolution: ConvolutionCurve | None = None
    """None: convolutions run as the products that they are."""
    measured: Measured | None = None
    """Kernels that were measured, which stand for the curves near them."""
    assumed: tuple[str, ...] = ()
    """Fields of the profile whose source is memory or an estimate, for the 'assumed' line of a prediction."""


def _clock_in_range(clocks: ClockCurve, hz: float) -> None:
    if not clocks.lowest_hz <= hz <= clocks.highest_hz:
        limits = f"{_said(clocks.lowest_hz)} to {_said(clocks.highest_hz)}"
        raise ProfileError(f"clock of {_said(hz)} is out of range; give {limits}, such as {_said(clocks.reference_hz)}")


def _said(hz: float) -> str:
    return show(hz, "Hz", 4)
