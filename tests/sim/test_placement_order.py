"""The order in which ranks are numbered: where groups lie, what it costs, and what cannot be placed."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.hardware.load import load_cluster
from foretrain.sim.placement import Placement, Span, place
from foretrain.sim.plan import ORDERS, Plan
from foretrain.sim.recipe import Recipe
from foretrain.software.load import load_software
from tests.sim.cases import Case, gpt, quiet

DEGREES = st.sampled_from((1, 2, 4, 8, 16))


def job(plan: Plan, *, hidden: int = 1024, layers: int = 8, batches: int = 4, seq_len: int = 256) -> Case:
    """Return a small job on as many nodes as the plan needs."""
    return Case(
        model=gpt(layers=layers, hidden=hidden, heads=16, vocab=16384, seq_len=seq_len), plan=plan,
        cluster=load_cluster(f"dgx-a100-80gb:{-(-plan.ranks // 8)}"), recipe=Recipe(global_batch=plan.dp * batches),
        software=quiet(load_software("megatron-lm")),
    )  # fmt: skip


def placed(case: Case) -> Placement:
    return place(case.model, case.cluster, case.plan, case.recipe)


def groups(placement: Placement) -> dict[str, tuple[Span, list[list[int]]]]:
    """Return the span of each kind of group, and the ranks of all groups of that kind."""
    plan = placement.plan
    stages, replicas, tensor = range(plan.pp), range(plan.dp), range(plan.tp)
    return {
        "tp": (placement.tensor_span(0, 0), [[placement.rank(s, r, t) for t in tensor] for s, r in product(stages, replicas)]),
        "dp": (placement.data_span(0), [[placement.rank(s, r, t) for r in replicas] for s, t in product(stages, tensor)]),
    }


@pytest.mark.parametrize("order", ORDERS)
def test_every_rank_is_somebody_once(order: str) -> None:
    """Coordinates and ranks correspond one to one, and the first dimension of the order moves fastest."""
    plan = Plan(dp=4, tp=2, pp=2, order=order)
    placement = placed(job(plan))
    ranks = [placement.rank(s, r, t) for s, r, t in product(range(2), range(4), range(2))]
    assert sorted(ranks) == list(range(16))
    step = {"tp": placement.rank(0, 0, 1), "dp": placement.rank(0, 1, 0), "pp": placement.rank(1, 0, 0)}
    assert sorted(step, key=step.__getitem__) == order.split("-")
    assert step[order[:2]] == 1


def test_the_default_is_the_order_of_megatron() -> None:
    """Rank = (stage · dp + replica) · tp + t, Megatron-LM's parallel_state.py."""
    placement = placed(job(Plan(dp=3, tp=2, pp=4)))
    assert all(placement.rank(s, r, t) == (s * 3 + r) * 2 + t for s, r, t in product(range(4), range(3), range(2)))


