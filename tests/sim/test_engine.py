"""The engine on programs of a few instructions, each time worked out by hand."""

from __future__ import annotations

import gc

import pytest

from foretrain.sim.breakdown import rank_breakdown
from foretrain.sim.engine import Engine, Played
from foretrain.sim.program import COMPUTE, ISSUE, RECEIVE, RESIZE, SEND, SEND_AND_WAIT, WAIT, ChannelSpec, CollectiveSpec, Job, Repeat
from foretrain.sim.recorder import TimelineRecorder
from foretrain.sim.segment import DATA, HOST, MEMORY, TENSOR, Leg, SegmentBook
from tests.sim.jobs import job, kernels, once, program, transfer

NOW = (0.0, 0.0)


def reduction(seconds: float, *, group: int = 0, members: int = 1, slot: int = 0, port: float = 1.0) -> CollectiveSpec:
    """Return a collective of `seconds` on the data-parallel stream."""
    cost = transfer(seconds, port=port, wire_bytes=seconds)
    return CollectiveSpec(name=f"reduction {slot}", kind=DATA, cost=cost, group=group, members=members, stream=1, slot=slot)


def seconds_of(played: Played, made: Job, rank: int = 0) -> dict[str, float]:
    """Return the classes of a rank's breakdown that are not zero."""
    return {name: value for name, value in rank_breakdown(played.ranks[rank], made.segments).items() if abs(value) > 1e-12}


def test_a_message_arrives_after_latency_and_bytes() -> None:
    """3 s of work, 2 s of bytes, 1 s of latency; the receiver computes 4 s meanwhile, waits 2, and works 1 more."""
    book = SegmentBook()
    first, other, last = (book.add(name, kernels((s, 0.0)), kernels((s, 0.0))) for name, s in (("a", 3.0), ("b", 4.0), ("c", 1.0)))
    channel = ChannelSpec(source=0, target=1, cost=transfer(2.0, latency_s=1.0, network=0.5))
    sender = program(0, once((COMPUTE, first), (SEND, 0)))
    receiver = program(1, once((COMPUTE, other), (RECEIVE, 0), (COMPUTE, last)), node=1)
    made = job([sender, receiver], book, channels=[channel])
    played = Engine(made).play()
    assert played.step_s == 7.0
    assert [rank.done_s for rank in played.ranks] == [3.0, 7.0]
    assert seconds_of(played, made, 1) == pytest.approx({"math": 5.0, "pipeline_parallel": 2.0})
    assert seconds_of(played, made, 0) == pytest.approx({"math": 3.0, "bubble": 4.0})


def test_waiting_before_the_message_leaves_is_bubble_and_after_it_communication() -> None:
    """The receiver is there at once: 3 s until the send, 3 s while it flies."""
    book = SegmentBook()
    work = book.add("work", kernels((3.0, 0.0)), kernels((3.0, 0.0)))
    channel = ChannelSpec(source=0, target=1, cost=transfer(2.0, latency_s=1.0))
    made = job([program(0, once((COMPUTE, work), (SEND, 0))), program(1, once((RECEIVE, 0)), node=1)], book, channels=[channel])
    assert seconds_of(Engine(made).play(), made, 1) == pytest.approx({"bubble": 3.0, "pipeline_parallel": 3.0})


def test_a_blocking_send_holds_the_sender() -> None:
    """It waits for its own message, which the receiver takes later."""
    book = SegmentBook()
    work = book.add("work", kernels((1.0, 0.0)), kernels((1.0, 0.0)))
    sender = program(0, once((SEND_AND_WAIT, 0), (COMPUTE, work)))
    made = job([sender, program(1, once((RECEIVE, 0)), node=1)], book, channels=[ChannelSpec(source=0, target=1, cost=transfer(2.0))])
    played = Engine(made).play()
    assert played.ranks[0].done_s == 3.0
    assert seconds_of(played, made, 0) == pytest.approx({"pipeline_parallel": 2.0, "math": 1.0})


def test_messages_of_a_channel_keep_their_order() -> None:
    """Two sends, then two receives, each with its own arrival."""
    book = SegmentBook()
    work = book.add("work", kernels((1.0, 0.0)), kernels((1.0, 0.0)))
    sender = program(0, Repeat(once((COMPUTE, work), (SEND, 0)).body, 3))
    receiver = program(1, Repeat(once((RECEIVE, 0), (COMPUTE, work)).body, 3), node=1)
    made = job([sender, receiver], book, channels=[ChannelSpec(source=0, target=1, cost=transfer(0.5))])
    assert Engine(made).play().ranks[1].done_s == 4.5


