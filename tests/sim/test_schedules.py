"""Schedules against torch's own pipelining module, closed forms and an executor of their dependencies."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.schedules.base import BACKWARD, FORWARD, INPUT, WEIGHT, Order, Schedule, unrolled
from foretrain.sim.schedules.gpipe import GPipe
from foretrain.sim.schedules.interleaved import InterleavedOneForwardOneBackward, round_size, warmup_passes
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward
from foretrain.sim.schedules.registry import SCHEDULES, schedule_by_name
from tests.sim.orders import play

Pass = tuple[int, int, int]
quick = settings(deadline=None, derandomize=True, max_examples=60)
INTERLEAVED = InterleavedOneForwardOneBackward()


LOOPING = ("interleaved-1f1b", "looped-bfs", "interleaved-zb")
BENT = ("zb-v", "dualpipe-v")
ONE_CHUNK = ("gpipe", "1f1b", "zb-h1", "zb-h2", "dualpipe")


@st.composite
def cases(draw: st.DrawFn, names: Sequence[str] = tuple(SCHEDULES)) -> tuple[Schedule, int, int, int]:
    """Draw a schedule with stages, chunks and micro-batches that it serves."""
    schedule = schedule_by_name(draw(st.sampled_from(sorted(names))))
    stages, rounds = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    chunks = draw(st.integers(1, 4)) if schedule.name in LOOPING else 2 if schedule.name in BENT else 1
    if schedule.name == "dualpipe":
        stages = 2 * draw(st.integers(1, 5))
        return schedule, stages, chunks, 2 * stages + 2 * draw(st.integers(0, 12))
    if schedule.name == "dualpipe-v":
        return schedule, stages, chunks, 2 * stages + draw(st.integers(0, 12))
    extra = draw(st.integers(0, max(0, (stages - 1) // rounds)))
    microbatches = rounds * (stages + extra) if rounds > 1 or draw(st.booleans()) else draw(st.integers(1, stages))
    return schedule, stages, chunks, microbatches


def passes(schedule: Schedule, *, stages: int, chunks: int, microbatches: int) -> list[list[Pass]]:
    """Return every stage's passes, in turn."""
    orders = (schedule.order(stage=stage, stages=stages, chunks=chunks, microbatches=microbatches) for stage in range(stages))
    return [list(unrolled(order)) for order in orders]


class RecordingStage:
    """Stands where torch's schedules expect a pipeline stage and notes the passes it is told to run."""

    is_first = is_last = False

    def __init__(self, stage: int, stages: int) -> None:
        self.stage_index, self.num_stages = stage, stages
        self.seen: list[Pass] = []

    def forward_one_chunk(self, index: int, *_: Any, **__: Any) -> None:
        """Note a forward."""
        self.seen.append((FORWARD, 0, index))

    def backward_one_chunk(self, index: int, **_: Any) -> None:
        """Note a backward."""
        self.seen.append((BACKWARD, 0, index))

    def get_fwd_recv_ops(self, _: int) -> list[Any]:
        """Exchange nothing with other stages."""
        return []

    get_fwd_send_ops = get_bwd_recv_ops = get_bwd_send_ops = get_fwd_recv_ops

    def perform_reduce_grad(self, _: int) -> None:
        """Reduce nothing."""


def torch_single(kind: str, stage: int, stages: int, microbatches: int) -> list[Pass]:
    """Return the passes that a step of torch's schedule of that name runs on one stage."""
    pipelining = pytest.importorskip("torch.distributed.pipelining.schedules")
    recording = RecordingStage(stage, stages)
    schedule = getattr(pipelining, kind)(recording, microbatches)
    schedule._initialize_stage = lambda *_: None  # it would exchange shapes between processes
    schedule._step_microbatches([()] * microbatches, [{}] * microbatches)
    return recording.seen


