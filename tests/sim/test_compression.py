"""Compressed gradients: wire, kernels and memory worked out by hand; and the buckets that carry them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.profile import Software
from tests.sim import hand
from tests.sim.hand import GIGA, TERA

quick = settings(deadline=None, derandomize=True, max_examples=25)
CELLS = 1e6


def step(compression: str | None = None, *, layers: int = 2, software: Software | None = None, dp: int = 8, **plan: Any) -> Prediction:
    """Return a step of layers of one product of 1000 × 1000 on replicas with ports of 100 GB/s."""
    made = Plan(dp=dp, gradient_compression=compression, **plan)
    return simulate(hand.linear_model(layers=layers), hand.cluster(), made, Recipe(global_batch=dp), software=software or hand.software())


def packing_s(compression: str, dp: int = 8) -> float:
    """Return the seconds of compute that compression adds to a step."""
    found, plain = step(compression, dp=dp), step(dp=dp)
    return (found.step_s - found.breakdown["data_parallel"]) - (plain.step_s - plain.breakdown["data_parallel"])


@quick
@given(st.integers(2, 8), st.sampled_from(("fp16", "bf16")))
def test_half_the_bytes_go_over_the_wire(replicas: int, method: str) -> None:
    """A ring all-reduce of 2 bytes a gradient; 6 bytes move to pack each and 6 to unpack it."""
    found = step(method, dp=replicas)
    assert found.breakdown["data_parallel"] == pytest.approx(2 * (replicas - 1) / replicas * 2 * CELLS * 2 / (100 * GIGA), rel=1e-9)
    assert packing_s(method, replicas) == pytest.approx(2 * CELLS * 12 / TERA, rel=1e-9)


@quick
@given(st.integers(1, 64))
def test_two_factors_replace_a_matrix(rank: int) -> None:
    """(1000 + 1000)·r numbers of 4 bytes a matrix; three products of 2·10⁶·r FLOPs, which MFU does not count. arXiv:1905.13727."""
    found, plain = step(f"powersgd:{rank}"), step()
    assert found.breakdown["data_parallel"] == pytest.approx(2 * 7 / 8 * 2 * 2000 * rank * 4 / (100 * GIGA), rel=1e-9)
    assert (found.hardware_flop - plain.hardware_flop) / 8 == pytest.approx(2 * 3 * 2 * CELLS * rank, rel=1e-9)
    assert found.model_flop == plain.model_flop


def test_factors_no_smaller_than_the_matrix_are_not_sent() -> None:
    """Rank 500 of a 1000 × 1000 matrix saves nothing: it goes whole, and nothing is computed for it."""
    assert step("powersgd:500").step_s == pytest.approx(step().step_s, rel=1e-12)


@quick
@given(st.integers(2, 8), st.sampled_from((0.001, 0.01, 0.1)))
def test_the_largest_entries_are_gathered_with_their_places(replicas: int, share: float) -> None:
    """8 bytes an entry from every rank to every other."""
    found = step(f"topk:{share}", dp=replicas)
    assert found.breakdown["data_parallel"] == pytest.approx((replicas - 1) * share * 2 * CELLS * 8 / (100 * GIGA), rel=1e-9)
    entries = share * replicas
    moved = 4 * 5 + 8 * share + 4 + entries * (8 + 8)
    assert packing_s(f"topk:{share}", replicas) == pytest.approx(2 * CELLS * moved / TERA, rel=1e-9)


@pytest.mark.parametrize(("method", "residual"), [("fp16", 0), ("powersgd:4", 4), ("topk:0.01", 4)])
def test_what_was_not_sent_is_kept(method: str, residual: int) -> None:
    """Error feedback takes 4 bytes a gradient beside its own 4."""
    assert step(method).memory[0].components["gradients"] == 2 * CELLS * (4 + residual)


@pytest.mark.parametrize("method", ["fp16", "powersgd:4", "topk:0.001"])
@pytest.mark.parametrize("sync", ["step", "micro-batch"])
def test_compression_hides_like_any_reduction(method: str, sync: str) -> None:
    """With overlap it takes no longer than without."""
    overlap = hand.software(overlap=replace(hand.NO_OVERLAP, gradient_reduce=True, gradient_bucket_bytes=1.0))
    assert step(method, software=overlap, gradient_sync=sync).step_s <= step(method, gradient_sync=sync).step_s * (1 + 1e-12)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"compression": "int8"}, "use fp16, bf16, powersgd:4 or topk:0.01"),
        ({"compression": "powersgd"}, "such as powersgd:4"),
        ({"compression": "topk:2"}, "above 0 and below 1"),
        ({"compression": "fp16:2"}, "takes no figure"),
        ({"compression": "fp16", "zero": 1}, "zero=1 shards state"),
        ({"compression": "fp16", "dp": 1}, "dp=1 reduces no gradients"),
    ],
)
def test_what_compresses_nothing_is_refused(plan: dict[str, Any], words: str) -> None:
    """Naming both options where they contradict each other."""
    with pytest.raises(PlanError, match=words):
        step(**plan)


def test_gradients_of_two_bytes_are_not_halved_again() -> None:
    """They are 16-bit already."""
    software = hand.software(state=replace(hand.software().state, reduce_bytes=2.0))
    with pytest.raises(PlanError, match="in 2 bytes already"):
        step("bf16", software=software)


def test_a_small_first_bucket_starts_the_reduction_early() -> None:
    """Four layers of b = 4 ms backward in one bucket of r = 4 · 0.5 ms: r after the last; with the last layer apart, 3/4 of it."""
    up = hand.fabric(bandwidth_bytes_per_s=4e6 / 0.5e-3)
    exposed = {}
    for first in (0.0, 1e6):
        overlap = replace(hand.NO_OVERLAP, gradient_reduce=True, gradient_bucket_bytes=1e12, first_bucket_bytes=first)
        prediction = simulate(
            hand.linear_model(layers=4), hand.cluster(up=up), Plan(dp=2), Recipe(global_batch=2), software=hand.software(overlap=overlap)
        )
        exposed[first] = prediction.breakdown["data_parallel"]
    assert exposed == pytest.approx({0.0: 2e-3, 1e6: 1.5e-3}, rel=1e-9)
