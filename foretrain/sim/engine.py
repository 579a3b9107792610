"""The event engine: plays the programs of a job on SimPy.

Simulated time is `env.now` (plus the offset of a steady-state jump). A rank is not a process but a program counter advanced by
event callbacks: a segment that nothing disturbs is one event, a message that nobody waits for is none. While background
collectives run beside a rank, its segment is played leg by leg, at a rate that changes when they start or end.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from simpy import Environment
from simpy.events import NORMAL, Event

from foretrain.sim.groups import Groups, Meeting
from foretrain.sim.links import Link, Network, Transfer
from foretrain.sim.program import COMPUTE, ISSUE, RECEIVE, RESIZE, SEND, SEND_AND_WAIT, WAIT, ChannelSpec, CollectiveSpec, Job
from foretrain.sim.rank import BLOCKED, COALESCED, DONE, IDLE, LEGS, Channel, Rank, links_between
from foretrain.sim.segment import HOST, TENSOR, Leg, Segment

TINY = 1e-15
"""Relative slack when a time that was scheduled is compared with the clock that it became."""


class Recorder(Protocol):
    """Hears what happens; `foretrain.sim.recorder` makes a timeline of it."""

    def piece(self, rank: Rank, leg: Leg | Segment, start_s: float, end_s: float) -> None:
        """Take one played leg or segment."""

    def transfer(self, rank: Rank, spec: CollectiveSpec, start_s: float, end_s: float) -> None:
        """Take one collective of a background stream."""

    def message(self, source: Rank, target: Rank, sent_s: float, arrived_s: float) -> None:
        """Take one point-to-point message."""

    def memory(self, rank: Rank, time_s: float) -> None:
        """Take the memory of a rank, now changed."""


class Watcher(Protocol):
    """Looks at the engine whenever the pacing rank begins its body again; `foretrain.sim.steady` jumps periods so."""

    def turn(self, engine: Engine) -> None:
        """Look, and jump if the state has been here before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a play left behind."""

    step_s: float
    ranks: tuple[Rank, ...]
    instructions: int
    shares: int


class Engine:
    """Plays one job once."""

    def __init__(self, job: Job, *, ops: bool = False, recorder: Recorder | None = None, watcher: Watcher | None = None) -> None:
        self.env = Environment()
        self.job = job
        self.offset = 0.0
        self.instructions = 0
        self.ops = ops
        self.recorder = recorder
        self.watcher = watcher
        self.network = Network(self.env)
        self.ranks = [Rank(i, program, len(job.segments), len(job.streams)) for i, program in enumerate(job.programs)]
        for rank in self.ranks:
            rank.callbacks = [partial(self._woken, rank)]
        self._wire()
        self.channels = [self._channel(spec) for spec in job.channels]
        self.groups = Groups(self)
        _, self.pacing_loop, pacer = max(
            (repeat.times, loop, -rank.index) for rank in self.ranks for loop, repeat in enumerate(rank.program.repeats)
        )
        self.pacer = self.ranks[-pacer]

    def play(self) -> Played:
        """Play to the end and return what was used.

        Raises:
            RuntimeError: if the programs deadlock, which is a fault of the lowering or of a schedule.
        """
        for rank in self.ranks:
            self._arm(rank, self.env.now)
        _run_without_collector(self.env)
        stuck = [rank.program.label for rank in self.ranks if rank.mode != DONE]
        if stuck:
            raise RuntimeError(f"deadlock: {', '.join(stuck[:5])} wait for messages or collectives that nobody starts")
        step_s = max(rank.done_s for rank in self.ranks)
        for rank in self.ranks:
            rank.bubble_s += step_s - rank.done_s
        return Played(step_s=step_s, ranks=tuple(self.ranks), instructions=self.instructions, shares=self.network.shares)

    # ── wiring ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wire(self) -> None:
        nodes: dict[int, tuple[Link, Link]] = {}
        self.links: list[Link] = []
        for rank in self.ranks:
            node = rank.program.node
            if node not in nodes:
                capacity = self.job.network_bytes_per_s
                nodes[node] = (Link(f"node {node} out", capacity), Link(f"node {node} in", capacity))
                self.links += nodes[node]
            rank.network_out, rank.network_in = nodes[node]
            rank.port_out = Link(f"{rank.program.label} out", self.job.port_bytes_per_s)
            rank.port_in = Link(f"{rank.program.label} in", self.job.port_bytes_per_s)
            self.links += [rank.port_out, rank.port_in]

    def _channel(self, spec: ChannelSpec) -> Channel:
        source, target = self.ranks[spec.source], self.ranks[spec.target]
        channel = Channel(source, target)
        channel.cost = spec.cost
        channel.links = links_between(source, target, spec.cost)
        return channel

    # ── waking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _arm(self, rank: Rank, at: float) -> None:
        """Wake `rank` at a time, in place of any wake it has pending."""
        event = rank.event
        if event is None or event.callbacks is not None:
            event = rank.event = Event(self.env)
            event._ok, event._value = True, None
        event.callbacks = rank.callbacks
        rank.wake_at = at
        delay = at - self.env._now
        self.env.schedule(event, NORMAL, delay if delay > 0.0 else 0.0)

    def _woken(self, rank: Rank, fired: Event) -> None:
        if rank.event is not fired:
            return
        if rank.mode == LEGS:
            self._leg_done(rank)
        else:
            self.advance(rank)

    # ── instructions ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, rank: Rank) -> None:
        """Play instructions of a rank until it has to wait."""
        now = self.env._now
        while True:
            if rank.pc == len(rank.body) and not self._next_body(rank):
                return
            opcode, operand = rank.body[rank.pc]
            if opcode == COMPUTE:
                rank.pc += 1
                self.instructions += 1
                self._compute(rank, operand, now)
                return
            if opcode == RECEIVE:
                if not self._receive(rank, operand, now):
                    return
            elif opcode == SEND:
                self._send(rank, operand, now)
            elif opcode == SEND_AND_WAIT:
                rank.pc += 1
                self.instructions += 1
                self._send_and_wait(rank, operand, now)
                return
            elif opcode == WAIT:
                if not self._wait(rank, operand, now):
                    return
            elif opcode == ISSUE:
                self.groups.issue(rank, self.job.collectives[operand])
            else:
                self._resize(rank, operand)
            rank.pc += 1
            self.instructions += 1

    def _next_body(self, rank: Rank) -> bool:
        rank.pc = 0
        while rank.repeats_left == 0:
            rank.loop += 1
            if rank.loop == len(rank.program.repeats):
                rank.mode = DONE
                rank.done_s = self.env._now + self.offset
                return False
            rank.body, rank.repeats_left = rank.program.repeats[rank.loop]
            if not rank.body:
                rank.repeats_left = 0
        rank.repeats_left -= 1
        if rank is self.pacer and self.watcher is not None and rank.loop == self.pacing_loop:
            self.watcher.turn(self)
        return True

    def _compute(self, rank: Rank, segment: Segment, now: float) -> None:
        peak = rank.activations + segment.peak_bytes
        if peak + rank.buffers > rank.peak:
            rank.peak, rank.peak_activations, rank.peak_buffers = peak + rank.buffers, peak, rank.buffers
        rank.activations += segment.delta_bytes
        rank.counts[segment.index] += 1
        if rank.host < now - self.job.queue_depth_s:
            rank.host = now - self.job.queue_depth_s
        if self.ops or rank.active:
            self._begin_legs(rank, segment, now)
            return
        end = now + segment.device_s
        led = rank.host + segment.lead_s
        if led > end:
            rank.host_wait_s += led - end
            end = led
        rank.host += segment.launch_s
        rank.mode = COALESCED
        rank.segment = segment
        rank.segment_start = now
        if self.recorder is not None:
            self.recorder.piece(rank, segment, now, end)
            self.recorder.memory(rank, now)
        self._arm(rank, end)

    def _send(self, rank: Rank, number: int, now: float) -> Transfer:
        channel = self.channels[number]
        transfer = self.network.start(channel.cost, channel.links)
        transfer.waiter = channel
        transfer.retimed = self._message_retimed
        rank.link_bytes += channel.cost.wire_bytes
        channel.queue.append(transfer)
        if channel.waiter is not None:
            self._arm(channel.waiter, transfer.arrival)
        if self.recorder is not None:
            self.recorder.message(rank, channel.target, now, transfer.arrival)
        return transfer

    def _send_and_wait(self, rank: Rank, number: int, now: float) -> None:
        transfer = self._send(rank, number, now)
        rank.mode = BLOCKED
        rank.waiting = transfer
        rank.messages_exposed_s += transfer.arrival - now
        self._arm(rank, transfer.arrival)

    def _message_retimed(self, transfer: Transfer) -> None:
        channel = transfer.waiter
        if channel.waiter is not None and channel.queue and channel.queue[0] is transfer:
            self._arm(channel.waiter, transfer.arrival)
        if channel.source.mode == BLOCKED and channel.source.waiting is transfer:
            channel.source.messages_exposed_s += transfer.arrival - channel.source.wake_at
            self._arm(channel.source, transfer.arrival)

    def _receive(self, rank: Rank, number: int, now: float) -> bool:
        channel = self.channels[number]
        queue = channel.queue
        if queue and queue[0].end + queue[0].latency_s - now <= TINY * now:
            transfer = queue.popleft()
            rank.messages_s += transfer.end + transfer.latency_s - transfer.started
            if rank.mode == BLOCKED and rank.waiting is channel:
                flying = min(now - rank.wait_since, now - transfer.started)
                rank.messages_exposed_s += flying
                rank.bubble_s += now - rank.wait_since - flying
                channel.waiter = None
            rank.mode = IDLE
            return True
        if rank.mode != BLOCKED or rank.waiting is not channel:
            rank.mode = BLOCKED
            rank.waiting = channel
            rank.wait_since = now
            channel.waiter = rank
        if queue:
            self._arm(rank, queue[0].arrival)
        return False

    def _wait(self, rank: Rank, slot: int, now: float) -> bool:
        if slot not in rank.pending:
            return True
        rank.mode = BLOCKED
        rank.waiting = slot
        rank.wait_since = now
        return False

    def _resize(self, rank: Rank, amount: float) -> None:
        rank.buffers += amount
        if rank.activations + rank.buffers > rank.peak:
            rank.peak = rank.activations + rank.buffers
            rank.peak_activations, rank.peak_buffers = rank.activations, rank.buffers
        if self.recorder is not None:
            self.recorder.memory(rank, self.env._now)

    # ── collectives ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def collective_begins(self, rank: Rank) -> None:
        """Slow a rank's compute down: one more collective runs beside it."""
        rank.active += 1
        if rank.active == 1:
            if rank.mode == COALESCED:
                self._split(rank)
            elif rank.mode == LEGS:
                self._rerate(rank)

    def collective_ends(self, rank: Rank, meeting: Meeting, spec: CollectiveSpec) -> None:
        """Give the rank its rate back, and wake it if it waits for this collective."""
        now = self.env._now
        rank.active -= 1
        rank.pending.discard(spec.slot)
        _add(rank.moved, spec.kind, now - meeting.started)
        rank.link_bytes += spec.cost.wire_bytes
        if self.recorder is not None:
            self.recorder.transfer(rank, spec, meeting.started, now)
        if rank.active == 0 and rank.mode == LEGS:
            self._rerate(rank)
        if rank.mode == BLOCKED and rank.waiting == spec.slot and rank.waiting.__class__ is int:
            late = min(now - rank.wait_since, max(0.0, meeting.started - max(rank.wait_since, meeting.headed[rank.index])))
            rank.bubble_s += late
            _add(rank.exposed, spec.kind, now - rank.wait_since - late)
            rank.mode = IDLE
            rank.waiting = None
            self._arm(rank, now)

    # ── legs: a segment that something disturbs ─────────────────────────────────────────────────────────────────────────────

    def _begin_legs(self, rank: Rank, segment: Segment, now: float) -> None:
        rank.mode = LEGS
        rank.segment = segment
        rank.segment_start = now
        rank.legs = segment.ops if self.ops else segment.legs
        rank.leg = 0
        if self.recorder is not None:
            self.recorder.memory(rank, now)
        self._begin_leg(rank, now)

    def _begin_leg(self, rank: Rank, now: float) -> None:
        leg = rank.legs[rank.leg]
        rank.leg_start = rank.leg_since = now
        rank.leg_left = leg.device_s
        rank.leg_rate = self._rate(rank, leg)
        rank.leg_end = rank.host + leg.lead_s
        rank.host += leg.launch_s
        if leg.transfer is not None and leg.device_s > 0.0 and rank.leg_end <= now + leg.device_s:
            self._inline_transfer(rank, leg)
            return
        self._arm(rank, max(now + rank.leg_left / rank.leg_rate, rank.leg_end))

    def _inline_transfer(self, rank: Rank, leg: Leg) -> None:
        transfer = self.network.start(leg.transfer, links_between(rank, rank, leg.transfer))
        rank.waiting = transfer
        transfer.retimed = lambda moved: self._arm(rank, moved.arrival) if rank.waiting is moved else None
        self._arm(rank, transfer.arrival)

    def _rate(self, rank: Rank, leg: Leg) -> float:
        return 1.0 - self.job.overlap_loss if rank.active and leg.transfer is None and HOST not in leg.class_s else 1.0

    def _rerate(self, rank: Rank) -> None:
        leg = rank.legs[rank.leg]
        rate = self._rate(rank, leg)
        if rate == rank.leg_rate or leg.transfer is not None:
            return
        now = self.env._now
        rank.leg_left = max(0.0, rank.leg_left - (now - rank.leg_since) * rank.leg_rate)
        rank.leg_since = now
        rank.leg_rate = rate
        self._arm(rank, max(now + rank.leg_left / rate, rank.leg_end))

    def _split(self, rank: Rank) -> None:
        """Turn a segment that is under way at full rate into legs from where it is."""
        segment, now = rank.segment, self.env._now
        rank.host -= segment.launch_s
        rank.legs = segment.legs
        rank.mode = LEGS
        at, host = rank.segment_start, rank.host
        for number, leg in enumerate(rank.legs):
            end = max(at + leg.device_s, host + leg.lead_s)
            if end > now or number == len(rank.legs) - 1:
                rank.leg = number
                rank.leg_start, rank.leg_since = at, now
                rank.leg_left = min(leg.device_s, max(0.0, end - now))
                rank.leg_end = host + leg.lead_s
                rank.leg_rate = self._rate(rank, leg)
                rank.host = host + leg.launch_s
                self._arm(rank, max(now + rank.leg_left / rank.leg_rate, rank.leg_end))
                return
            at, host = end, host + leg.launch_s

    def _leg_done(self, rank: Rank) -> None:
        now = self.env._now
        leg = rank.legs[rank.leg]
        taken = now - rank.leg_start
        stretch = taken - leg.device_s
        if stretch > 0.0:
            worked = rank.leg_since + rank.leg_left / rank.leg_rate - rank.leg_start
            self._stretched(rank, leg, stretch, max(0.0, taken - worked) if leg.transfer is None else 0.0)
        if self.recorder is not None:
            self.recorder.piece(rank, leg, rank.leg_start, now)
        rank.waiting = None
        rank.leg += 1
        if rank.leg < len(rank.legs):
            self._begin_leg(rank, now)
            return
        rank.mode = IDLE
        self.advance(rank)

    def _stretched(self, rank: Rank, leg: Leg, stretch: float, host_bound: float) -> None:
        """Account time beyond a leg's own: waiting for the host, contention on links, compute slowed by overlap."""
        waited = min(stretch, host_bound)
        rank.host_wait_s += waited
        rest = stretch - waited
        if leg.transfer is not None or leg.device_s <= 0.0:
            _add(rank.extra, TENSOR, rest)
            return
        for name, seconds in leg.class_s.items():
            _add(rank.extra, name, rest * seconds / leg.device_s)


def _run_without_collector(env: Environment) -> None:
    """Run to the end; a play makes no garbage in cycles worth pausing for, and pauses cost a fifth of it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        env.run()
    finally:
        if collecting:
            gc.enable()


def _add(totals: dict[str, float], key: str, amount: float) -> None:
    totals[key] = totals.get(key, 0.0) + amount
