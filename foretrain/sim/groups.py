"""Collectives of background streams: FIFO on each member's stream, a rendezvous of all members, then one transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simpy.events import NORMAL, Event

from foretrain.sim.links import Transfer
from foretrain.sim.program import CollectiveSpec
from foretrain.sim.rank import BLOCKED, COALESCED, IDLE, LEGS, Rank, add, links_between
from foretrain.sim.segment import HOST

if TYPE_CHECKING:
    from foretrain.sim.engine import Engine


class Meeting:
    """One collective of one group: who has come, and when each member's stream reached it."""

    __slots__ = ("ends", "event", "headed", "members", "started", "transfers")

    def __init__(self) -> None:
        self.members: list[tuple[Rank, CollectiveSpec]] = []
        self.headed: dict[int, float] = {}
        self.started = 0.0
        self.ends = 0.0
        self.event: Event | None = None
        self.transfers: list[Transfer] = []


class Groups:
    """Keeps the streams of all ranks and starts each collective when every simulated member has reached it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.running: list[Meeting] = []
        self._open: dict[int, Meeting] = {}

    def issue(self, rank: Rank, spec: CollectiveSpec) -> None:
        """Queue a collective on a rank's stream."""
        rank.pending.add(spec.slot)
        stream = rank.streams[spec.stream]
        stream.append(spec)
        if len(stream) == 1:
            self._head(rank, spec)

    def wait(self, rank: Rank, slot: int, now: float) -> bool:
        """Block a rank until the collective of a slot is done; True where it is done already."""
        if slot not in rank.pending:
            return True
        rank.mode = BLOCKED
        rank.waiting = slot
        rank.wait_since = now
        return False

    def _head(self, rank: Rank, spec: CollectiveSpec) -> None:
        meeting = self._open.setdefault(spec.group, Meeting())
        meeting.members.append((rank, spec))
        meeting.headed[rank.index] = self.engine.env.now
        if len(meeting.members) == spec.members:
            del self._open[spec.group]
            self._begin(meeting)

    def _begin(self, meeting: Meeting) -> None:
        engine = self.engine
        meeting.started = engine.env.now
        self.running.append(meeting)
        for rank, spec in meeting.members:
            transfer = engine.network.start(spec.cost, links_between(rank, rank, spec.cost))
            transfer.retimed = lambda _moved: self._time(meeting)
            meeting.transfers.append(transfer)
        for rank, spec in meeting.members:
            if spec.kind != HOST:
                self._begins(rank)
        for transfer in meeting.transfers:
            engine.legs.disturb(transfer.links)
        self._time(meeting)

    def _time(self, meeting: Meeting) -> None:
        """(Re-)schedule the end: a collective is as slow as its slowest member."""
        if len(meeting.transfers) < len(meeting.members):
            return
        meeting.ends = max(transfer.arrival for transfer in meeting.transfers)
        env = self.engine.env
        event = Event(env)
        event._ok, event._value = True, None
        event.callbacks = [lambda fired: self._end(meeting, fired)]
        meeting.event = event
        env.schedule(event, NORMAL, max(0.0, meeting.ends - env.now))

    def _end(self, meeting: Meeting, fired: Event) -> None:
        if meeting.event is not fired:
            return
        self.running.remove(meeting)
        for rank, spec in meeting.members:
            self._ends(rank, meeting, spec)
        for rank, spec in meeting.members:
            stream = rank.streams[spec.stream]
            stream.popleft()
            if stream:
                self._head(rank, stream[0])

    def _begins(self, rank: Rank) -> None:
        """Slow a rank's compute down: one more collective runs beside it."""
        rank.active += 1
        if rank.active == 1:
            if rank.mode == COALESCED:
                self.engine.legs.split(rank)
            elif rank.mode == LEGS:
                self.engine.legs.rerate(rank)

    def _ends(self, rank: Rank, meeting: Meeting, spec: CollectiveSpec) -> None:
        """Give the rank its rate back, and wake it if it waits for this collective."""
        now = self.engine.env.now
        # Copies to and from the host are the work of DMA engines, which take nothing from compute.
        rank.active -= spec.kind != HOST
        rank.pending.discard(spec.slot)
        add(rank.moved, spec.kind, now - meeting.started)
        rank.link_bytes += spec.cost.wire_bytes
        if self.engine.recorder is not None:
            self.engine.recorder.transfer(rank, spec, meeting.started, now)
        if rank.active == 0 and rank.mode == LEGS:
            self.engine.legs.rerate(rank)
        if rank.mode == BLOCKED and rank.waiting == spec.slot and rank.waiting.__class__ is int:
            late = min(now - rank.wait_since, max(0.0, meeting.started - max(rank.wait_since, meeting.headed[rank.index])))
            rank.bubble_s += late
            add(rank.exposed, spec.kind, now - rank.wait_since - late)
            rank.mode = IDLE
            rank.waiting = None
            self.engine.arm(rank, now)
