"""Collectives of background streams: FIFO on each member's stream, a rendezvous of all members, then one transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simpy.events import NORMAL, Event

from foretrain.sim.links import Transfer
from foretrain.sim.program import CollectiveSpec
from foretrain.sim.rank import Rank, links_between

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
        for rank, _ in meeting.members:
            engine.collective_begins(rank)
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
            self.engine.collective_ends(rank, meeting, spec)
        for rank, spec in meeting.members:
            stream = rank.streams[spec.stream]
            stream.popleft()
            if stream:
                self._head(rank, stream[0])
