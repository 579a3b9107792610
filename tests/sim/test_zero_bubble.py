"""Schedules that split the backward pass or bend the pipeline: against torch's orders, and the formulas of their papers."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.schedules.base import BACKWARD, FORWARD, INPUT, WEIGHT
from foretrain.sim.schedules.registry import schedule_by_name
from tests.sim.orders import Span, Step, peak_held, play, steps

quick = settings(deadline=None, derandomize=True, max_examples=60)
seconds = st.floats(0.1, 10.0)
TORCH = {
    "looped-bfs": "ScheduleLoopedBFS", "interleaved-zb": "ScheduleInterleavedZeroBubble", "zb-v": "ScheduleZBVZeroBubble",
    "dualpipe-v": "ScheduleDualPipeV",
}  # fmt: skip
GRID = [
    (name, stages, chunks, microbatches)
    for name in TORCH
    for stages in (1, 2, 3, 4, 5, 8)
    for chunks in ((2,) if name in ("zb-v", "dualpipe-v") else (1, 2, 3, 4))
    for microbatches in (1, 2, 3, 5, 8, 9, 10, 16, 17, 18, 24, 40)
]


def ours(name: str, stages: int, chunks: int, microbatches: int) -> list[list[Step]]:
    """Return every stage's steps."""
    size = {"stages": stages, "chunks": chunks, "microbatches": microbatches}
    return [steps(schedule_by_name(name), stage=stage, **size) for stage in range(stages)]


def torch_order(name: str, stages: int, chunks: int, microbatches: int) -> list[list[Step]]:
    """Return every rank's steps in torch's schedule, its stages as chunks of ranks."""
    pipelining = pytest.importorskip("torch.distributed.pipelining.schedules")
    kinds = {
        pipelining.FORWARD: FORWARD, pipelining.FULL_BACKWARD: BACKWARD, pipelining.BACKWARD_INPUT: INPUT,
        pipelining.BACKWARD_WEIGHT: WEIGHT,
    }  # fmt: skip
    (line,) = schedule_by_name(name).seats.lines(stages=stages, chunks=chunks)
    own = [part for part, seat in enumerate(line) if seat.stage == 0]
    fakes = [SimpleNamespace(num_stages=len(line), group_size=stages, group_rank=0, stage_index=part, submod=None) for part in own]
    order = getattr(pipelining, TORCH[name])(fakes, microbatches).pipeline_order

    def step(action: Any) -> Step:
        parts = action.sub_actions or (action,)
        return tuple((kinds[part.computation_type], line[part.stage_index].chunk, part.microbatch_index) for part in parts)

    return [[step(action) for action in order[rank] if action] for rank in range(stages)]


def test_orders_are_torchs_step_by_step() -> None:
    """Passes, micro-batch numbers and overlapped pairs equal torch's over a grid of sizes; what one refuses, the other does."""
    pytest.importorskip("torch.distributed.pipelining.schedules")
    compared = 0
    for case in GRID:
        try:
            expected = torch_order(*case)
        except ValueError:
            with pytest.raises(PlanError):
                ours(*case)
        else:
            compared += 1
            assert ours(*case) == expected, case
    assert compared > 300


@pytest.mark.parametrize("stages", [1, 2, 4, 7])
@pytest.mark.parametrize("microbatches", [1, 3, 8, 21])
def test_h1_is_interleaved_zero_bubble_of_one_chunk(stages: int, microbatches: int) -> None:
    """ZB-H1 is what torch's interleaved schedule becomes with one chunk, where that one takes the micro-batches."""
    rounds = max(1, microbatches // stages)
    if microbatches % rounds == 0:
        assert ours("zb-h1", stages, 1, microbatches) == torch_order("interleaved-zb", stages, 1, microbatches)


@quick
@given(st.integers(1, 8), st.integers(0, 20), seconds, seconds, st.floats(0.0, 1.0))
def test_h1_has_the_bubble_of_its_paper(stages: int, more: int, forward_s: float, input_s: float, share: float) -> None:
    """(p - 1)(F + B - W) for W up to B, F: arXiv:2401.10241, table 2 (its B is the gradient of the input)."""
    weight_s = share * min(forward_s, input_s)
    spans = played("zb-h1", stages, 2 * stages + more, forward_s, input_s, weight_s)
    assert max(span.bubble_s for span in spans) == pytest.approx((stages - 1) * (forward_s + input_s - weight_s), abs=1e-9)
    assert makespan(spans) - spans[0].work_s == pytest.approx((stages - 1) * (forward_s + input_s - weight_s), abs=1e-9)


@quick
@given(st.integers(1, 8), st.integers(0, 20), seconds, st.floats(1.0, 2.0), st.floats(0.0, 1.0))
def test_h2_has_the_bubble_of_its_paper(stages: int, more: int, forward_s: float, longer: float, share: float) -> None:
    """(p - 1)(F + B - 2W) between a stage's first pass and its last, for W up to F up to B: arXiv:2401.10241, table 2."""
    input_s, weight_s = forward_s * longer, share * forward_s
    spans = played("zb-h2", stages, 3 * stages + more, forward_s, input_s, weight_s)
    assert max(span.bubble_s for span in spans) == pytest.approx((stages - 1) * (forward_s + input_s - 2 * weight_s), abs=1e-9)


@quick
@given(st.sampled_from(("zb-h2", "zb-v")), st.integers(1, 8), st.integers(0, 20), seconds)
def test_equal_passes_leave_no_bubble(name: str, stages: int, more: int, slot_s: float) -> None:
    """Where F = B = W no stage waits between its first pass and its last: arXiv:2401.10241, section 2.2; arXiv:2405.15362, section 4."""
    spans = played(name, stages, 2 * stages + more, slot_s, slot_s, slot_s)
    assert [span.bubble_s for span in spans] == pytest.approx([0.0] * stages, abs=1e-9)


@quick
@given(st.integers(1, 8), st.integers(0, 20), seconds, st.floats(0.0, 1.0))
def test_dualpipe_has_the_bubble_of_its_paper(half: int, more: int, forward_s: float, share: float) -> None:
    """(p/2 - 1)(F&B + B - 3W), B the whole backward, where forward and the gradient of the input are equal: arXiv:2412.19437, table 2.

    DualPipeV on half of the stages has the same (github.com/deepseek-ai/DualPipe).
    """
    weight_s = share * forward_s
    backward_s = forward_s + weight_s
    bubble_s = (half - 1) * ((forward_s + backward_s) + backward_s - 3 * weight_s)
    for name, stages, microbatches in (("dualpipe", 2 * half, 4 * half + 2 * more), ("dualpipe-v", half, 2 * half + more)):
        spans = played(name, stages, microbatches, forward_s, forward_s, weight_s)
        assert max(span.bubble_s for span in spans) == pytest.approx(bubble_s, abs=1e-9)
        assert makespan(spans) - spans[0].work_s == pytest.approx(bubble_s, abs=1e-9)


@quick
@given(st.integers(1, 8), st.integers(1, 4), st.integers(2, 5), seconds)
def test_interleaved_zero_bubble_divides_the_bubble(stages: int, chunks: int, rounds: int, slot_s: float) -> None:
    """Equal passes leave p - 1 of them, a chunk's each, where interleaved 1F1B leaves 3(p - 1) of that length."""
    spans = played("interleaved-zb", stages, rounds * stages, slot_s, slot_s, slot_s, chunks=chunks)
    assert makespan(spans) - spans[0].work_s == pytest.approx((stages - 1) * slot_s, abs=1e-9)


@quick
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 30), seconds, seconds)
def test_breadth_first_takes_gpipes_bubble_over_the_chunks(
    stages: int, chunks: int, more: int, forward_s: float, backward_s: float
) -> None:
    """(p - 1)(F + B) of a chunk, where the micro-batches fill the stages: arXiv:2211.05953, section 4.1."""
    spans = played("looped-bfs", stages, stages - 1 + more, forward_s, backward_s, 0.0, chunks=chunks)
    assert makespan(spans) - spans[0].work_s == pytest.approx((stages - 1) * (forward_s + backward_s), rel=1e-9, abs=1e-9)


