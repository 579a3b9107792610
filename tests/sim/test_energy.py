"""Energy: the integral of power over the timeline, and figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.sim.energy import baseline_w, dynamic_j
from foretrain.sim.engine import Engine
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.recorder import TimelineRecorder
from foretrain.sim.simulate import simulate
from foretrain.sim.trace import power_steps
from tests.sim import hand
from tests.sim.cases import Case, cases, irregular


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.one_of(cases(), irregular()), st.sampled_from(("segment", "op")))
def test_energy_is_the_integral_of_power(case: Case, detail: str) -> None:
    """Of every rank: baseline · time plus what its instructions added equals ∫ power dt over its timeline."""
    job, link_j = case.lowered().job, case.cluster.accelerator.power.link_j_per_byte
    recorder = TimelineRecorder(job, (0.0,) * case.plan.pp, link_j)
    played = Engine(job, ops=detail == "op", recorder=recorder).play()
    timeline = recorder.timeline(played.step_s, sum(baseline_w(case.cluster).values()), played.ranks)
    for rank in played.ranks:
        times_s, watts = power_steps(timeline, rank.index)
        integral_j = float(np.sum(np.diff(times_s) * watts[:-1]))
        total_j = timeline.baseline_w * played.step_s + sum(dynamic_j(rank, job.segments, link_j).values())
        assert integral_j == pytest.approx(total_j, rel=1e-9)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.one_of(cases(), irregular()))
def test_energy_is_that_of_the_timeline_s_ranks_together(case: Case) -> None:
    """Summed over ranks by multiplicity, with the facility's overhead on top, the timeline gives the prediction's energy."""
    prediction = case.predict()
    timeline = prediction.timeline()
    added_j = {rank.index: 0.0 for rank in timeline.ranks}
    for piece in timeline.slices:
        added_j[piece.rank] += piece.joules
    it_j = sum(rank.multiplicity * (timeline.baseline_w * timeline.step_s + added_j[rank.index]) for rank in timeline.ranks)
    assert prediction.energy_j == pytest.approx(case.cluster.facility.pue / case.cluster.node.supply_efficiency * it_j, rel=1e-9)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.one_of(cases(), irregular()))
def test_slices_of_a_stream_do_not_overlap(case: Case) -> None:
    """A stream does one thing at a time, and slices come in the order they began."""
    timeline = case.predict().timeline()
    free_s: dict[tuple[int, int], float] = {}
    assert [piece.start_s for piece in timeline.slices] == sorted(piece.start_s for piece in timeline.slices)
    for piece in timeline.slices:
        assert piece.start_s >= free_s.get((piece.rank, piece.stream), 0.0) - 1e-12 * timeline.step_s
        assert piece.stream < len(timeline.streams)
        free_s[piece.rank, piece.stream] = piece.start_s + piece.duration_s
    assert max(free_s.values()) <= timeline.step_s * (1 + 1e-12)


def test_one_product_by_hand() -> None:
    """3 products of 2 GFLOP at 0.1 nJ/FLOP, 6 MB each at 0.1 nJ/B, 50 W busy and 225 W baseline (100 idle, 800/8 host, 25 network)."""
    prediction = simulate(hand.linear_model(layers=1), hand.cluster(), Plan(), Recipe(global_batch=1), software=hand.software())
    optimizer_bytes = 1e6 * (4 + 2 * 12 + 2 + 4 + 4)
    assert prediction.step_s == pytest.approx(6e-3 + optimizer_bytes / 1e12)
    parts_j = {
        "idle": 100 * prediction.step_s, "host": 100 * prediction.step_s, "network": 25 * prediction.step_s,
        "math": 6e9 * 1e-10, "memory": (3 * 6e6 + optimizer_bytes) * 1e-10, "links": 0.0, "busy": 50 * prediction.step_s,
    }  # fmt: skip
    assert dict(prediction.energy) == pytest.approx({**parts_j, "facility": 0.25 * sum(parts_j.values())})
    assert prediction.electricity_usd == pytest.approx(prediction.energy_j / 3.6e6 * 0.1)
    assert prediction.co2_g == pytest.approx(prediction.energy_j / 3.6e6 * 400)
    assert prediction.cost_usd == pytest.approx(prediction.step_s / 3600 * 36 / 8)


def test_every_byte_on_a_link_costs_its_joules() -> None:
    """Two replicas each put 2(n - 1)/n · 4 MB on their ports; two stages send 2 MB forth and back."""
    link_j = hand.POWER.link_j_per_byte
    plan = Plan(dp=2)
    reduced = simulate(hand.linear_model(layers=1), hand.cluster(), plan, Recipe(global_batch=2), software=hand.software())
    assert reduced.energy["links"] == pytest.approx(2 * 4e6 * link_j)
    model = hand.linear_model(layers=2, boundary=True)
    sent = simulate(model, hand.cluster(), Plan(pp=2), Recipe(global_batch=3), software=hand.software())
    assert sent.energy["links"] == pytest.approx(3 * 2 * 2e6 * link_j)


def test_energy_that_hides_is_not_lost() -> None:
    """Overlap changes time, not the joules of the work."""
    overlap = replace(hand.NO_OVERLAP, gradient_reduce=True, gradient_bucket_bytes=1.0)
    model, plan, recipe = hand.linear_model(layers=4), Plan(dp=4), Recipe(global_batch=8)
    plain = simulate(model, hand.cluster(), plan, recipe, software=hand.software())
    beside = simulate(model, hand.cluster(), plan, recipe, software=hand.software(overlap=overlap))
    assert beside.step_s < plain.step_s
    for part in ("math", "memory", "links", "busy"):
        assert beside.energy[part] == pytest.approx(plain.energy[part])