def torch_interleaved(stages: int, chunks: int, microbatches: int) -> list[list[Pass]]:
    """Return every rank's passes in torch's interleaved schedule, which numbers the stages rank + chunk · stages."""
    pipelining = pytest.importorskip("torch.distributed.pipelining.schedules")
    fakes = [
        SimpleNamespace(num_stages=stages * chunks, group_size=stages, group_rank=0, stage_index=chunk * stages) for chunk in range(chunks)
    ]
    order = pipelining.ScheduleInterleaved1F1B(fakes, microbatches).pipeline_order
    kinds = {pipelining.FORWARD: FORWARD, pipelining.FULL_BACKWARD: BACKWARD}
    return [[(kinds[a.computation_type], a.stage_index // stages, a.microbatch_index) for a in order[rank] if a] for rank in range(stages)]


@pytest.mark.parametrize(("kind", "schedule"), [("ScheduleGPipe", GPipe()), ("Schedule1F1B", OneForwardOneBackward())])
@pytest.mark.parametrize(("stages", "microbatches"), [(1, 1), (1, 4), (2, 2), (3, 7), (4, 8), (8, 8), (8, 33)])
def test_one_chunk_schedules_run_what_torch_runs(kind: str, schedule: Schedule, stages: int, microbatches: int) -> None:
    """A real step of torch's schedule visits the same passes of the same micro-batches, one by one."""
    ours = passes(schedule, stages=stages, chunks=1, microbatches=microbatches)
    assert ours == [torch_single(kind, stage, stages, microbatches) for stage in range(stages)]


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_interleaved_orders_what_torch_orders(stages: int, chunks: int, rounds: int) -> None:
    """Passes and micro-batch numbers equal torch's where micro-batches divide by the stages."""
    microbatches = stages * rounds
    assert passes(INTERLEAVED, stages=stages, chunks=chunks, microbatches=microbatches) == torch_interleaved(stages, chunks, microbatches)


@pytest.mark.parametrize(("stages", "microbatches"), [(4, 10), (4, 3), (4, 1), (4, 7), (8, 22), (6, 5), (5, 18), (8, 30)])
def test_interleaved_stretches_rounds_as_torch_does(stages: int, microbatches: int) -> None:
    """Where they do not divide by the stages but by the rounds, the order is torch's as well."""
    assert passes(INTERLEAVED, stages=stages, chunks=3, microbatches=microbatches) == torch_interleaved(stages, 3, microbatches)


@quick
@given(stages=st.integers(1, 8), microbatches=st.integers(1, 40))
def test_interleaved_accepts_exactly_what_torch_accepts(stages: int, microbatches: int) -> None:
    """A refusal of ours is a refusal of torch's, and the counts that it names are accepted."""
    try:
        round_size(stages=stages, microbatches=microbatches)
    except PlanError as error:
        with pytest.raises(ValueError, match="multiple of the number of rounds"):
            torch_interleaved(stages, 2, microbatches)
        below, above = (int(word) for word in str(error).split("nearest that can be: ")[1].split(" (")[0].split(" and "))
        assert below < microbatches < above
        assert round_size(stages=stages, microbatches=below) >= 1 <= round_size(stages=stages, microbatches=above)
    else:
        torch_interleaved(stages, 2, microbatches)


@quick
@given(cases())
def test_every_pass_appears_once_and_forward_comes_first(case: tuple[Schedule, int, int, int]) -> None:
    """Each chunk runs every micro-batch of its line forward, then gives gradients of its input, then of its weights, once each."""
    schedule, stages, chunks, microbatches = case
    lines = schedule.seats.lines(stages=stages, chunks=chunks)
    each = microbatches // len(lines)
    for stage, actions in enumerate(passes(schedule, stages=stages, chunks=chunks, microbatches=microbatches)):
        gives = {FORWARD: (FORWARD,), BACKWARD: (INPUT, WEIGHT), INPUT: (INPUT,), WEIGHT: (WEIGHT,)}
        given = [(what, chunk, index) for kind, chunk, index in actions for what in gives[kind]]
        own = [seat.chunk for line in lines for seat in line if seat.stage == stage]
        assert Counter(given) == Counter((k, c, m) for k in (FORWARD, INPUT, WEIGHT) for c in own for m in range(each))
        at = {action: position for position, action in enumerate(given)}
        assert all(at[FORWARD, c, m] < at[INPUT, c, m] < at[WEIGHT, c, m] for c in own for m in range(each))


@quick
@given(cases())
def test_no_order_waits_for_itself(case: tuple[Schedule, int, int, int]) -> None:
    """Played with each pass waiting for its neighbour on its line, all stages finish."""
    schedule, stages, chunks, microbatches = case
    assert finish_slots(schedule, stages=stages, chunks=chunks, microbatches=microbatches) > 0


@quick
@given(stages=st.integers(1, 8), chunks=st.integers(1, 4), rounds=st.integers(1, 5))
def test_interleaving_divides_the_bubble_by_the_chunks(stages: int, chunks: int, rounds: int) -> None:
    """With equal passes of 1/chunks slot the step takes 2 (m + (p - 1) / v) slots: arXiv:2104.04473, section 2.2.2."""
    microbatches = stages * rounds
    slots = finish_slots(INTERLEAVED, stages=stages, chunks=chunks, microbatches=microbatches)
    assert slots == 2 * (chunks * microbatches + stages - 1)


@quick
@given(stages=st.integers(1, 9), microbatches=st.integers(1, 30), name=st.sampled_from(["gpipe", "1f1b"]))
def test_one_chunk_schedules_take_the_closed_form(stages: int, microbatches: int, name: str) -> None:
    """Equal passes take 2 (m + p - 1) slots: arXiv:1811.06965, section 2.3."""
    slots = finish_slots(schedule_by_name(name), stages=stages, chunks=1, microbatches=microbatches)
    assert slots == 2 * (microbatches + stages - 1)


@quick
@given(cases(("gpipe", "1f1b", "interleaved-1f1b")))
def test_passes_in_flight_peak_at_the_closed_form(case: tuple[Schedule, int, int, int]) -> None:
    """GPipe holds m, 1F1B min(m, p - s), interleaved one more than its warm-up (all of them where it warms up with all)."""
    schedule, stages, chunks, microbatches = case
    for stage, actions in enumerate(passes(schedule, stages=stages, chunks=chunks, microbatches=microbatches)):
        if schedule.name == "gpipe":
            expected = microbatches
        elif chunks == 1:
            expected = min(microbatches, stages - stage)
        else:
            expected = min(chunks * microbatches, warmup_passes(stage=stage, stages=stages, chunks=chunks, microbatches=microbatches) + 1)
        assert peak_in_flight(actions) == expected


@quick
@given(stages=st.integers(1, 9), chunks=st.integers(2, 4), rounds=st.integers(2, 6))
def test_interleaved_warms_up_as_megatron_does(stages: int, chunks: int, rounds: int) -> None:
    """Forwards before the first backward: 2 (p - s - 1) + (v - 1) p, at most all, and the partner of that backward."""
    microbatches = stages * rounds
    for stage, actions in enumerate(passes(INTERLEAVED, stages=stages, chunks=chunks, microbatches=microbatches)):
        warmup = min(2 * (stages - stage - 1) + (chunks - 1) * stages, chunks * microbatches)
        first_backward = next(position for position, action in enumerate(actions) if action[0] == BACKWARD)
        assert first_backward == min(warmup + 1, chunks * microbatches)


@quick
@given(cases())
def test_orders_are_short_and_hold_no_empty_run(case: tuple[Schedule, int, int, int]) -> None:
    """An order's length does not grow with the micro-batches: a body, the rest of a body and the blocks around them.

    A split backward is three passes where a whole one and its forward are two, and it drains behind by up to twice the stages.
    """
    schedule, stages, chunks, microbatches = case
    for stage in range(stages):
        order = schedule.order(stage=stage, stages=stages, chunks=chunks, microbatches=microbatches)
        assert all(run.repeat > 0 and run.body for run in order)
        split = any(action.kind == WEIGHT for run in order for step in run.body for action in step.actions)
        bound = 4 * chunks * 2 * stages + 2 * (2 * chunks + 2 * stages)
        assert written_actions(order) <= (3 * bound // 2 if split else bound)


def test_every_stage_repeats_the_same_set_of_passes() -> None:
    """The body of the steady state is a whole period, which begins with the same backward on every stage."""
    orders = [INTERLEAVED.order(stage=stage, stages=4, chunks=3, microbatches=64) for stage in range(4)]
    bodies = [max(order, key=lambda run: run.repeat * len(run.body)) for order in orders]
    assert len({frozenset(Counter(run.body).items()) for run in bodies}) == 1
    assert {run.body[1::2] for run in bodies} == {bodies[0].body[1::2]}
    assert all(len(run.body) == 2 * 3 * 4 and run.repeat >= 14 for run in bodies)


def test_one_chunk_interleaved_is_plain_1f1b() -> None:
    """Megatron-LM runs its non-interleaved schedule where there is one chunk."""
    size = {"stages": 4, "chunks": 1, "microbatches": 9}
    assert passes(INTERLEAVED, **size) == passes(OneForwardOneBackward(), **size)


def test_orders_of_a_large_job_are_emitted_in_milliseconds() -> None:
    """All 35 stages of MT-NLG 530B, 2,240 micro-batches: under 5 ms, doubled for a busy machine, best of 5."""
    best_s = min(_timed(stages=35, chunks=3, microbatches=2240) for _ in range(5))
    assert best_s < 0.010


@pytest.mark.parametrize("name", ONE_CHUNK)
def test_chunks_are_refused_where_a_schedule_has_none(name: str) -> None:
    """The refusal names the value and the schedule of its kind that has several."""
    other = {"zb-h1": "interleaved-zb", "zb-h2": "interleaved-zb", "dualpipe": "dualpipe-v"}.get(name, "interleaved-1f1b")
    with pytest.raises(PlanError, match=f"vpp=2; use schedule {other}"):
        schedule_by_name(name).order(stage=0, stages=2, chunks=2, microbatches=2)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_step_without_micro_batches_is_refused(name: str) -> None:
    """No schedule emits an order for nothing."""
    with pytest.raises(PlanError, match="no micro-batch"):
        schedule_by_name(name).order(stage=0, stages=2, chunks=2 if name in BENT else 1, microbatches=0)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_are_found_by_their_name(name: str) -> None:
    """The registry's key is the schedule's own name."""
    assert schedule_by_name(name).name == name


def test_an_unknown_schedule_offers_the_nearest() -> None:
    """A slip of the keyboard is answered with what was meant."""
    with pytest.raises(PlanError, match="did you mean 'interleaved-zb', 'interleaved-1f1b'"):
        schedule_by_name("interleaved")


def finish_slots(schedule: Schedule, *, stages: int, chunks: int, microbatches: int) -> float:
    """Play every pass in one slot, each after its neighbour on its line; return when the last ends."""
    slots = dict.fromkeys((FORWARD, BACKWARD, INPUT, WEIGHT), 1.0)
    return max(span.last_s for span in play(schedule, stages=stages, chunks=chunks, microbatches=microbatches, seconds=slots))


def peak_in_flight(actions: list[Pass]) -> int:
    """Return the most passes that are forwarded and not yet backwarded."""
    held = peak = 0
    for kind, _, _ in actions:
        held += 1 if kind == FORWARD else -1
        peak = max(peak, held)
    return peak


def written_actions(order: Order) -> int:
    """Return the actions that an order writes down."""
    return sum(len(run.body) for run in order)


def _timed(*, stages: int, chunks: int, microbatches: int) -> float:
    start = time.perf_counter()
    for stage in range(stages):
        INTERLEAVED.order(stage=stage, stages=stages, chunks=chunks, microbatches=microbatches)
    return time.perf_counter() - start
