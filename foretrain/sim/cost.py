"""Where a kernel meets an accelerator: seconds of math, memory and overhead, and the joules it adds."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from math import ceil, log, log2, prod, sqrt

from foretrain.errors import ModelError
from foretrain.hardware.accelerator import Accelerator
from foretrain.models.ops import Convolution, FusedAttention, Gemm, Kernel, KernelKind
from foretrain.sim.clock import Point
from foretrain.sim.convolution import convolver
from foretrain.sim.corrections import Corrections
from foretrain.sim.issued import fused_j_per_flop, product_j_per_flop, scores_flop
from foretrain.sim.optimizer_rules import OPTIMIZER
from foretrain.software.profile import Software

REORDERS = 2
"""Transposes around a convolution, one for each tensor of maps."""
REORDER_CALLS = 0.5
"""Of a launch, what the host pays for a transpose that the library of convolutions issues itself; a convolution with two costs it
51 us on an H100's host where a product costs 17 to 25 us (tests/validate/data/recorded)."""
PART_DEPTH = 256
"""Depth of a product that is worth a unit of its own where tiles are few."""
PARTIAL_BYTES = 4.0
"""Partial sums are fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one kernel costs at full rate. `device_s = math_s + memory_s + overhead_s`; joules are what it adds to idle."""

    math_s: float
    memory_s: float
    overhead_s: float
    host_s: float
    math_j: float
    memory_j: float
    busy_j: float
    flop: float

    @property
    def device_s(self) -> float:
        """Time on the device."""
        return self.math_s + self.memory_s + self.overhead_s


def attention_kernel(software: Software, accelerator: Accelerator) -> str:
    """Return the attention kernel that a software calls on an accelerator: the longest key prefix that matches, else default."""
    matching = [key for key in software.attention if accelerator.key.startswith(key)]
    kernel = software.attention[max(matching, key=len)] if matching else software.attention["default"]
    return kernel if kernel == "unfused" or kernel in accelerator.attention else "unfused"


def slowest_of(spread: float, ranks: int) -> float:
    """Return how much longer the slowest of `ranks` devices takes than the mean: 1 + spread * sqrt(2 ln ranks).

    **Source:** the maximum of n normal variables grows as sqrt(2 ln n) (Leadbetter, Lindgren, Rootzen, Extremes and Related
    Properties of Random Sequences and Processes, 1983, theorem 1.5.3).
    """
    return 1.0 + spread * sqrt(2.0 * log(ranks))