def test_a_collective_hides_behind_compute_and_shows_the_rest() -> None:
    """5 s of reduction beside 3 s of work: 3 hidden, 2 exposed."""
    book = SegmentBook()
    work = book.add("work", kernels((3.0, 0.0)), kernels((3.0, 0.0)))
    made = job([program(0, once((ISSUE, 0), (COMPUTE, work), (WAIT, 0)))], book, collectives=[reduction(5.0)])
    played = Engine(made).play()
    assert played.step_s == 5.0
    assert seconds_of(played, made) == pytest.approx({"math": 3.0, "data_parallel": 2.0})
    assert played.ranks[0].moved == pytest.approx({DATA: 5.0})


def test_a_collective_waits_for_its_last_member() -> None:
    """Members come at 1 and at 4; 2 s together; the early one was kept waiting for 3 s by the other, not by the network."""
    book = SegmentBook()
    short, long = (book.add(f"{s}", kernels((s, 0.0)), kernels((s, 0.0))) for s in (1.0, 4.0))
    both = [reduction(2.0, members=2)] * 2
    programs = [program(stage, once((COMPUTE, work), (ISSUE, stage), (WAIT, 0)), node=stage) for stage, work in enumerate((short, long))]
    made = job(programs, book, collectives=both)
    played = Engine(made).play()
    assert [rank.done_s for rank in played.ranks] == [6.0, 6.0]
    assert seconds_of(played, made, 0) == pytest.approx({"math": 1.0, "bubble": 3.0, "data_parallel": 2.0})
    assert seconds_of(played, made, 1) == pytest.approx({"math": 4.0, "data_parallel": 2.0})


def test_collectives_of_a_stream_run_one_after_another() -> None:
    """Two of 2 s, issued together: done at 2 and at 4, and waiting for the second covers both."""
    book = SegmentBook()
    specs = [reduction(2.0, group=0, slot=0), reduction(2.0, group=1, slot=1)]
    made = job([program(0, once((ISSUE, 0), (ISSUE, 1), (WAIT, 1), (WAIT, 0)))], book, collectives=specs)
    played = Engine(made).play()
    assert played.step_s == 4.0
    assert seconds_of(played, made) == pytest.approx({"data_parallel": 4.0})


def test_compute_beside_a_collective_loses_its_share() -> None:
    """Half of the rate for the 2 s of the reduction: 1 s of work is done in it, 3 s are left: 5 s in all."""
    book = SegmentBook()
    work = book.add("work", kernels((4.0, 0.0)), kernels((1.0, 0.0), (3.0, 0.0)))
    made = job([program(0, once((ISSUE, 0), (COMPUTE, work), (WAIT, 0)))], book, collectives=[reduction(2.0)], overlap_loss=0.5)
    for ops in (False, True):
        played = Engine(made, ops=ops).play()
        assert played.step_s == 5.0
        assert seconds_of(played, made) == pytest.approx({"math": 5.0})


def test_waiting_for_the_host_loses_nothing_to_a_collective() -> None:
    """4 s of work at half rate and 2 s of waiting for the host, played as one leg or as two: 10 s, and 10 more of the reduction."""
    book = SegmentBook()
    legs = (*kernels((4.0, 0.0)), *kernels((2.0, 0.0), kind=HOST))
    work = book.add("work", legs, legs)
    made = job([program(0, once((ISSUE, 0), (COMPUTE, work), (WAIT, 0)))], book, collectives=[reduction(20.0)], overlap_loss=0.5)
    for ops in (False, True):
        played = Engine(made, ops=ops).play()
        assert played.step_s == 20.0
        assert seconds_of(played, made) == pytest.approx({"math": 8.0, "host": 2.0, "data_parallel": 10.0})