HELD = {
    "zb-h1": lambda stages: stages, "zb-h2": lambda stages: 2 * stages - 1, "zb-v": lambda stages: 2 * stages,
    "dualpipe": lambda stages: stages + 1, "dualpipe-v": lambda stages: 2 * stages + 1,
    "interleaved-zb": lambda stages: 2 * stages,
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("stages", [2, 4, 8, 12])
def test_every_stage_holds_what_the_papers_say(name: str, stages: int) -> None:
    """Passes held until the gradients of their weights.

    H1 p and H2 2p - 1 (arXiv:2401.10241, table 2), V 2p of half a stage each (arXiv:2405.15362, table 1), DualPipe p + 1 of p parts and
    DualPipeV as much of its 2p parts (github.com/deepseek-ai/DualPipe); interleaved zero bubble p of two chunks each, as ZB-H1.
    """
    orders = ours(name, stages, 2 if name in ("zb-v", "dualpipe-v", "interleaved-zb") else 1, 6 * stages)
    assert [peak_held(order, until=WEIGHT) for order in orders] == [HELD[name](stages)] * stages


def test_orders_of_thousands_of_micro_batches_take_milliseconds() -> None:
    """Sixty-four stages, ten thousand micro-batches: under 20 ms a schedule, best of 5."""
    for name, chunks in (("zb-h1", 1), ("zb-h2", 1), ("interleaved-zb", 3), ("zb-v", 2), ("dualpipe", 1), ("dualpipe-v", 2)):
        assert min(_timed(name, chunks) for _ in range(5)) < 0.020, name


def test_refusals_name_what_would_do() -> None:
    """Odd stages, odd or few micro-batches, and the wrong number of chunks."""
    for name, size, match in (
        ("dualpipe", (5, 1, 20), "pp=5; use pp=4 or 6"),
        ("dualpipe", (4, 1, 11), "nearest that it can: 10 or 12"),
        ("dualpipe", (4, 1, 6), "nearest that it can: 8"),
        ("dualpipe-v", (4, 2, 7), "at least 8 micro-batches, not 7"),
        ("zb-v", (4, 1, 8), "vpp=1; use vpp=2"),
    ):
        with pytest.raises(PlanError, match=match):
            ours(name, *size)


def played(name: str, stages: int, microbatches: int, forward_s: float, input_s: float, weight_s: float, *, chunks: int = 0) -> list[Span]:
    """Return every stage's span where a pass of a chunk takes so long."""
    lasts = {FORWARD: forward_s, INPUT: input_s, WEIGHT: weight_s, BACKWARD: input_s + weight_s}
    chunks = chunks or (2 if name in ("zb-v", "dualpipe-v") else 1)
    return play(schedule_by_name(name), stages=stages, chunks=chunks, microbatches=microbatches, seconds=lasts)


def makespan(spans: list[Span]) -> float:
    """Return when the last stage is done."""
    return max(span.last_s for span in spans)


def _timed(name: str, chunks: int) -> float:
    schedule = schedule_by_name(name)
    start = time.perf_counter()
    for stage in range(64):
        schedule.order(stage=stage, stages=64, chunks=chunks, microbatches=64 * 160)
    return time.perf_counter() - start
