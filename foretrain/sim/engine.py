"""The event engine: plays the programs of a job on SimPy.

Simulated time is `env.now` (plus the offset of a steady-state jump). A rank is not a process but a program counter advanced by
event callbacks: a segment that nothing disturbs is one event, a message that nobody waits for is none. While background
collectives run beside a rank, its segment is played leg by leg, at a rate that changes when they start or end.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from simpy import Environment
from simpy.events import NORMAL, Event

from foretrain.sim.groups import Groups
from foretrain.sim.jitter import Jitter
from foretrain.sim.legs import Legs
from foretrain.sim.links import Link, Network
from foretrain.sim.messages import Messages
from foretrain.sim.observers import Recorder, Watcher
from foretrain.sim.program import COMPUTE, ISSUE, RECEIVE, RESIZE, SEND, SEND_AND_WAIT, WAIT, Job, Repeat
from foretrain.sim.rank import COALESCED, DONE, IDLE, LEGS, Rank
from foretrain.sim.segment import Segment

LOOK_EVERY = 48
"""Segments of the pacing rank between looks at the state, at least one an iteration: a long one need not end before a match is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a play left behind."""

    step_s: float
    ranks: tuple[Rank, ...]
    instructions: int
    shares: int


class Engine:
    """Plays one job once."""

    def __init__(
        self, job: Job, *, ops: bool = False, recorder: Recorder | None = None, watcher: Watcher | None = None, jitter: Jitter | None = None
    ) -> None:
        self.env = Environment()
        self.job = job
        self.offset = 0.0
        self.instructions = sum(_work(repeat) for program in job.programs for repeat in program.repeats)
        self.ops = ops
        self.recorder = recorder
        self.watcher = watcher
        self.jitter = jitter
        self.network = Network(self.env)
        self.ranks = [Rank(i, program, len(job.segments), len(job.streams)) for i, program in enumerate(job.programs)]
        for rank in self.ranks:
            rank.callbacks = [partial(self._woken, rank)]
        for rank, lead_s in zip(self.ranks, job.leads_s, strict=bool(job.leads_s)):
            rank.host = -lead_s
        self._wire()
        self.messages = Messages(self)
        self.legs = Legs(self)
        self.groups = Groups(self)
        most = max(_work(_longest(rank)) for rank in self.ranks)
        self.pacer = min((rank for rank in self.ranks if 2 * _work(_longest(rank)) >= most), key=_lead)
        loops = enumerate(self.pacer.program.repeats)
        self.marks = {(loop, pc) for loop, repeat in loops if 2 * _work(repeat) >= most for pc in _spread(repeat)}
        """Where the pacing rank is when the watcher is asked to look: in a few segments of each iteration."""

    def play(self) -> Played:
        """Play to the end and return what was used.

        Raises:
            RuntimeError: if the programs deadlock, which is a fault of the lowering or of a schedule.
        """
        for rank in self.ranks:
            self.arm(rank, self.env.now)
        _run_without_collector(self.env)
        stuck = [rank.program.label for rank in self.ranks if rank.mode != DONE]
        if stuck:
            raise RuntimeError(f"deadlock: {', '.join(stuck[:5])} wait for messages or collectives that nobody starts")
        step_s = max(rank.done_s for rank in self.ranks)
        for rank in self.ranks:
            rank.bubble_s += step_s - rank.done_s
        return Played(step_s=step_s, ranks=tuple(self.ranks), instructions=self.instructions, shares=self.network.shares)

    @property
    def leads_s(self) -> tuple[float, ...]:
        """How far the host of each rank is ahead of the device when a step has been played."""
        end = max(rank.done_s for rank in self.ranks) - self.offset
        return tuple(max(0.0, end - rank.host) for rank in self.ranks)

    # ── wiring ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wire(self) -> None:
        nodes: dict[int, tuple[Link, Link]] = {}
        on_port = any(segment.on_port for segment in self.job.segments)
        on_network = any(segment.on_network for segment in self.job.segments)
        self.links: list[Link] = []
        for rank in self.ranks:
            node = rank.program.node
            if node not in nodes:
                factor = self.job.slow_links.get(node, 1.0)
                capacity, narrow = self.job.network_bytes_per_s / factor, factor > 1.0
                nodes[node] = (Link(f"node {node} out", capacity, narrow=narrow), Link(f"node {node} in", capacity, narrow=narrow))
                self.links += nodes[node]
            rank.network_out, rank.network_in = nodes[node]
            if on_network:
                rank.network_out.listeners.append(rank)
                rank.network_in.listeners.append(rank)
            rank.port_out = Link(f"{rank.program.label} out", self.job.port_bytes_per_s)
            rank.port_in = Link(f"{rank.program.label} in", self.job.port_bytes_per_s)
            self.links += [rank.port_out, rank.port_in]
            if on_port:
                rank.port_out.listeners = rank.port_in.listeners = [rank]

    # ── waking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def arm(self, rank: Rank, at: float) -> None:
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
            self.legs.done(rank)
            return
        if rank.mode == COALESCED:
            self._segment_done(rank)
        self.advance(rank)

    def _segment_done(self, rank: Rank) -> None:
        """Account a segment that was played whole, now that nothing can split it any more."""
        segment = rank.segment
        assert segment is not None, "only a segment under way ends"
        undisturbed = rank.segment_start + segment.device_s
        if rank.wake_at > undisturbed:
            rank.host_wait_s += rank.wake_at - undisturbed
        if self.recorder is not None:
            self.recorder.piece(rank, segment, rank.segment_start, rank.wake_at)
        rank.mode = IDLE

    # ── instructions ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, rank: Rank) -> None:  # noqa: C901, PLR0912 - the interpreter's dispatch: a call per case would cost a third of a play
        """Play instructions of a rank until it has to wait."""
        now = self.env._now
        body, pc = rank.body, rank.pc
        while True:
            if pc == len(body):
                if not self._next_body(rank):
                    return
                body, pc = rank.body, 0
            opcode, operand = body[pc]
            rank.pc = pc
            if opcode == COMPUTE:
                rank.pc = pc + 1
                self._compute(rank, operand, now)
                return
            if opcode == RECEIVE:
                if not self.messages.receive(rank, operand, now):
                    return
            elif opcode == SEND:
                self.messages.send(rank, operand, now)
            elif opcode == SEND_AND_WAIT:
                rank.pc = pc + 1
                self.messages.send_and_wait(rank, operand, now)
                return
            elif opcode == WAIT:
                if not self.groups.wait(rank, operand, now):
                    return
            elif opcode == ISSUE:
                self.groups.issue(rank, self.job.collectives[operand])
            elif opcode == RESIZE:
                self._resize(rank, operand)
            elif not self._until(rank, operand - self.offset, now):
                return
            pc += 1

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
        return True

    def _compute(self, rank: Rank, segment: Segment, now: float) -> None:
        if rank is self.pacer and self.watcher is not None and (rank.loop, rank.pc) in self.marks:
            self.watcher.turn(self)
        peak = rank.activations + segment.peak_bytes
        if peak + rank.buffers > rank.peak:
            rank.peak, rank.peak_activations, rank.peak_buffers = peak + rank.buffers, peak, rank.buffers
        rank.activations += segment.delta_bytes
        rank.counts[segment.index] += 1
        if self.jitter is not None:
            segment = self.jitter.drawn(rank, segment)
        rank.host = max(rank.host, now - self.job.queue_depth_s)
        on_network = segment.on_network and (rank.network_out.narrow or rank.network_busy(now))
        if self.ops or rank.active or on_network or (segment.on_port and rank.port_busy(now)):
            self.legs.begin(rank, segment, now)
            return
        end = max(now + segment.device_s, rank.host + segment.lead_s)
        rank.host += segment.launch_s
        rank.mode = COALESCED
        rank.segment = segment
        rank.segment_start = now
        if self.recorder is not None:
            self.recorder.memory(rank, now)
        self.arm(rank, end)

    def _until(self, rank: Rank, at: float, now: float) -> bool:
        """Have a rank wait for its host; True where it need not."""
        if at <= now:
            return True
        rank.pc += 1
        rank.mode = IDLE
        rank.host_wait_s += at - now
        self.arm(rank, at)
        return False

    def _resize(self, rank: Rank, amount: float) -> None:
        rank.buffers += amount
        if rank.activations + rank.buffers > rank.peak:
            rank.peak = rank.activations + rank.buffers
            rank.peak_activations, rank.peak_buffers = rank.activations, rank.buffers
        if self.recorder is not None:
            self.recorder.memory(rank, self.env._now)


def _work(repeat: Repeat) -> int:
    return repeat.times * len(repeat.body)


def _longest(rank: Rank) -> Repeat:
    return max(rank.program.repeats, key=_work)


def _spread(repeat: Repeat) -> list[int]:
    """Return the places after the first segment of a body, and after every so many more."""
    return [pc for pc, (opcode, _) in enumerate(repeat.body, 1) if opcode == COMPUTE][::LOOK_EVERY]


def _lead(rank: Rank) -> int:
    """Return the segments that a rank plays before its longest loop."""
    before = takewhile(lambda repeat: repeat is not _longest(rank), rank.program.repeats)
    return sum(repeat.times for repeat in before for opcode, _ in repeat.body if opcode == COMPUTE)


def _run_without_collector(env: Environment) -> None:
    """Run to the end; a play makes no garbage in cycles worth pausing for, and pauses cost a fifth of it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        env.run()
    finally:
        if collecting:
            gc.enable()
