"""Two levels of detail, one answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import UsageError
from foretrain.sim.breakdown import breakdown
from foretrain.sim.engine import Engine
from tests.sim.cases import Case, cases, irregular, quiet

some = settings(deadline=None, derandomize=True, max_examples=60)


@some
@given(st.one_of(cases(overlap=False), irregular()))
def test_details_agree(case: Case) -> None:
    """Kernel by kernel or segment by segment: within 1 % where transfers share a link.

    Where none do, and no collective runs beside compute, a segment is the exact composition of its kernels.
    """
    lowered = case.lowered()
    segments, ops = Engine(lowered.job).play(), Engine(lowered.job, ops=True).play()
    assert ops.step_s == pytest.approx(segments.step_s, rel=0.01 if segments.shares or ops.shares else 0.001)
    if not segments.shares and not ops.shares and case.software == quiet(case.software):
        assert ops.step_s == pytest.approx(segments.step_s, rel=1e-9)
        seconds = breakdown(segments.ranks, lowered.job.segments)
        assert breakdown(ops.ranks, lowered.job.segments) == pytest.approx(seconds, rel=1e-9, abs=1e-9 * segments.step_s)
        assert [rank.peak for rank in ops.ranks] == [rank.peak for rank in segments.ranks]
        assert [rank.counts for rank in ops.ranks] == [rank.counts for rank in segments.ranks]


@some
@given(cases(overlap=True))
def test_details_agree_under_overlap(case: Case) -> None:
    """With reductions, gathers and sends beside compute: within 1 %."""
    segments, ops = case.predict(), case.predict("op")
    assert ops.step_s == pytest.approx(segments.step_s, rel=0.01)
    assert ops.energy_j == pytest.approx(segments.energy_j, rel=0.01)


@some
@given(cases())
def test_a_timeline_lasts_as_long_as_the_prediction(case: Case) -> None:
    """The replay, which never jumps, ends with the step, in both details."""
    for detail in ("segment", "op"):
        prediction = case.predict(detail)
        assert prediction.timeline(detail).step_s == pytest.approx(prediction.step_s, rel=1e-10)


@given(cases())
@settings(max_examples=1, deadline=None, derandomize=True)
def test_an_unknown_detail_is_refused_with_the_known_ones(case: Case) -> None:
    """The message names both."""
    with pytest.raises(UsageError, match="detail='kernel' is unknown; use one of segment, op"):
        case.predict("kernel")