def test_a_collective_that_begins_in_the_middle_of_a_segment_slows_only_the_rest() -> None:
    """The other member comes at 1: of 4 s of work 1 is done; 2 s at half rate do 1 more; 2 s are left: 5 s, 1 of them lost."""
    book = SegmentBook()
    work, short = (book.add(f"{s}", kernels((s, 0.0)), kernels((s, 0.0))) for s in (4.0, 1.0))
    both = [reduction(2.0, members=2)] * 2
    programs = [
        program(0, once((ISSUE, 0), (COMPUTE, work), (WAIT, 0))),
        program(1, once((COMPUTE, short), (ISSUE, 1), (WAIT, 0)), node=1),
    ]
    made = job(programs, book, collectives=both, overlap_loss=0.5)
    recorder = TimelineRecorder(made, (0.0, 0.0), 0.0)
    played = Engine(made, recorder=recorder).play()
    assert played.ranks[0].done_s == 5.0
    assert seconds_of(played, made, 0) == pytest.approx({"math": 5.0})
    slices = recorder.timeline(5.0, 0.0, played.ranks).slices
    assert sum(piece.joules for piece in slices if (piece.rank, piece.stream) == (0, 0)) == pytest.approx(6.0)


def test_the_device_waits_for_a_slow_host() -> None:
    """Ten kernels of 1 s that take 3 s each to issue end at 31; the device waits 21 of them."""
    book = SegmentBook()
    legs = kernels(*[(1.0, 3.0)] * 10)
    made = job([program(0, once((COMPUTE, book.add("late", legs, legs))))], book)
    for ops in (False, True):
        played = Engine(made, ops=ops).play()
        assert played.step_s == 31.0
        assert seconds_of(played, made) == pytest.approx({"math": 10.0, "host": 21.0})


def test_the_host_s_lead_carries_over() -> None:
    """While the device works 10 s the host issues the next 4 kernels of 2 s each, so nothing waits but for the first."""
    book = SegmentBook()
    first, second = kernels((10.0, 1.0)), kernels(*[(1.0, 2.0)] * 4)
    made = job([program(0, once((COMPUTE, book.add("a", first, first)), (COMPUTE, book.add("b", second, second))))], book)
    for ops in (False, True):
        assert Engine(made, ops=ops).play().step_s == 15.0


def test_the_host_s_lead_is_no_longer_than_the_queue() -> None:
    """After 10 s of waiting for a message the host has queued at most 3 s of launches ahead: of 4 · 2 s of them, 5 remain."""
    book = SegmentBook()
    ten, four = kernels((10.0, 0.0)), kernels(*[(0.0, 2.0)] * 4)
    sender = program(0, once((COMPUTE, book.add("ten", ten, ten)), (SEND, 0)))
    receiver = program(1, once((RECEIVE, 0), (COMPUTE, book.add("four", four, four))), node=1)
    made = job([sender, receiver], book, channels=[ChannelSpec(source=0, target=1, cost=transfer(0.0))], queue_depth_s=3.0)
    assert Engine(made).play().step_s == 15.0


def test_a_host_bound_segment_that_is_split_waits_once() -> None:
    """Kernels of 1 s issued every 3 s, with a reduction that begins in their middle: all time is counted once, in both details."""
    book = SegmentBook()
    legs = kernels(*[(1.0, 3.0)] * 4)
    late, short = book.add("late", legs, legs), book.add("short", kernels((5.0, 0.0)), kernels((5.0, 0.0)))
    both = [reduction(2.0, members=2)] * 2
    programs = [
        program(0, once((ISSUE, 0), (COMPUTE, late), (WAIT, 0))),
        program(1, once((COMPUTE, short), (ISSUE, 1), (WAIT, 0)), node=1),
    ]
    made = job(programs, book, collectives=both)
    for ops in (False, True):
        played = Engine(made, ops=ops).play()
        assert played.ranks[0].done_s == 13.0
        assert seconds_of(played, made) == pytest.approx({"math": 4.0, "host": 9.0})


def inline(seconds: float) -> Leg:
    """Return an inline collective that takes the whole port."""
    cost = transfer(seconds, port=1.0, wire_bytes=seconds)
    return Leg(
        name="inline", device_s=seconds, lead_s=seconds, launch_s=0.0, class_s={TENSOR: seconds}, joules={"links": seconds}, transfer=cost
    )