class Pricer:
    """Prices kernels of one software on one accelerator in one precision, each shape once.

    A synchronous step of `ranks` devices goes at the pace of the slowest of them.
    """

    def __init__(self, accelerator: Accelerator, software: Software, dtype: str, ranks: int = 1) -> None:
        self.accelerator = accelerator
        self.software = software
        self.dtype = dtype
        self.attention = attention_kernel(software, accelerator)
        self._peak = accelerator.peak_flop_per_s[dtype]
        # Kernels of fused attention multiply fp32 data on vector units; tf32 is a mode of products.
        peaks = accelerator.peak_flop_per_s
        self._fused_peak = peaks.get("fp32", self._peak) if dtype == "tf32" else self._peak
        self._memory_bytes_per_s = accelerator.memory_bytes_per_s * accelerator.memory.efficiency
        self.slowest = slowest_of(accelerator.spread, ranks)
        self.point = Point(hz=0.0)
        self._known: dict[tuple[Gemm, float, bool, str], tuple[float, int]] = {}
        self._convolver = convolver(accelerator, software, dtype, self._implicit_s)
        lays = (software.channels_last, software.winograd, self.attention)
        self._near = Corrections(accelerator, dtype, self._plain().curve_s, lays)

    def at(self, point: Point) -> Pricer:
        """Return the same pricer at another operating point."""
        other = copy(self)
        other.point = point
        return other

    def slowed(self, factor: float) -> Pricer:
        """Return the same pricer on a device whose kernels take `factor` times as long."""
        if factor == 1.0:
            return self
        other = copy(self)
        other.slowest = self.slowest * factor
        return other

    def work(self, kernel: Kernel) -> Work:
        """Return what `kernel` costs on an idle device at the operating point."""
        point = self.point
        measured = self._near.factor(kernel)
        slowest = self.slowest * measured
        math_s = self._math_s(kernel) * slowest * point.math_time
        memory_s = self.moving_s(kernel) * slowest * point.memory_time
        floor = self.accelerator.kernel_floor_s * kernel.launches / point.duty
        bound = max(math_s, memory_s) / point.duty
        reordered_bytes, reorders = self._reordered(kernel)
        reorder_s = self.stream_s(reordered_bytes, reorders) * slowest * point.memory_time / point.duty
        host, launches = self.software.host, kernel.launches + reorders
        overhead_s = max(0.0, floor - bound) + host.launch_gap_s * launches
        by_math = math_s >= memory_s
        awake_s = reorder_s + bound * self._filled(kernel, by_math=by_math)
        power = self.accelerator.power
        return Work(
            math_s=bound if by_math else 0.0,
            memory_s=reorder_s + (0.0 if by_math else bound),
            overhead_s=overhead_s,
            host_s=self._issue_s(kernel) * ((kernel.calls or kernel.launches) + REORDER_CALLS * reorders) + host.view_s * kernel.views,
            math_j=self._math_j(kernel, measured) * point.math_energy,
            memory_j=(self._memory_bytes(kernel) + reordered_bytes) * power.memory_j_per_byte,
            busy_j=power.busy_w * point.busy_power * point.duty * awake_s,
            flop=kernel.flop,
        )

    def _issue_s(self, kernel: Kernel) -> float:
        """Return the host's time for a launch of a kernel: those of an optimizer that loops over tensors join no graph."""
        host = self.software.host
        return host.tensor_s or host.launch_s if kernel.classes == OPTIMIZER and self.software.loops_over_tensors else host.launch_s

    def _plain(self) -> Pricer:
        """Return the pricer of the curves that measured kernels correct: of a software without a pace of its own, which stays on top."""
        if self.accelerator.measured is None or self.software.matmul_scale == self.software.stream_scale == 1.0:
            return self
        return Pricer(self.accelerator, replace(self.software, matmul_scale=1.0, stream_scale=1.0), self.dtype)

    def launches(self, kernel: Kernel) -> int:
        """Return how many kernels run for one, with the transposes around it."""
        return kernel.launches + self._reordered(kernel)[1]

    def curve_s(self, kernel: Kernel) -> float:
        """Return what the curves alone give a kernel as it is measured: at the reference clock, with the transposes around it."""
        bound = max(self._math_s(kernel), self.moving_s(kernel), self.accelerator.kernel_floor_s * kernel.launches)
        return bound + self.stream_s(*self._reordered(kernel))

    def _math_j(self, kernel: Kernel, measured: float) -> float:
        """Return the joules of the math of a kernel at the reference clock, on the units that it runs on.

        An algorithm that saves multiplications and was `measured` to take longer than they take saved fewer, at most none.
        """
        per_flop, dtype = self.accelerator.power.math_j_per_flop, kernel.dtype or self.dtype
        each_j = per_flop.get(dtype, 0.0)
        vector_j = per_flop.get("fp32", each_j)
        if kernel.attention is not None:
            return kernel.flop * fused_j_per_flop(per_flop, dtype) + scores_flop(kernel.attention, kernel.flop) * vector_j
        if kernel.convolution is not None and self._convolver is not None:
            run = self._convolver.product_of(kernel.convolution)
            if run is None:
                return kernel.flop * vector_j
            share = max(run.share, min(1.0, run.share * measured))
            return kernel.flop * share * self._product_j(run.gemm, run.fill, self.dtype, splits=True)
        gemm = kernel.gemm if kernel.convolution is None else kernel.convolution.gemm
        if gemm is None:
            return kernel.flop * each_j
        return kernel.flop * self._product_j(gemm, self.accelerator.matmul.depth_fill, dtype, splits=dtype == "fp32")

    def _product_j(self, gemm: Gemm, fill: float, dtype: str, *, splits: bool) -> float:
        """Return the joules per useful FLOP of a product with its best tile."""
        _, tile = self._best(gemm, fill, dtype, splits=splits)
        return product_j_per_flop(self.accelerator, gemm, tile, dtype)

    def _memory_bytes(self, kernel: Kernel) -> float:
        """Return the bytes that come from memory: a software whose streams outrun the memory has left the rest of them out, by fusion."""
        if kernel.kind != KernelKind.STREAM or kernel.scattered:
            return kernel.moved_bytes
        return kernel.moved_bytes / max(1.0, self.software.stream_scale)

    def _filled(self, kernel: Kernel, *, by_math: bool) -> float:
        """Return the share of the compute units that a kernel keeps awake: units without a tile, and gaps between kernels, are gated.

        A product fills as many units as it has tiles of the smallest kind and parts of its depth; a memory-bound kernel all but its ramp.
        """
        if not by_math:
            ramp = self.accelerator.memory.half_bytes * kernel.launches
            return kernel.moved_bytes / (kernel.moved_bytes + ramp) if kernel.moved_bytes else 0.0
        gemm = kernel.gemm if kernel.convolution is None else kernel.convolution.gemm
        if gemm is None:
            return 1.0
        rows, columns = min(self.accelerator.matmul.tiles, key=prod)
        blocks = gemm.batch * ceil(gemm.m / rows) * ceil(gemm.n / columns) * max(1, gemm.k // PART_DEPTH)
        return min(1.0, blocks / self.accelerator.compute_units)

    def moving_s(self, kernel: Kernel) -> float:
        """Return the time that memory takes for a kernel, at the pace of its class where that was measured."""
        plain = self.stream_s(kernel.moved_bytes, kernel.launches, scattered=kernel.scattered)
        return plain * self._near.slowness(kernel.classes) if kernel.classes else plain

    def stream_s(self, moved_bytes: float, launches: int = 1, *, scattered: bool = False) -> float:
        """Return the time of memory-bound kernels: bytes over sustained bandwidth, with a ramp for small ones.

        A software streams faster than that where it fuses kernels, so that fewer bytes move; it cannot do so with `scattered` rows.

        **Source:** Hockney's n-half law, Parallel Computing 17 (1991): rate = r_inf * n / (n + n_half).
        """
        if moved_bytes <= 0.0:
            return 0.0
        scale = min(1.0, self.software.stream_scale) if scattered else self.software.stream_scale
        if self._near.streams is not None:
            return self._near.streams.seconds(moved_bytes / launches) * launches / scale
        ramp = self.accelerator.memory.half_bytes * launches
        return (moved_bytes + ramp) / (self._memory_bytes_per_s * scale)

    def gemm_s(self, gemm: Gemm, dtype: str | None = None) -> float:
        """Return the math time of a matrix product, by waves of output tiles over the compute units, best tile taken.

        In fp32, units that the tiles would leave idle share a tile; cuBLAS does not split the depth of products on matrix units.

        **Source:** NVIDIA, Matrix Multiplication Background User's Guide, sections 3 and 4 (tile and wave quantization).
        """
        dtype = dtype or self.dtype
        return self._best_s(gemm, self.accelerator.matmul.depth_fill, dtype, splits=dtype == "fp32")

    def _implicit_s(self, gemm: Gemm, fill: float) -> float:
        """Return the math time of the product of a convolution, whose kernels have a fill of their own and split the depth."""
        return self._best_s(gemm, fill, self.dtype, splits=True)

    def _best_s(self, gemm: Gemm, fill: float, dtype: str, *, splits: bool) -> float:
        return self._best(gemm, fill, dtype, splits=splits)[0]

    def _best(self, gemm: Gemm, fill: float, dtype: str, *, splits: bool) -> tuple[float, int]:
        """Return the time with the best tile, and which it is.

        Where the tiles leave most units idle and the depth `splits`, each of several units sums a part of it, and the parts are added up.

        **Source:** NVIDIA, CUTLASS, efficient GEMM, "Parallelized Reductions" (split-K).
        """
        key = (gemm, fill, splits, dtype)
        known = self._known.get(key)
        if known is None:
            tiles = range(len(self.accelerator.matmul.tiles))
            known = self._known[key] = min((self._tiled_s(gemm, index, fill, dtype, splits=splits), index) for index in tiles)
        return known

    def _tiled_s(self, gemm: Gemm, index: int, fill: float, dtype: str, *, splits: bool) -> float:
        rows, columns = self.accelerator.matmul.tiles[index]
        tiles = gemm.batch * ceil(gemm.m / rows) * ceil(gemm.n / columns)
        best, parts = self._waves_s(gemm.k, index, tiles, fill, dtype), 2
        while splits and tiles * parts <= self.accelerator.compute_units:
            added = self.stream_s(2.0 * parts * gemm.batch * gemm.m * gemm.n * PARTIAL_BYTES)
            best, parts = min(best, self._waves_s(gemm.k / parts, index, tiles * parts, fill, dtype) + added), 2 * parts
        return best

    def _waves_s(self, depth: float, index: int, tiles: int, fill: float, dtype: str) -> float:
        curve, units = self.accelerator.matmul, self.accelerator.compute_units
        rows, columns = curve.tiles[index]
        waves = tiles / units
        played = (1 - curve.wave_smoothing) * ceil(waves) + curve.wave_smoothing * max(1.0, waves)
        tile_flop = 2.0 * rows * columns * (depth + fill)
        peak, sustained = self.accelerator.peak_flop_per_s[dtype], curve.sustained.get(dtype, min(curve.sustained.values()))
        rate = peak / units * sustained * curve.tile_efficiency[index]
        return played * tile_flop / (rate * self.software.matmul_scale)

    def attention_s(self, call: FusedAttention, flop: float) -> float:
        """Return the math time of a fused attention kernel from its measured fraction of peak.

        **Source:** Dao, FlashAttention-2, arXiv:2307.08691, section 4.1 (rates against length, head dimension and direction).
        """
        curve = self.accelerator.attention[self.attention]
        top = curve.backward if call.backward else curve.forward
        narrow = min(1.0, max(0.0, log2(128 / call.head_dim))) if call.head_dim < 128 else 0.0
        efficiency = top * (1 - narrow * (1 - curve.narrow_head)) * call.keys / (call.keys + curve.half_length)
        return flop / (self._fused_peak * efficiency)

    def _convolution_s(self, call: Convolution) -> float:
        return self.gemm_s(call.gemm) if self._convolver is None else self._convolver.math_s(call)

    def _reordered(self, kernel: Kernel) -> tuple[float, int]:
        """Return the bytes and launches of the transposes around a kernel."""
        if kernel.convolution is None or self._convolver is None:
            return 0.0, 0
        moved = self._convolver.reordered_bytes(kernel)
        return moved, REORDERS if moved else 0

    def _math_s(self, kernel: Kernel) -> float:
        if kernel.kind == KernelKind.STREAM:
            return 0.0
        if kernel.gemm is not None:
            return self.gemm_s(kernel.gemm, kernel.dtype) * kernel.launches
        if kernel.convolution is not None:
            return self._convolution_s(kernel.convolution) * kernel.launches
        if kernel.attention is not None:
            return self.attention_s(kernel.attention, kernel.flop)
        raise ModelError(f"kernel {kernel.name!r} does math but names neither a product nor an attention shape; give its op one of them")
