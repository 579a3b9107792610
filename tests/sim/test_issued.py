"""Energy of math: operands on the chip, padding of tiles, vector operations, and bytes that fusion spares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.hardware.accelerator import Accelerator, MatmulCurve
from foretrain.hardware.load import list_accelerators, load_accelerator
from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import FusedAttention, Gemm
from foretrain.models.stream import stream_kernel
from foretrain.sim.cost import Pricer
from foretrain.sim.issued import OPERAND_BYTES, product_j_per_flop, scores_flop
from tests.sim import hand


def device(**changes: Any) -> Accelerator:
    """Return a device with tiles of 4 x 4 and 2 x 2, 0.1 nJ a FLOP, 0.1 nJ a byte of operands, half of a FLOP for padding."""
    matmul = MatmulCurve(
        sustained={"bf16": 1.0}, tiles=((4, 4), (2, 2)), tile_efficiency=(1.0, 0.5), depth_fill=0.0, wave_smoothing=1.0
    )
    power = replace(hand.POWER, operand_j_per_byte=1e-10, padding_share=0.5)
    return hand.accelerator(matmul=matmul, power=power, **changes)


def product(m: int, n: int) -> Gemm:
    """Return a deep product."""
    return Gemm(batch=1, m=m, n=n, k=1000)


def test_a_large_product_costs_what_the_profile_says() -> None:
    """Filled tiles of the largest kind: their operands are in the joules per FLOP."""
    assert product_j_per_flop(device(), product(4000, 4000), 0, "bf16") == pytest.approx(1e-10)


def test_a_small_tile_brings_its_operands_more_often() -> None:
    """(1/4 + 1/4) / 2 operands of 2 bytes a FLOP are 0.5 bytes, in tiles of 2 x 2 twice as many: 0.05 nJ more."""
    assert product_j_per_flop(device(), product(4000, 4000), 1, "bf16") == pytest.approx(1e-10 + 0.5e-10)


def test_padding_takes_its_share() -> None:
    """2 of 4 columns: as many FLOPs on zeros, half of the 0.05 nJ at the units each; operands for 4 x 2: 0.75 bytes."""
    assert product_j_per_flop(device(), product(4000, 2), 0, "bf16") == pytest.approx(1.5 * 0.5e-10 + 0.75e-10)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([0, 1]))
def test_no_product_takes_less_than_a_large_one(m: int, n: int, tile: int) -> None:
    """Whatever its shape."""
    assert product_j_per_flop(device(), product(m, n), tile, "bf16") >= 1e-10 * (1 - 1e-12)


@pytest.mark.parametrize("name", list_accelerators())
def test_operands_are_a_part_of_a_flop(name: str) -> None:
    """On every accelerator of the library, in every precision, something is left for the units."""
    chip = load_accelerator(name)
    for dtype, each_j in chip.power.math_j_per_flop.items():
        rows, columns = max(chip.matmul.tiles, key=lambda tile: tile[0] * tile[1])
        assert chip.power.operand_j_per_byte * OPERAND_BYTES[dtype] * (1 / rows + 1 / columns) / 2 < 0.6 * each_j


def test_the_best_tile_is_the_one_that_is_paid_for() -> None:
    """A product of 2 x 2 runs in the small tile, at half the rate: no padding, twice the operands."""
    work = Pricer(device(), hand.software(), "bf16").work(gemm_kernel("small", product(2, 2), 2.0))
    assert work.math_j == pytest.approx(work.flop * 1.5e-10)


def test_scores_take_vector_operations() -> None:
    """A score takes 4 FLOPs of products for each element of a head forward, 10 backward, and 8 operations."""
    forward = FusedAttention(heads=1, queries=10, keys=10, head_dim=64, causal=False, backward=False)
    assert scores_flop(forward, 4 * 64 * 100) == pytest.approx(800)
    assert scores_flop(replace(forward, backward=True), 10 * 64 * 100) == pytest.approx(800)


def test_bytes_that_fusion_spares_take_no_energy() -> None:
    """Streams twice as fast as the memory move half of the bytes; slower ones move them all, and so do scattered rows."""
    copy = stream_kernel("copy", 1e9)
    for scale, scattered, moved in ((2.0, False, 0.5e9), (0.5, False, 1e9), (2.0, True, 1e9)):
        price = Pricer(hand.accelerator(), hand.software(stream_scale=scale), "bf16")
        work = price.work(replace(copy, scattered=scattered))
        assert work.memory_j == pytest.approx(moved * 1e-10)
        assert work.memory_j / work.memory_s <= 1e12 * 1e-10 * (1 + 1e-12)
