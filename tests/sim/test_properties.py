"""What holds for every job: the parts sum to the whole, folding changes nothing, better hardware and less work never cost time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.sim.unlike import MOST
from foretrain.software.load import load_software
from tests.sim.cases import Case, cases, gpt, irregular, quiet, rounds

some = settings(deadline=None, derandomize=True, max_examples=40)
few = settings(deadline=None, derandomize=True, max_examples=15)
any_case = st.one_of(cases(), irregular())
UNFOLD = (frozenset({"dp"}), frozenset({"tp"}), frozenset({"dp", "tp"}))


@some
@given(any_case, st.sampled_from(("segment", "op")))
def test_the_breakdown_sums_to_the_step(case: Case, detail: str) -> None:
    """Every instant of every rank has one class, so the average over ranks sums to the step; no class is negative."""
    prediction = case.predict(detail)
    assert sum(prediction.breakdown.values()) == pytest.approx(prediction.step_s, rel=1e-9)
    assert min(prediction.breakdown.values()) >= -1e-12 * prediction.step_s
    assert min(prediction.hidden.values(), default=0.0) >= 0.0


@some
@given(cases(), st.sampled_from(UNFOLD))
def test_folded_equals_unfolded(case: Case, unfold: frozenset[str]) -> None:
    """Simulating every rank of a symmetric job tells the same time, energy, memory and breakdown as simulating one per class."""
    _same(case.predict(), case.with_plan(unfold=unfold).predict())


@some
@given(irregular().filter(lambda case: 8 % case.plan.tp == 0), st.sampled_from(UNFOLD))
def test_folded_equals_unfolded_where_replicas_are_placed_differently(case: Case, unfold: frozenset[str]) -> None:
    """Replicas that lie differently over the nodes are classes of their own, and nothing else differs."""
    _same(case.predict(), case.with_plan(unfold=unfold).predict())


@pytest.mark.parametrize("degrees", [(3, 4, 4), (7, 4, 4), (5, 2, 4), (7, 4, 6), (9, 2, 6), (13, 1, 4)])
@pytest.mark.parametrize(("software", "zero"), [("megatron-lm", 0), ("pytorch-fsdp", 1), ("pytorch-fsdp", 3)])
def test_folded_equals_unfolded_where_stages_share_nodes_unevenly(degrees: tuple[int, int, int], software: str, zero: int) -> None:
    """Replicas with other stages beside them on their nodes share NICs with other ranks, and are classes of their own."""
    dp, tp, pp = degrees
    plan = Plan(dp=dp, tp=tp, pp=pp, zero=zero)
    model = gpt(layers=pp, hidden=512, heads=8, vocab=8192, seq_len=256)
    case = Case(
        model=model, cluster=load_cluster(f"dgx-a100-80gb:{-(-plan.ranks // 8)}"), plan=plan, recipe=Recipe(global_batch=4 * dp),
        software=load_software(software),
    )  # fmt: skip
    _same(case.predict(), case.with_plan(unfold=frozenset({"dp"})).predict())


@pytest.mark.parametrize("degrees", [(101, 4, 12), (1001, 1, 8), (255, 2, 16)])
def test_a_chain_of_unlike_replicas_stays_a_few_classes(degrees: tuple[int, int, int]) -> None:
    """Each replica shares a node with the next, and the ends are unlike: as many classes as are of any use, not as replicas."""
    dp, tp, pp = degrees
    plan = Plan(dp=dp, tp=tp, pp=pp)
    model = gpt(layers=pp, hidden=512, heads=8, vocab=8192, seq_len=256)
    placement = place(model, load_cluster(f"dgx-a100-80gb:{-(-plan.ranks // 8)}"), plan, Recipe(global_batch=dp))
    assert len(placement.classes) <= MOST
    assert max(each.multiplicity for each in placement.classes) > 0.8 * dp


@few
@given(irregular().filter(lambda case: 8 % case.plan.tp > 0 and case.plan.ranks <= 24))
def test_folded_is_close_to_unfolded_where_groups_straddle_nodes(case: Case) -> None:
    """Members of a tensor-parallel group on two nodes are not alike, so unfolding them tells a little more."""
    folded = case.predict()
    assert case.with_plan(unfold=frozenset({"dp"})).predict().step_s == pytest.approx(folded.step_s, rel=1e-3)
    assert case.with_plan(unfold=frozenset({"dp", "tp"})).predict().step_s == pytest.approx(folded.step_s, rel=0.05)


def _same(folded: Prediction, unfolded: Prediction) -> None:
    assert unfolded.step_s == pytest.approx(folded.step_s, rel=1e-11)
    assert dict(unfolded.energy) == pytest.approx(dict(folded.energy), rel=1e-11)
    assert dict(unfolded.breakdown) == pytest.approx(dict(folded.breakdown), rel=1e-9, abs=1e-11 * folded.step_s)
    assert unfolded.peak_memory_bytes == pytest.approx(folded.peak_memory_bytes, rel=1e-12)
    assert unfolded.hardware_flop == pytest.approx(folded.hardware_flop, rel=1e-12)


@few
@given(any_case, st.sampled_from(("segment", "op")))
def test_the_same_job_gives_the_same_bits(case: Case, detail: str) -> None:
    """Two predictions of one job are equal to the last bit."""
    first, second = case.predict(detail), case.predict(detail)
    assert first == second
    assert list(first.breakdown) == list(second.breakdown)


def _faster(cluster: Cluster, part: str, factor: float) -> Cluster:
    """Return the cluster with one figure raised."""
    node, device = cluster.node, cluster.node.accelerator
    if part == "port":
        up = replace(node.scale_up, bandwidth_bytes_per_s=node.scale_up.bandwidth_bytes_per_s * factor)
        return replace(cluster, node=replace(node, scale_up=up))
    if part == "network":
        return replace(cluster, node=replace(node, nic_bytes_per_s=node.nic_bytes_per_s * factor))
    if part == "flops":
        peak = {name: rate * factor for name, rate in device.peak_flop_per_s.items()}
        return replace(cluster, node=replace(node, accelerator=replace(device, peak_flop_per_s=peak)))
    assert part == "memory"
    return replace(cluster, node=replace(node, accelerator=replace(device, memory_bytes_per_s=device.memory_bytes_per_s * factor)))


@pytest.mark.parametrize("part", ["port", "network", "flops", "memory"])
@few
@given(case=cases(overlap=False), factors=st.lists(st.floats(1.0, 30.0), min_size=2, max_size=3))
def test_a_faster_part_never_makes_a_step_longer(part: str, case: Case, factors: list[float]) -> None:
    """Bandwidth of either tier, FLOP/s, memory bandwidth, where nothing contends."""
    steps = [replace(case, cluster=_faster(case.cluster, part, factor)).predict().step_s for factor in (1.0, *sorted(factors))]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(steps))


@few
@given(case=cases(overlap=False))
def test_less_work_never_makes_a_step_longer(case: Case) -> None:
    """Half of the layers, half of the sequence, half of the micro-batches."""
    step_s = case.predict().step_s
    cut = case.plan.pp * case.plan.vpp
    shallow = gpt(layers=cut, hidden=case.model.hidden, seq_len=case.model.seq_len)
    assert replace(case, model=shallow).predict().step_s <= step_s * (1 + 1e-12)
    assert replace(case, recipe=replace(case.recipe, seq_len=case.model.seq_len // 2)).predict().step_s <= step_s * (1 + 1e-12)
    once = case.plan.dp * case.plan.micro_batch * case.plan.pp * rounds(case.plan.schedule)
    assert replace(case, recipe=replace(case.recipe, global_batch=once)).predict().step_s <= step_s * (1 + 1e-12)


def test_the_work_of_a_play_does_not_grow_with_the_replicas() -> None:
    """2 and 4,096 replicas play the same instructions; one replica only lacks its data-parallel exchange."""
    played = {dp: _scaled(dp).played(jump=True).instructions for dp in (1, 2, 4096)}
    assert played[2] == played[4096]
    assert played[1] <= played[2] <= played[1] + 4 * 2 * 8


def _scaled(dp: int) -> Case:
    plan = Plan(dp=dp, tp=2, pp=4, zero=1)
    return Case(
        model=gpt(layers=8), cluster=load_cluster(f"dgx-a100-80gb:{dp}"), plan=plan, recipe=Recipe(global_batch=8 * dp),
        software=quiet(load_software("megatron-lm")),
    )  # fmt: skip


def test_a_seed_changes_nothing_where_nothing_is_random() -> None:
    """This release draws no random numbers."""
    case = _scaled(2)
    one, two = (simulate(case.model, case.cluster, case.plan, case.recipe, software=case.software, seed=seed) for seed in (0, 7))
    assert one == two