def test_an_inline_collective_shares_its_port_with_a_message_in_flight() -> None:
    """A message of 4 s and, from 1 s on, a collective of 4 s on one port: halves until the message is done at 7, then 1 s alone."""
    book = SegmentBook()
    legs = (*kernels((1.0, 0.0)), inline(4.0))
    sender = program(0, once((SEND, 0), (COMPUTE, book.add("segment", legs, legs))))
    channel = ChannelSpec(source=0, target=1, cost=transfer(4.0, port=1.0, wire_bytes=4.0))
    made = job([sender, program(1, once((RECEIVE, 0)))], book, channels=[channel])
    for ops in (False, True):
        played = Engine(made, ops=ops).play()
        assert [rank.done_s for rank in played.ranks] == [8.0, 7.0]
        assert seconds_of(played, made) == pytest.approx({"math": 1.0, "tensor_parallel": 7.0})


def test_a_message_that_comes_during_an_inline_collective_slows_it() -> None:
    """The collective of 4 s has 2 left when 2 s of message come in: halves until 6, when both are done."""
    book = SegmentBook()
    receiver = program(1, once((COMPUTE, book.add("segment", (inline(4.0),), (inline(4.0),))), (RECEIVE, 0)))
    sender = program(0, once((COMPUTE, book.add("work", kernels((2.0, 0.0)), kernels((2.0, 0.0)))), (SEND, 0)))
    channel = ChannelSpec(source=0, target=1, cost=transfer(2.0, port=1.0, wire_bytes=2.0))
    made = job([sender, receiver], book, channels=[channel])
    for ops in (False, True):
        played = Engine(made, ops=ops).play()
        assert played.ranks[1].done_s == pytest.approx(6.0)
        assert seconds_of(played, made, 1) == pytest.approx({"tensor_parallel": 6.0})


def test_ranks_that_a_rank_stands_for_share_the_node_s_nics() -> None:
    """Two messages that each stand for four flows of 0.25 B/s ask for 2 B/s of a node that carries 1: 3 s become 6."""
    book = SegmentBook()
    channels = [ChannelSpec(source=0, target=1, cost=transfer(3.0, network=0.25))] * 2
    sender = program(0, once((SEND, 0), (SEND, 1)), flows=4)
    made = job([sender, program(1, once((RECEIVE, 0), (RECEIVE, 1)), node=1, flows=4)], book, channels=channels)
    assert Engine(made).play().step_s == pytest.approx(6.0)


def test_memory_is_held_as_the_program_says() -> None:
    """Activations of 5 and then 3 bytes over a buffer of 10, one of which is given back before the second: the peak is 15."""
    book = SegmentBook()
    legs = kernels((1.0, 0.0))
    first = book.add("first", legs, legs, peak_bytes=5.0, delta_bytes=2.0)
    second = book.add("second", legs, legs, peak_bytes=3.0, delta_bytes=-2.0)
    made = job([program(0, once((RESIZE, 10.0), (COMPUTE, first), (RESIZE, -10.0), (COMPUTE, second)))], book)
    rank = Engine(made).play().ranks[0]
    assert (rank.peak, rank.peak_activations, rank.peak_buffers) == (15.0, 5.0, 10.0)
    assert (rank.activations, rank.buffers) == (0.0, 0.0)


def test_memory_bound_work_keeps_its_class_when_it_is_slowed() -> None:
    """Stretched time is counted under what was stretched."""
    book = SegmentBook()
    legs = kernels((2.0, 0.0), kind=MEMORY)
    work = book.add("stream", legs, legs)
    made = job([program(0, once((ISSUE, 0), (COMPUTE, work), (WAIT, 0)))], book, collectives=[reduction(10.0)], overlap_loss=0.5)
    assert seconds_of(Engine(made).play(), made) == pytest.approx({"memory": 4.0, "data_parallel": 6.0})


def test_a_play_leaves_the_collector_as_it_was() -> None:
    """It is off only while a job plays."""
    made = job([program(0, once())], SegmentBook())
    Engine(made).play()
    assert gc.isenabled()
    gc.disable()
    try:
        Engine(made).play()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_programs_that_wait_for_each_other_are_our_fault() -> None:
    """A deadlock names who waits."""
    channels = [ChannelSpec(source=0, target=1, cost=transfer(1.0)), ChannelSpec(source=1, target=0, cost=transfer(1.0))]
    crossed = [program(0, once((RECEIVE, 1), (SEND, 0))), program(1, once((RECEIVE, 0), (SEND, 1)))]
    with pytest.raises(RuntimeError, match="deadlock: stage 0, stage 1 wait"):
        Engine(job(crossed, SegmentBook(), channels=channels)).play()
