"""Kernels on an accelerator, by hand: tiles and waves, the memory ramp, fused attention, floors, gaps and the slowest device."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import ModelError
from foretrain.hardware.accelerator import Accelerator, AttentionCurve, MatmulCurve, MemoryCurve
from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import FusedAttention, Gemm, Kernel, KernelKind
from foretrain.models.stream import stream_kernel
from foretrain.sim.cost import Pricer, attention_kernel, slowest_of
from tests.sim import hand

quick = settings(deadline=None, derandomize=True, max_examples=100)
TILED = hand.accelerator(
    compute_units=10,
    matmul=MatmulCurve(
        sustained={"bf16": 0.5}, tiles=((128, 128), (64, 64)), tile_efficiency=(1.0, 0.8), depth_fill=64.0, wave_smoothing=0.0
    ),
)
sides = st.integers(1, 20_000)


def pricer(accelerator: Accelerator | None = None, dtype: str = "bf16", ranks: int = 1, **software: Any) -> Pricer:
    """Return a pricer of the hand-workable software."""
    return Pricer(accelerator or hand.accelerator(), hand.software(**software), dtype, ranks)


@quick
@given(st.integers(1, 16), sides, sides, sides)
def test_an_ideal_device_is_the_roofline(batch: int, m: int, n: int, k: int) -> None:
    """The slower of 2bmnk FLOPs at 1 TFLOP/s and the bytes of both operands and the result at 1 TB/s."""
    work = pricer().work(gemm_kernel("gemm", Gemm(batch=batch, m=m, n=n, k=k), 2.0))
    math_s, memory_s = 2 * batch * m * n * k / 1e12, 2 * batch * (m * k + k * n + m * n) / 1e12
    assert work.device_s == pytest.approx(max(math_s, memory_s))
    assert (work.math_s > 0.0, work.memory_s > 0.0) == (math_s >= memory_s, math_s < memory_s)
    assert work.flop == 2 * batch * m * n * k


def test_tiles_come_in_waves() -> None:
    """256 × 640 outputs are 10 tiles of 128²: one wave on 10 units. One row more makes 15 of them, and two waves.

    A tile of depth 192 costs 2 · 128² · (192 + 64) FLOPs at 50 GFLOP/s per unit; of 64² there are 40 and 50: 4 and 5 waves at 0.8.
    """
    tile_s = 2 * 128**2 * 256 / 50e9
    small_s = 2 * 64**2 * 256 / (50e9 * 0.8)
    assert pricer(TILED).gemm_s(Gemm(batch=1, m=256, n=640, k=192)) == pytest.approx(min(tile_s, 4 * small_s))
    assert pricer(TILED).gemm_s(Gemm(batch=1, m=257, n=640, k=192)) == pytest.approx(min(2 * tile_s, 5 * small_s))
    assert 5 * small_s < 2 * tile_s


def test_smoothing_charges_a_partial_wave_its_share() -> None:
    """1.5 waves of tiles cost 2 waves, 1.5 or in between."""
    gemm = Gemm(batch=1, m=384, n=640, k=192)
    one_tile = replace(TILED.matmul, tiles=((128, 128),), tile_efficiency=(1.0,))
    tile_s = 2 * 128**2 * 256 / 50e9
    for smoothing, waves in ((0.0, 2.0), (1.0, 1.5), (0.5, 1.75)):
        device = replace(TILED, matmul=replace(one_tile, wave_smoothing=smoothing))
        assert pricer(device).gemm_s(gemm) == pytest.approx(waves * tile_s)


@quick
@given(st.integers(1, 4), sides, sides, sides, st.sampled_from(("batch", "m", "n", "k")))
def test_a_larger_product_never_takes_less(batch: int, m: int, n: int, k: int, side: str) -> None:
    """Whatever side grows, tiles, waves and bytes only grow."""
    gemm = Gemm(batch=batch, m=m, n=n, k=k)
    larger = replace(gemm, **{side: getattr(gemm, side) + 1})
    assert pricer(TILED).gemm_s(larger) >= pricer(TILED).gemm_s(gemm) * (1 - 1e-12)


@quick
@given(st.integers(1, 4), sides, sides, sides)
def test_a_product_never_beats_the_peak(batch: int, m: int, n: int, k: int) -> None:
    """Its tiles hold at least its FLOPs, and units reach at most what is sustained."""
    assert pricer(TILED).gemm_s(Gemm(batch=batch, m=m, n=n, k=k)) >= 2 * batch * m * n * k / (0.5 * 1e12) * (1 - 1e-12)


@quick
@given(st.floats(1.0, 1e12))
def test_half_of_the_bandwidth_at_half_bytes(moved: float) -> None:
    """Hockney: (n + n_half) / r, so at n = n_half the rate is half of what is sustained."""
    device = hand.accelerator(memory=MemoryCurve(efficiency=0.8, half_bytes=1e6))
    assert pricer(device).stream_s(moved) == pytest.approx((moved + 1e6) / 0.8e12)
    assert 1e6 / pricer(device).stream_s(1e6) == pytest.approx(0.4e12)
    assert pricer(device, stream_scale=0.5).stream_s(moved) == pytest.approx(2 * (moved + 1e6) / 0.8e12)
    assert pricer(device).stream_s(moved, launches=3) == pytest.approx((moved + 3e6) / 0.8e12)


def attention(keys: int, head_dim: int, *, backward: bool) -> FusedAttention:
    """Return a call of one head."""
    return FusedAttention(heads=1, queries=keys, keys=keys, head_dim=head_dim, causal=True, backward=backward)


def test_fused_attention_runs_at_its_measured_fraction() -> None:
    """60 % forward and 50 % backward at great length, half of it at 512 keys, 80 % of it for heads of 64, more for 96."""
    curve = AttentionCurve(forward=0.6, backward=0.5, half_length=512.0, narrow_head=0.8)
    price = pricer(hand.accelerator(attention={"flash2": curve}))
    assert price.attention_s(attention(10**12, 128, backward=False), 6e11) == pytest.approx(1.0)
    assert price.attention_s(attention(512, 128, backward=True), 2.5e11) == pytest.approx(1.0)
    assert price.attention_s(attention(512, 64, backward=False), 2.4e11) == pytest.approx(1.0)
    assert price.attention_s(attention(512, 256, backward=False), 3e11) == pytest.approx(1.0)
    assert 0.8 < price.attention_s(attention(512, 96, backward=False), 2.4e11) < 1.0


def test_the_longest_matching_key_names_the_attention_kernel() -> None:
    """A software says per accelerator, or for all the rest; a kernel that the accelerator lacks is not called."""
    named = hand.software(attention={"default": "flash2", "v100": "unfused", "v100-sxm": "flash2", "tpu": "xla"})
    for key, kernel in (("a100", "flash2"), ("v100-pcie", "unfused"), ("v100-sxm2", "flash2"), ("tpu-v4", "unfused")):
        assert attention_kernel(named, hand.accelerator(key=key)) == kernel


def test_a_kernel_has_a_floor_and_a_gap() -> None:
    """1 µs of work under a floor of 5 µs and a gap of 2 µs, twice: 14 µs, of which 2 are work; the host issues for 6."""
    device = hand.accelerator(kernel_floor_s=5e-6)
    price = pricer(device, host=replace(hand.NO_HOST, launch_gap_s=2e-6, launch_s=3e-6))
    work = price.work(stream_kernel("tiny", 2e6, launches=2))
    assert (work.memory_s, work.overhead_s, work.device_s, work.host_s) == pytest.approx((2e-6, 12e-6, 14e-6, 6e-6))
    large = price.work(stream_kernel("large", 1e9))
    assert (large.memory_s, large.overhead_s) == pytest.approx((1e-3, 2e-6))


def test_energy_is_by_flop_byte_and_second() -> None:
    """2 TFLOP at 0.1 nJ, their bytes at 0.1 nJ, 2 s at 50 W."""
    gemm = Gemm(batch=1, m=10_000, n=10_000, k=10_000)
    work = pricer().work(gemm_kernel("gemm", gemm, 2.0))
    assert (work.math_j, work.memory_j, work.busy_j) == pytest.approx((200.0, 0.06, 100.0))


@quick
@given(st.integers(1, 100_000))
def test_more_devices_are_slower_by_the_slowest(ranks: int) -> None:
    """Alone there is no slowest; among n it is sqrt(2 ln n) deviations behind."""
    assert slowest_of(0.01, 1) == 1.0
    assert slowest_of(0.0, ranks) == 1.0
    assert slowest_of(0.01, ranks + 1) > slowest_of(0.01, ranks)
    assert slowest_of(0.01, 1024) == pytest.approx(1.0372, abs=1e-4)


@quick
@given(st.floats(1e3, 1e13), st.floats(1.0, 100.0))
def test_faster_hardware_is_never_slower(moved: float, factor: float) -> None:
    """FLOP/s and memory bandwidth."""
    kernel = gemm_kernel("gemm", Gemm(batch=1, m=int(moved**0.4), n=333, k=77), 2.0)
    fast_math = replace(TILED, peak_flop_per_s={"bf16": factor * 1e12})
    fast_memory = replace(TILED, memory_bytes_per_s=factor * 1e12)
    for device in (fast_math, fast_memory):
        assert pricer(device).work(kernel).device_s <= pricer(TILED).work(kernel).device_s * (1 + 1e-12)
    assert pricer(TILED).work(kernel).device_s < inf


def test_math_without_a_shape_is_a_fault_of_the_model() -> None:
    """The message says what to give."""
    kernel = Kernel(name="mystery", kind=KernelKind.GEMM, flop=1.0, model_flop=1.0, moved_bytes=1.0)
    with pytest.raises(ModelError, match="kernel 'mystery' does math but names neither a product nor an attention shape; give its op"):
        pricer().work(kernel)
