"""Slow devices, slow links and jitter: nothing when off, the closed forms of a straggler, directions, and one seed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretrain.errors import PlanError
from foretrain.hardware.load import load_cluster
from foretrain.sim.disturbance import Disturbance
from foretrain.sim.engine import Engine
from foretrain.sim.jitter import distribution
from foretrain.sim.lower import lower
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.report import prediction_to_dict
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from tests.sim.cases import gpt

MODEL = gpt(layers=4, hidden=1024, heads=8, seq_len=1024)
CLUSTER = load_cluster("dgx-a100-80gb:2")
SOFTWARE = load_software("megatron-lm")
PLANS = (
    Plan(dp=16), Plan(dp=2, tp=8), Plan(dp=4, tp=2, pp=2), Plan(dp=16, zero=3), Plan(dp=4, cp=4), Plan(dp=8, pp=2, zero=1),
)  # fmt: skip


def predict(plan: Plan, batch: int = 32, seed: int = 0, **disturbance: object) -> Prediction:
    kinds = Disturbance(**disturbance)  # type: ignore[arg-type]
    return simulate(MODEL, CLUSTER, plan, Recipe(global_batch=batch), software=SOFTWARE, disturbance=kinds, seed=seed)


@pytest.mark.parametrize("plan", PLANS)
def test_nothing_disturbed_changes_no_bit(plan: Plan) -> None:
    """A disturbance without anything in it is none."""
    calm = simulate(MODEL, CLUSTER, plan, Recipe(global_batch=32), software=SOFTWARE)
    assert prediction_to_dict(predict(plan)) == prediction_to_dict(calm)
    assert predict(plan).jitter is None


@pytest.mark.parametrize("plan", PLANS)
def test_one_slow_rank_holds_all_up_as_much_as_all_slow_ones(plan: Plan) -> None:
    """Replicas meet once a step and tensor ranks in every layer, so a straggler costs nearly what a slow machine would."""
    calm, one = predict(plan).step_s, predict(plan, ranks={3: 1.5}).step_s
    everything = predict(plan, nodes={0: 1.5, 1: 1.5}).step_s
    assert calm < one <= everything * (1 + 1e-9)
    if plan.pp == 1:
        assert one == pytest.approx(everything, rel=0.03)


@pytest.mark.parametrize("plan", PLANS)
def test_a_straggler_is_the_same_folded_and_unfolded(plan: Plan) -> None:
    """The replicas that hold a slow rank are a class of their own; playing all replicas one by one takes as long."""
    folded = predict(plan, ranks={3: 1.5})
    apart = predict(replace(plan, unfold=frozenset({"dp"})), ranks={3: 1.5})
    assert folded.step_s == pytest.approx(apart.step_s, rel=2e-3)
    assert sum(folded.breakdown.values()) == pytest.approx(folded.step_s, rel=1e-9)


@pytest.mark.parametrize("plan", [Plan(dp=2, tp=8), Plan(dp=4, cp=4)])
def test_a_slow_rank_of_a_group_is_the_same_folded_and_unfolded(plan: Plan) -> None:
    """A group keeps in step with its slowest member. Played apart, its quick members hide less of a collective than the slow one does."""
    dimension = "tp" if plan.tp > 1 else "cp"
    apart = predict(replace(plan, unfold=frozenset({dimension})), ranks={1: 1.3})
    assert predict(plan, ranks={1: 1.3}).step_s == pytest.approx(apart.step_s, rel=1.5e-2)


def test_more_slowness_takes_longer() -> None:
    """By as much as the factor adds to what one device computes, and that in proportion."""
    steps = [predict(Plan(dp=16), 256, ranks={0: factor}).step_s for factor in (1.1, 1.5, 3.0)]
    assert steps == sorted(steps)
    assert (steps[2] - steps[1]) / (steps[1] - steps[0]) == pytest.approx((3.0 - 1.5) / (1.5 - 1.1), rel=0.1)


CROSSING = (Plan(dp=16, zero=3), Plan(dp=16), Plan(dp=8, pp=2), Plan(tp=16, sequence_parallel=True))


@pytest.mark.parametrize("plan", CROSSING)
def test_a_slow_link_slows_what_crosses_it(plan: Plan) -> None:
    """Longer with a narrower link, in either direction of detail the same; a job in one node notices nothing."""
    model = gpt(layers=4, hidden=1024, heads=16, seq_len=1024)
    found = [
        simulate(model, CLUSTER, plan, Recipe(global_batch=32), software=SOFTWARE, disturbance=Disturbance(links=links)).step_s
        for links in ({}, {1: 4.0}, {1: 40.0})
    ]
    assert found[0] < found[1] < found[2] or plan.pp == 2
    assert found[0] < found[2]
    inside = Plan(dp=8)
    assert predict(inside, links={0: 40.0}).step_s == predict(inside).step_s


def test_a_transfer_over_a_narrow_link_takes_so_many_times_longer() -> None:
    """A tensor-parallel group over two nodes whose collectives are nearly all of the wire: 10 times narrower is nearly 10 times longer."""
    plan = Plan(tp=16, dp=1)
    model = gpt(layers=2, hidden=1024, heads=16, seq_len=8192)
    calm, slow = (
        simulate(model, CLUSTER, plan, Recipe(global_batch=4), software=SOFTWARE, disturbance=Disturbance(links=links))
        for links in ({}, {0: 10.0})
    )
    assert 4.0 < slow.breakdown["tensor_parallel"] / calm.breakdown["tensor_parallel"] <= 10.0 * (1 + 1e-6)


KINDS = (Disturbance(ranks={3: 1.5}), Disturbance(links={1: 8.0}), Disturbance(nodes={1: 1.2}, links={0: 3.0}))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("disturbance", KINDS)
def test_the_jump_is_as_exact_as_ever(plan: Plan, disturbance: Disturbance) -> None:
    """Nothing here is left to chance, so whole periods may be skipped, and kernel by kernel it is the same."""
    recipe = Recipe(global_batch=128)
    if disturbance.links and plan.ranks <= 8:
        return
    jumped, kernels = (
        simulate(MODEL, CLUSTER, plan, recipe, software=SOFTWARE, disturbance=disturbance, detail=detail) for detail in ("segment", "op")
    )
    played = Engine(lower(place(MODEL, CLUSTER, plan, recipe, disturbance), SOFTWARE).job).play()
    assert jumped.step_s == pytest.approx(played.step_s, rel=1e-9)
    assert jumped.step_s == pytest.approx(kernels.step_s, rel=1e-2)


def test_jitter_is_a_distribution_from_one_seed() -> None:
    """The same seed gives the same bits, another others; the step without chance stays what it is."""
    plan = Plan(dp=2, tp=4, pp=2)
    first, again, other = (predict(plan, seed=seed, jitter=0.05, samples=40) for seed in (1, 1, 2))
    assert first.jitter == again.jitter != other.jitter
    assert first.step_s == predict(plan).step_s
    assert first.jitter is not None
    low, middle, high = first.jitter.percentile_s.values()
    assert low < middle < high
    assert prediction_to_dict(first)["jitter"]["p50_s"] == middle


def test_more_jitter_and_more_ranks_that_wait_take_longer() -> None:
    """The mean of the slowest rises with the spread and with how many there are; of one rank alone the mean stays."""
    one = Plan(dp=1)
    alone = predict(one, 16, jitter=0.1, samples=200).jitter
    assert alone is not None
    # The standard error of 32 passes' mean over 200 draws: 0.1 / sqrt(32 · 200), so five of them are 0.6 %.
    assert alone.mean_s == pytest.approx(predict(one, 16).step_s, rel=0.01)
    spread = Plan(dp=16, unfold=frozenset({"dp"}))
    means = [found.jitter.mean_s for found in (predict(spread, jitter=sigma, samples=30) for sigma in (0.01, 0.05, 0.2)) if found.jitter]
    assert means == sorted(means)
    assert means[0] > predict(spread).step_s


def test_percentiles_lie_between_the_draws() -> None:
    """Of 1 to 101, the percentiles are the numbers themselves, plus one."""
    found = distribution([float(number) for number in range(101, 0, -1)])
    assert (found.mean_s, dict(found.percentile_s)) == (51.0, {5: 6.0, 50: 51.0, 95: 96.0})


REFUSED: tuple[tuple[dict[str, object], str], ...] = (
    ({"ranks": {99: 1.2}}, "from 0 to 15"),
    ({"nodes": {2: 1.2}}, "from 0 to 1"),
    ({"links": {5: 1.2}}, "from 0 to 1"),
    ({"links": {0: 0.5}}, "above 1"),
    ({"ranks": {0: 1.0}}, "changes nothing"),
    ({"ranks": {0: 0.0}}, "no factor"),
    ({"ranks": {-1: 2.0}}, "from 0"),
    ({"ranks": {0: float("nan")}}, "no factor"),
    ({"jitter": -0.1}, "from 0"),
    ({"jitter": 2.0}, "from 0 to 1"),
    ({"samples": 50}, "jitter is 0"),
    ({"jitter": 0.1, "samples": 1}, "from 2"),
    ({"jitter": 0.1, "samples": 10**9}, "use at most"),
)


@pytest.mark.parametrize(("disturbance", "remedy"), REFUSED)
def test_what_is_no_disturbance_is_refused(disturbance: dict[str, object], remedy: str) -> None:
    """With what would be one."""
    with pytest.raises(PlanError, match=remedy):
        predict(Plan(dp=16), **disturbance)  # type: ignore[arg-type]
