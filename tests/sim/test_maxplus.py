"""The recursion without an engine gives the engine's times."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.engine import Engine
from foretrain.sim.maxplus import evaluate
from foretrain.sim.plan import Plan
from foretrain.sim.program import RECEIVE, SEND, SEND_AND_WAIT, ChannelSpec
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.segment import SegmentBook
from tests.sim import hand
from tests.sim.cases import Case, cases, irregular
from tests.sim.hand import GPIPE, INTERLEAVED, ONE_F_ONE_B
from tests.sim.jobs import Pipeline, job, once, program, transfer

some = settings(deadline=None, derandomize=True, max_examples=80)
lengths = st.tuples(st.floats(0.01, 4.0), st.floats(0.01, 4.0))


@some
@given(
    st.sampled_from(((ONE_F_ONE_B, 1), (GPIPE, 1), (INTERLEAVED, 2), (INTERLEAVED, 3))),
    st.integers(1, 5), st.integers(1, 5), st.data(), st.sampled_from((SEND, SEND_AND_WAIT)), st.floats(0.0, 2.0), st.floats(0.0, 3.0),
)  # fmt: skip
def test_random_pipelines_take_the_same_times(  # noqa: PLR0917 - one argument per thing drawn
    schedule: tuple[Schedule, int], stages: int, rounds: int, data: st.DataObject, send: int, message_s: float, host_s: float
) -> None:
    """Every rank is done at the same moment to 1e-9, whatever the stages, messages, launches and schedule."""
    chunks = schedule[1] if stages > 1 else 1
    pipeline = Pipeline(schedule[0], stages=stages, microbatches=rounds * stages, chunks=chunks)
    pipeline.message, pipeline.send, pipeline.host_s = transfer(message_s, latency_s=0.2), send, host_s
    made = pipeline.job(data.draw(st.lists(lengths, min_size=stages * chunks, max_size=stages * chunks)))
    for queue_depth_s in (1e9, 0.5):
        limited = replace(made, queue_depth_s=queue_depth_s)
        played, times = Engine(limited).play(), evaluate(limited)
        assert times.step_s == pytest.approx(played.step_s, rel=1e-9)
        assert times.done_s == pytest.approx([rank.done_s for rank in played.ranks], rel=1e-9)


@some
@given(st.one_of(cases(overlap=False), irregular()))
def test_training_jobs_take_the_same_times_or_are_refused(case: Case) -> None:
    """Of lowered jobs it serves those without overlap and contention, and refuses every one that contends."""
    lowered = case.lowered().job
    played = Engine(lowered).play()
    try:
        times = evaluate(lowered)
    except PlanError:
        return
    assert played.shares == 0
    assert times.done_s == pytest.approx([rank.done_s for rank in played.ranks], rel=1e-9)


def test_most_quiet_jobs_are_served() -> None:
    """Replicas, stages and tensor-parallel groups without overlap, one job of each kind of state."""
    for zero, degrees in product((0, 1, 3), ({"dp": 8, "pp": 2}, {"dp": 4, "tp": 2})):
        case = _quiet_case(zero=zero, **degrees)
        assert evaluate(case.lowered().job).step_s == pytest.approx(case.played().step_s, rel=1e-9)


def _quiet_case(**degrees: Any) -> Case:
    model = hand.linear_model(layers=8, boundary=True)
    return Case(model=model, cluster=hand.cluster(nodes=2), plan=Plan(**degrees), recipe=Recipe(global_batch=16), software=hand.software())


def test_a_job_with_overlap_is_refused_with_the_remedy() -> None:
    """A reduction behind the backward pass has no max-plus time."""
    case = replace(_quiet_case(dp=2), software=hand.software(overlap=replace(hand.OVERLAP, pipeline=False)))
    with pytest.raises(PlanError, match="runs beside compute, which max-plus times cannot follow; use the engine"):
        evaluate(case.lowered().job)


def test_a_job_with_contention_is_refused() -> None:
    """Messages that take longer than the passes between them, and the whole NIC."""
    pipeline = Pipeline(ONE_F_ONE_B, stages=3, microbatches=8)
    pipeline.message = transfer(3.0, network=1.0)
    made = pipeline.job([(1.0, 1.0)] * 3)
    assert Engine(made).play().shares > 0
    with pytest.raises(PlanError, match="transfers share node"):
        evaluate(made)


def test_programs_that_wait_for_each_other_are_refused() -> None:
    """A receive without a send."""
    channel = ChannelSpec(source=0, target=1, cost=transfer(1.0))
    made = job([program(0, once()), program(1, once((RECEIVE, 0)))], SegmentBook(), channels=[channel])
    with pytest.raises(PlanError, match="wait for each other"):
        evaluate(made)
    with pytest.raises(RuntimeError, match="deadlock: stage 1"):
        Engine(made).play()