@settings(max_examples=80)
@given(dp=DEGREES, tp=DEGREES, pp=st.sampled_from((1, 2, 4, 8)), order=st.sampled_from(ORDERS))
def test_groups_lie_as_counting_their_members_says(dp: int, tp: int, pp: int, order: str) -> None:
    """Against counting: every group of a kind touches as many domains as the span says, with as many members in each."""
    placement = placed(job(Plan(dp=dp, tp=tp, pp=pp, order=order)))
    for span, alike in groups(placement).values():
        for group in alike:
            homes = [rank // 8 for rank in group]
            assert (len(group), len(set(homes))) == (span.ranks, span.domains)
            assert max(homes.count(home) for home in homes) == span.per_domain


@settings(max_examples=60)
@given(dp=DEGREES, tp=DEGREES, pp=st.sampled_from((1, 2, 4)), order=st.sampled_from(ORDERS))
def test_flows_count_the_ranks_that_share_a_node(dp: int, tp: int, pp: int, order: str) -> None:
    """Against counting: the ranks of one stage on the node of the rank that is simulated."""
    placement = placed(job(Plan(dp=dp, tp=tp, pp=pp, order=order)))
    for stage in range(pp):
        home = placement.rank(stage, 0) // 8
        there = sum(placement.rank(stage, r, t) // 8 == home for r, t in product(range(dp), range(tp)))
        assert placement.flows(stage, placement.classes[0]) == there


def test_tensor_parallel_beyond_a_node_costs_what_the_network_costs() -> None:
    """A tensor-parallel degree of 16 over two nodes of eight is slower than 8 inside one, on the same 32 accelerators."""
    inside = job(Plan(dp=4, tp=8), hidden=4096, seq_len=2048, batches=16).predict()
    across = job(Plan(dp=2, tp=16), hidden=4096, seq_len=2048, batches=32).predict()
    assert across.step_s > inside.step_s
    assert across.breakdown["tensor_parallel"] > 2 * inside.breakdown["tensor_parallel"]


def test_one_domain_of_72_holds_what_nodes_of_8_cannot() -> None:
    """A tensor-parallel degree of 16 inside an NVL72 rack pays no network."""
    plan = Plan(dp=2, tp=16)
    rack = replace(job(plan, hidden=4096), cluster=load_cluster("gb200-nvl72:1"))
    assert placed(rack).tensor_span(0, 0).domains == 1
    assert rack.predict().step_s < replace(rack, cluster=load_cluster("dgx-b200:4")).predict().step_s


@pytest.mark.parametrize("order", [order for order in ORDERS if not order.startswith("tp")])
def test_an_order_that_spreads_tensor_parallel_groups_is_slower(order: str) -> None:
    """With 8 replicas or stages between neighbours, every tensor-parallel all-reduce crosses nodes."""
    plan = Plan(dp=8, tp=8, pp=8)
    spread = job(replace(plan, order=order), hidden=4096, seq_len=2048, batches=16)
    assert placed(spread).tensor_span(0, 0).domains == 8
    slow, quick = spread.predict(), replace(spread, plan=plan).predict()
    assert slow.step_s > 1.2 * quick.step_s
    assert slow.breakdown["tensor_parallel"] > 2 * quick.breakdown["tensor_parallel"]


def test_pipeline_before_data_keeps_messages_inside_and_gradients_outside() -> None:
    """tp-pp-dp: stages of a replica share a node, so messages are cheap and the gradient all-reduce is not."""
    plan = Plan(dp=4, tp=2, pp=4)
    near, far = placed(job(replace(plan, order="tp-pp-dp"))), placed(job(plan))
    assert [near.domain(stage, 0) for stage in range(4)] == [0, 0, 0, 0]
    assert [far.domain(stage, 0) for stage in range(4)] == [0, 1, 2, 3]
    assert (near.data_span(0).domains, far.data_span(0).domains) == (4, 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("degrees", [(4, 2, 4), (8, 2, 1), (2, 4, 4), (2, 16, 2), (1, 2, 8)])
@pytest.mark.parametrize("zero", [0, 3])
def test_folded_equals_unfolded_in_every_order(order: str, degrees: tuple[int, int, int], zero: int) -> None:
    """One rank per class or all of them: the same step."""
    dp, tp, pp = degrees
    case = job(Plan(dp=dp, tp=tp, pp=pp, zero=zero, order=order))
    folded = case.predict()
    for unfold in ({"dp"}, {"tp"}):
        assert case.with_plan(unfold=frozenset(unfold)).predict().step_s == pytest.approx(folded.step_s, rel=1e-9)


def test_order_does_not_matter_where_one_domain_holds_all() -> None:
    """Inside one node all places are alike."""
    plans = [Plan(dp=2, tp=2, pp=2, order=order) for order in ORDERS]
    assert len({job(plan).predict().step_s for plan in plans}) == 1


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(dp=3, tp=2, pp=8, order="dp-tp-pp"), r"blocks of 3, which straddle scale-up domains of 8"),
        (Plan(dp=2, tp=2, pp=6, order="dp-pp-tp"), r"blocks of 12, .* use an order that begins with tp"),
    ],
)
def test_an_order_that_lays_tensor_ranks_unlike_is_refused(plan: Plan, reason: str) -> None:
    """Ranks that keep in step must lie alike; the message says what would do."""
    with pytest.raises(PlanError, match=reason):
        placed(job(plan, layers=24))


@pytest.mark.parametrize("order", ["tp-dp", "tp-dp-dp", "TP-DP-PP", "tp dp pp", ""])
def test_an_unknown_order_is_refused_with_the_six(order: str) -> None:
    """A permutation of the three dimensions, nothing else."""
    with pytest.raises(PlanError, match="use one of tp-dp-pp, tp-pp-dp"):
        Plan(order=order)
