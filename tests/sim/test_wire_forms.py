"""Bytes on the wire of one step in closed form, family by family, and buckets against PyTorch's own assignment."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import foretrain as ft
from foretrain.models.model import Block
from foretrain.sim.buckets import buckets
from foretrain.sim.state import Unit
from foretrain.sim.wire import WireEntry, collectives
from foretrain.software.load import load_software
from tests.sim import hand

quick = settings(deadline=None, derandomize=True, max_examples=25)
MODEL = ft.load_model("gpt3-1.3b")
CLUSTER = ft.load_cluster("dgx-h100:1")
SAMPLES, ELEMENT, REDUCED = 8, 2.0, 4.0
TRAINED = float(MODEL.trained_parameters)
ROWS = float(SAMPLES * (MODEL.seq_len or 0))
WIDTH = float(MODEL.hidden or 0)


def wire(software: str = "megatron-lm", stage: int = 0, **plan: Any) -> tuple[WireEntry, ...]:
    """Return what a rank sends in one step of eight samples in bf16, in one micro-batch where the plan says no other."""
    given = ft.Plan(**{"micro_batch": SAMPLES // plan.get("dp", 1), **plan})
    recipe = ft.Recipe(global_batch=SAMPLES, precision="bf16", grad_dtype="fp32")
    return collectives(MODEL, CLUSTER, given, recipe, load_software(software), stage=stage)


def totals(entries: tuple[WireEntry, ...], group: str) -> dict[str, float]:
    """Return the bytes of a group's transfers by kind."""
    found: Counter[str] = Counter()
    for entry in entries:
        if entry.group == group:
            found[entry.op] += entry.size_bytes  # type: ignore[assignment]  # bytes may be half
    return dict(found)


@pytest.mark.parametrize("software", ["megatron-lm", "pytorch-eager", "deepspeed-zero3"])
def test_replicas_reduce_every_gradient_once(software: str) -> None:
    """4 bytes of each trained parameter, however they are put into buckets."""
    assert totals(wire(software, dp=8), "data_parallel") == {"all_reduce": pytest.approx(TRAINED * REDUCED)}


def test_a_sharded_optimizer_scatters_gradients_and_gathers_parameters() -> None:
    """4 bytes a parameter one way, 2 the other. Rajbhandari et al., arXiv:1910.02054, section 7.2.1."""
    expected = {"reduce_scatter": pytest.approx(TRAINED * REDUCED), "all_gather": pytest.approx(TRAINED * ELEMENT)}
    assert totals(wire(dp=8, zero=1), "data_parallel") == expected


def test_full_sharding_gathers_twice() -> None:
    """Forward and backward, as arXiv:1910.02054, section 7.2.2 has it, where every unit is gathered for itself."""
    expected = {"reduce_scatter": pytest.approx(TRAINED * REDUCED), "all_gather": pytest.approx(2 * TRAINED * ELEMENT)}
    assert totals(wire("deepspeed-zero3", dp=8, zero=3), "data_parallel") == expected


def test_shards_that_are_fewer_than_replicas_reduce_across_them() -> None:
    """HSDP: what was scattered over 4 is reduced between the 2 that hold the same quarter."""
    found = totals(wire("torchtitan", dp=8, zero=3, shard=4), "data_parallel")
    assert found["all_reduce"] == pytest.approx(TRAINED * REDUCED / 4)


def test_sequence_parallelism_sends_what_tensor_parallelism_does_and_gathers_inputs_again() -> None:
    """An all-reduce is a scatter and a gather; Megatron-LM gathers the two inputs of a layer, and the head's, once more backward.

    Source: Korthikanti et al., arXiv:2205.05198, section 4.2.2.
    """
    tensor = ROWS * WIDTH * ELEMENT
    small = 3 * ROWS * 4.0
    reduced = totals(wire(tp=2), "tensor_parallel")["all_reduce"] - small
    assert reduced == pytest.approx((4 * MODEL.depth + 2) * tensor)
    for software, again in (("megatron-lm", 2 * MODEL.depth + 1), ("torchtitan", 0)):
        found = totals(wire(software, tp=2, sequence_parallel=True), "tensor_parallel")
        assert found["reduce_scatter"] == pytest.approx(reduced)
        assert found["all_gather"] == pytest.approx(reduced + again * tensor)
        # Two norms a layer and the last, and two biases a layer that are added to a rank's own rows.
        assert found["all_reduce"] == pytest.approx(small + ((2 * 2 + 2) * MODEL.depth + 2) * WIDTH * REDUCED)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_stages_pass_on_each_micro_batch(stage: int) -> None:
    """A tensor of the boundary forward and one back, sent and taken, between neighbours; the ends of the line have one neighbour."""
    found = totals(wire("pytorch-eager", stage, pp=4, micro_batch=1), "pipeline_parallel")
    neighbours = 1 if stage in (0, 3) else 2
    assert found == dict.fromkeys(("send", "recv"), pytest.approx(neighbours * ROWS * WIDTH * ELEMENT))


def linear_units(sizes: list[tuple[int, bool]]) -> tuple[Unit, ...]:
    """Return units of one linear layer each: its outputs for 8 inputs, and whether it has a bias."""
    step = next(hand.linear_model(layers=1).blocks())[0].steps[0]
    layers = [replace(step, out_features=outs, in_features=8, bias=bias) for outs, bias in sizes]
    blocks = [Block(name=f"{number}", steps=(layer,), input_elements=0) for number, layer in enumerate(layers)]
    return tuple(
        Unit(block=block, layer=True, parameters=block.parameters, trained=block.parameters, gather_bytes=0.0) for block in blocks
    )


@quick
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=12), st.integers(1, 200), st.integers(1, 600))
def test_buckets_are_those_of_torch(sizes: list[tuple[int, bool]], first: int, others: int) -> None:
    """The reducer's own assignment of tensors, in the order in which their gradients come."""
    torch = pytest.importorskip("torch")
    from torch.distributed import _compute_bucket_assignment_by_size  # noqa: PLC0415  # torch may be missing

    tensors = [torch.empty(size) for outs, bias in reversed(sizes) for size in ((outs,) if bias else ()) + (outs * 8,)]
    assigned, _ = _compute_bucket_assignment_by_size(tensors, [first * 4, others * 4])
    found = buckets(linear_units(sizes), ft.Plan(), (first, others))
    assert [one.parameters for one in found] == [sum(tensors[index].numel() for index in indices) for indices in assigned]


@quick
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=12), st.integers(1, 600))
def test_buckets_cover_the_units_from_the_back(sizes: list[tuple[int, bool]], limit: int) -> None:
    """Each begins where the one before became full, or in the unit before; one without a limit holds all."""
    units = linear_units(sizes)
    found = buckets(units, ft.Plan(), (limit,))
    assert found[0].last == len(units)
    assert found[-1].first == 0
    assert all(before.first <= after.last <= before.first + 1 for before, after in pairwise(found))
    (whole,) = buckets(units, ft.Plan(), (inf,))
    assert whole.parameters == sum(unit.trained for unit in units) == sum(one.parameters for one in found)
