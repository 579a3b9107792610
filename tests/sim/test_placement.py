"""Placement: where ranks sit, counted one by one, and what cannot be placed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.placement import Placement, place, span
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from tests.sim import hand
from tests.sim.cases import gpt

quick = settings(deadline=None, derandomize=True, max_examples=150)
degrees = st.integers(1, 9)


def placed(*, layers: int = 8, batch: int | None = None, nodes: int = 200, **degrees_: Any) -> Placement:
    """Return a plan laid over nodes of 8 devices."""
    plan = Plan(**degrees_)
    model = hand.linear_model(layers=layers, width=2520)
    return place(model, hand.cluster(nodes=nodes), plan, Recipe(global_batch=batch or plan.dp * plan.micro_batch))


@quick
@given(degrees, degrees, st.sampled_from((1, 2, 4, 8)))
def test_every_rank_has_one_place(dp: int, tp: int, pp: int) -> None:
    """Coordinates and ranks are one to one, tensor-parallel ranks next to each other, then replicas, then stages."""
    placement = placed(dp=dp, tp=tp, pp=pp)
    ranks = [placement.rank(stage, replica, t) for stage in range(pp) for replica in range(dp) for t in range(tp)]
    assert ranks == list(range(dp * tp * pp))


@quick
@given(degrees, degrees, st.sampled_from((1, 2, 4, 8)), st.sampled_from((frozenset(), frozenset({"dp"}), frozenset({"tp"}))))
def test_classes_stand_for_every_replica_once(dp: int, tp: int, pp: int, unfold: frozenset[str]) -> None:
    """Their members are all replicas, and members of a class cross domains at the same stages."""
    placement = placed(dp=dp, tp=tp, pp=pp, unfold=unfold)
    assert sorted(replica for each in placement.classes for replica in each.members) == list(range(dp))
    for each in placement.classes:
        spans = {tuple(placement.tensor_span(stage, replica) for stage in range(pp)) for replica in each.members}
        steps = {
            tuple(placement.domain(s, replica) != placement.domain(s + 1, replica) for s in range(pp - 1)) for replica in each.members
        }
        assert len(spans) == len(steps) == 1


@quick
@given(degrees, degrees, st.sampled_from((1, 2, 4, 8)), st.sampled_from((frozenset(), frozenset({"dp"}), frozenset({"tp"}))))
def test_flows_are_the_ranks_of_a_class_on_its_node(dp: int, tp: int, pp: int, unfold: frozenset[str]) -> None:
    """Counted one by one."""
    placement = placed(dp=dp, tp=tp, pp=pp, unfold=unfold)
    for each in placement.classes:
        for stage in range(pp):
            for t in range(tp) if "tp" in unfold else range(1):
                alike = range(t, t + 1) if "tp" in unfold else range(tp)
                nodes = Counter(placement.node(stage, replica, other) for replica in each.members for other in alike)
                assert placement.flows(stage, each, t) == nodes[placement.node(stage, each.replica, t)]


@quick
@given(st.sampled_from((1, 2, 4, 8)), st.sampled_from((1, 2, 4, 8, 16, 4096)), st.sampled_from((1, 2, 4, 8)))
def test_a_regular_plan_has_one_class(tp: int, dp: int, pp: int) -> None:
    """Where groups and replicas fill nodes, all replicas are alike."""
    assert len(placed(dp=dp, tp=tp, pp=pp, nodes=8 * 4096).classes) == 1


@quick
@given(st.integers(1, 64), st.integers(1, 16), st.integers(0, 40))
def test_a_span_counts_the_domains_it_touches(ranks: int, stride: int, start: int) -> None:
    """Members and domains counted one by one."""
    cluster = hand.cluster(nodes=200)
    found = span(cluster, start=start, stride=stride, ranks=ranks, occupied=1600)
    homes = Counter((start + stride * index) // 8 for index in range(ranks))
    assert found.domains == len(homes)
    assert ranks / found.domains <= found.per_domain <= max(homes.values())
    assert (found.network_bytes_per_s == float("inf")) == (len(homes) == 1)


def test_layers_are_cut_evenly_or_with_the_ends_counted() -> None:
    """8 over 4 stages are two each; 10 over 4 are 2, 3, 3, 2 (the ends of the model count as a layer); chunks interleave."""
    assert [len(chunk) for chunk in placed(pp=4).chunk_layers] == [2, 2, 2, 2]
    assert [len(chunk) for chunk in placed(pp=4, layers=10).chunk_layers] == [2, 3, 3, 2]
    assert len(placed(pp=2, vpp=2).chunk_layers) == 4


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"dp": 9, "nodes": 1}, "dp=9 × tp=1 × pp=1 needs 9 accelerators, but hand cluster has 8; use at least 2 nodes or smaller degrees"),
        ({"tp": 11}, r"tp=11 does not divide the 2520 width of hand model; use one of 8, 9, 10, 12"),
        ({"pp": 3}, r"pp=3 × vpp=1 does not divide the 8 layers of hand model; use pp of 1, 2, 4, 8"),
        ({"dp": 4, "batch": 6}, r"global batch 6 is not a multiple of dp=4 × micro-batch 1; use 4 or 8"),
        ({"dp": 4, "zero": 1, "shard": 3}, r"shard=3 does not divide dp=4; use one of 1, 2, 4"),
        ({"dp": 4, "shard": 2}, r"shard=2 needs something to shard, but zero=0; use zero 1, 2 or 3"),
        ({"sequence_parallel": True}, r"sequence_parallel cuts along the tensor-parallel group, but tp=1; raise tp or leave it off"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_what_can(plan: dict[str, Any], message: str) -> None:
    """One line: the subject, the value, what was expected, the nearest that would do."""
    with pytest.raises(PlanError, match=message):
        placed(**plan)


@quick
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4))
def test_remedies_of_a_pipeline_that_does_not_divide_do(layers: int, pp: int, vpp: int) -> None:
    """Every degree that a refusal offers is accepted."""
    try:
        placed(layers=layers, pp=pp, vpp=vpp)
        assume(condition=False)
    except PlanError as error:
        remedy = str(error).split("; use ")[1]
    alone = remedy.endswith(" with vpp=1")
    name, options = remedy.removesuffix(" with vpp=1").split(" of ")
    for option in options.split(", "):
        kept = 1 if alone else vpp
        degrees_ = {"pp": int(option), "vpp": kept} if name == "pp" else {"pp": pp, "vpp": int(option)}
        assert placed(layers=layers, **degrees_).microbatches == 1


def test_tensor_groups_of_a_transformer_divide_heads_and_width() -> None:
    """Three ranks cannot share 8 heads."""
    with pytest.raises(PlanError, match="tp=3 does not divide the 8 attention heads of small GPT; use one of 1, 2, 4, 8"):
        place(gpt(layers=2), hand.cluster(), Plan(tp=3), Recipe(global_batch=1))
