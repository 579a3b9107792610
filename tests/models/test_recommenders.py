"""Recommenders: parameters by hand, look-ups, and tables that are spread over the ranks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from foretrain.errors import ModelError
from foretrain.models.architectures import build_model
from foretrain.models.embedding_bag import EmbeddingBags
from foretrain.models.interaction import DotInteraction
from foretrain.models.load import load_model, load_spec
from foretrain.models.ops import Gemm, Layout
from foretrain.sim.collectives import collective
from foretrain.sim.placement import span
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from tests.sim import hand

ONE = Layout(micro_batch=2)
BAGS = EmbeddingBags(name="bags", tables=3, rows=1000, width=8, lookups=10, sharded=True)


def dense(*sizes: int) -> int:
    return sum((ins + 1) * outs for ins, outs in pairwise(sizes))


def test_dlrm_is_its_tables_and_two_mlps() -> None:
    """26 tables of 128 columns; 13-512-256-128 below; 27·26/2 pairs and 128 numbers into 1024-1024-512-256-1."""
    spec = load_spec("dlrm")
    assert load_model("dlrm").parameters == sum(spec.rows) * 128 + dense(13, 512, 256, 128) + dense(351 + 128, 1024, 1024, 512, 256, 1)


def test_dcn_is_three_low_rank_crosses() -> None:
    """27·128 features through 512 and back, with a bias, three times."""
    spec, wide = load_spec("dlrm-dcnv2"), 27 * 128
    crosses = 3 * (2 * wide * 512 + wide)
    tops = dense(13, 512, 256, 128) + dense(wide, 1024, 1024, 512, 256, 1)
    assert load_model("dlrm-dcnv2").parameters == sum(spec.rows) * 128 + crosses + tops


def test_ncf_is_two_pairs_of_tables_and_an_mlp() -> None:
    """64 factors and 128 for the MLP of every user and item; 256-256-128-64, and 128 numbers to one."""
    assert load_model("ncf").parameters == (138_493 + 26_744) * (64 + 128) + dense(256, 256, 128, 64) + 129


def test_look_ups_move_rows_and_sums() -> None:
    """20 rows of 8 fp32 numbers are read and 6 sums of 8 written in 16 bits; sharded, rows are read and written once more in backward."""
    (forward,), (update,) = BAGS.forward(ONE), BAGS.backward(ONE)
    assert forward.moved_bytes == 20 * 8 * 4 + 6 * 8 * 2
    assert update.moved_bytes == 6 * 8 * 2 + 2 * 20 * 8 * 4
    (dense_gradient,) = replace(BAGS, sharded=False).backward(ONE)
    assert dense_gradient.moved_bytes == update.moved_bytes + 1000 * 8 * 4


def test_an_interaction_is_a_product_a_sample() -> None:
    """4 vectors of 8: 4·4·8 multiply-adds forward, two products of as many backward, 6 pairs and a vector out."""
    op = DotInteraction(name="dots", features=4, width=8)
    assert op.out_features == 6 + 8
    assert [kernel.gemm for kernel in op.forward(ONE) if kernel.gemm] == [Gemm(batch=2, m=4, n=4, k=8)]
    assert [kernel.flop for kernel in op.backward(ONE) if kernel.gemm] == [2.0 * 2 * 4 * 4 * 8] * 2


def test_sharded_tables_are_held_once_and_exchanged() -> None:
    """Each of 8 ranks holds an eighth of them in fp32, and two exchanges of its samples' vectors take what the fabric says."""
    spec = replace(load_spec("dlrm"), rows=(1_000_000,) * 26)
    cluster, plan, recipe = hand.cluster(), Plan(dp=8, micro_batch=1000), Recipe(global_batch=8000, optimizer="sgd")
    models = {sharded: build_model(replace(spec, sharded=sharded)) for sharded in (True, False)}
    run = {sharded: simulate(model, cluster, plan, recipe, software=hand.software()) for sharded, model in models.items()}
    held = {sharded: prediction.memory[0].components["parameters"] for sharded, prediction in run.items()}
    tables = 26e6 * 128
    # bf16 copies of the dense part on every rank; of everything where the tables are replicated.
    small = load_model("dlrm").parameters - sum(load_spec("dlrm").rows) * 128
    assert held[True] == pytest.approx(tables * 4 / 8 + small * 2)
    assert held[False] == pytest.approx((tables + small) * 2)
    ranks = span(cluster, start=0, stride=1, ranks=8, occupied=8)
    swap = collective("all_to_all", 1000 * 26 * 128 * 2.0, ranks, cluster)
    reduced = collective("all_reduce", small * 4.0, ranks, cluster)
    assert run[True].breakdown["data_parallel"] == pytest.approx(2 * swap.total_s + reduced.total_s)
    assert run[True].step_s < run[False].step_s


@pytest.mark.parametrize(
    ("change", "said"),
    [({"lookups": (1,)}, "give one number per table"), ({"bottom": (512, 64)}, "same width"), ({"cross_layers": 2}, "go together")],
)
def test_dimensions_that_do_not_fit_are_refused(change: dict[str, object], said: str) -> None:
    """With what would fit."""
    with pytest.raises(ModelError, match=said):
        replace(load_spec("dlrm"), **change)


def test_a_fused_interaction_moves_vectors_and_pairs_alone() -> None:
    """4 vectors of 8, 2 samples, 2 bytes: 32 in and 14 out forward, 14 and 64 backward; the same FLOPs in a kernel each."""
    op = DotInteraction(name="dots", features=4, width=8)
    layout = Layout(micro_batch=2, fused=frozenset({"interaction"}))
    (forward,), (backward,) = op.forward(layout), op.backward(layout)
    assert (forward.moved_bytes, backward.moved_bytes) == (2 * 2 * (32 + 14), 2 * 2 * (64 + 14))
    apart = Layout(micro_batch=2)
    assert forward.flop == sum(kernel.flop for kernel in op.forward(apart))
    assert backward.flop == sum(kernel.flop for kernel in op.backward(apart))


def test_look_ups_are_scattered() -> None:
    """Forward and backward: no fusion spares them."""
    op = EmbeddingBags(name="tables", tables=2, rows=100, width=8, lookups=4, sharded=True)
    layout = Layout(micro_batch=2)
    assert all(kernel.scattered for kernel in (*op.forward(layout), *op.backward(layout)))
