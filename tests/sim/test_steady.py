"""The steady-state jump tells what the full play tells."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.sim.breakdown import rank_breakdown
from foretrain.sim.engine import Engine, Played
from foretrain.sim.program import SEND, SEND_AND_WAIT, Job
from foretrain.sim.rank import Rank
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.steady import SteadyState
from tests.sim.cases import Case, cases, irregular
from tests.sim.hand import GPIPE, INTERLEAVED, ONE_F_ONE_B
from tests.sim.jobs import Pipeline, transfer

some = settings(deadline=None, derandomize=True, max_examples=60)


def both(job: Job) -> tuple[Played, Played, int]:
    """Return the full play, the play with jumps, and how many periods were jumped."""
    watcher = SteadyState()
    return Engine(job).play(), Engine(job, watcher=watcher).play(), watcher.jumped


def assert_same(full: Played, jumped: Played, job: Job) -> None:
    """Hold every total of every rank of two plays together.

    Shares of a link can come to their period step by step, so totals agree as well as two states have to: far below 1e-9 of the step.
    """
    assert jumped.step_s == pytest.approx(full.step_s, rel=1e-9)
    for one, other in zip(full.ranks, jumped.ranks, strict=True):
        assert other.counts == one.counts
        assert other.done_s == pytest.approx(one.done_s, rel=1e-9)
        assert totals(other, job) == pytest.approx(totals(one, job), rel=1e-9, abs=1e-9 * full.step_s)
        assert (other.peak, other.peak_activations) == pytest.approx((one.peak, one.peak_activations), rel=1e-9)


def totals(rank: Rank, job: Job) -> dict[str, float]:
    """Return the breakdown of a rank and what else it adds up."""
    moved = {f"moved {kind}": seconds for kind, seconds in rank.moved.items()}
    other: dict[str, Any] = {"link_bytes": rank.link_bytes, "messages_s": rank.messages_s, "activations": rank.activations}
    return {**rank_breakdown(rank, job.segments), **moved, **other}


@some
@given(st.one_of(cases(most_microbatches=150), irregular()))
def test_the_jump_equals_the_full_play(case: Case) -> None:
    """Times, counts, energies, breakdown and peak memory, under contention too."""
    job = case.lowered().job
    full, jumped, _ = both(job)
    assert_same(full, jumped, job)


@some
@given(
    st.sampled_from(((ONE_F_ONE_B, 1), (GPIPE, 1), (INTERLEAVED, 2), (INTERLEAVED, 3))),
    st.integers(2, 5), st.integers(10, 40), st.data(), st.sampled_from((SEND, SEND_AND_WAIT)), st.floats(0.0, 2.0),
    st.sampled_from((0.4, 1.0)),
)  # fmt: skip
def test_unequal_stages_come_to_a_period(  # noqa: PLR0917 - one argument per thing drawn
    schedule: tuple[Schedule, int], stages: int, rounds: int, data: st.DataObject, send: int, message_s: float, share: float
) -> None:
    """Stages of random length with messages of random length, which share their NICs where they take all of them."""
    pipeline = Pipeline(schedule[0], stages=stages, microbatches=rounds * stages, chunks=schedule[1])
    pipeline.message, pipeline.send = transfer(message_s, latency_s=0.1, network=share), send
    lengths = st.tuples(st.integers(1, 4), st.integers(1, 4))
    job = pipeline.job(data.draw(st.lists(lengths, min_size=stages * schedule[1], max_size=stages * schedule[1])))
    full, jumped, _ = both(job)
    assert_same(full, jumped, job)


@pytest.mark.parametrize(("schedule", "chunks"), [(ONE_F_ONE_B, 1), (GPIPE, 1), (INTERLEAVED, 2)])
@pytest.mark.parametrize("message_s", [0.0, 0.3, 0.9])
def test_a_long_pipeline_is_jumped(schedule: Schedule, chunks: int, message_s: float) -> None:
    """400 micro-batches of four stages: most are jumped, and few instructions are played."""
    pipeline = Pipeline(schedule, stages=4, microbatches=400, chunks=chunks)
    pipeline.message = transfer(message_s, network=1.0)
    job = pipeline.job([(1.0, 2.0)] * 4 * chunks)
    full, jumped, periods = both(job)
    assert periods > 0
    assert jumped.instructions < full.instructions / 2
    assert_same(full, jumped, job)


def test_a_long_iteration_is_played_three_times_at_most() -> None:
    """Interleaved iterations are 96 passes long; the match is seen within one, and the jump lands in the tail that begins like one."""
    pipeline = Pipeline(INTERLEAVED, stages=16, microbatches=16 * 40, chunks=3)
    pipeline.message = transfer(0.1, network=1.0)
    job = pipeline.job([(1.0, 2.0)] * 48)
    full, jumped, _ = both(job)
    assert jumped.instructions <= 3 * full.instructions / 40
    assert_same(full, jumped, job)


@pytest.mark.parametrize("microbatches", [100, 1000])
def test_memory_that_grows_with_the_micro_batches_is_jumped_with_them(microbatches: int) -> None:
    """GPipe holds every micro-batch at its peak, whether it was played or jumped."""
    job = Pipeline(GPIPE, stages=3, microbatches=microbatches).job([(1.0, 2.0)] * 3)
    _, jumped, periods = both(job)
    assert periods > 0
    assert [rank.peak for rank in jumped.ranks] == [microbatches] * 3


def test_a_transient_is_played_to_its_end() -> None:
    """A slow last stage fills the queues before it sets the pace; the jump waits for it."""
    pipeline = Pipeline(ONE_F_ONE_B, stages=4, microbatches=300)
    job = pipeline.job([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.1, 1.3)])
    full, jumped, periods = both(job)
    assert periods > 0
    assert_same(full, jumped, job)
