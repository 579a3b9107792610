"""The same job without an engine: a recursion over the max-plus algebra, where nothing runs beside or against anything else.

A segment that starts at t with the host at h ends at max(t + D, h + A) and leaves the host at h + L (`foretrain.sim.segment`); a
message arrives latency + full time after it was sent; a collective begins when its last member comes. Times need no clock, so a rank
plays on until something it needs has no time yet. Jobs whose transfers share a link, or whose collectives run beside compute, are
refused: there times depend on each other both ways.

**Source:** Baccelli, Cohen, Olsder, Quadrat, Synchronization and Linearity (1992), chapter 2 (max-plus recursions of event graphs).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from foretrain.errors import PlanError
from foretrain.sim.collectives import TransferCost
from foretrain.sim.links import ROOM
from foretrain.sim.program import (
    COMPUTE,
    ISSUE,
    RECEIVE,
    RESIZE,
    SEND,
    SEND_AND_WAIT,
    UNTIL,
    WAIT,
    CollectiveSpec,
    Instruction,
    Job,
    Program,
)  # fmt: skip
from foretrain.sim.segment import Segment

Link = tuple[str, int]
"""What is shared, and the rank or node it belongs to."""
TOUCH = 1e-12
"""Share of the clock by which two times may differ in rounding and still be the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When each simulated rank is done, and the last of them."""

    step_s: float
    done_s: tuple[float, ...]


def evaluate(job: Job) -> Times:
    """Return when the ranks of a job are done.

    Raises:
        PlanError: where a collective runs beside compute or transfers share a link; only the engine plays such a job.
    """
    board = _Board(job)
    walkers = [_walk(board, rank, program) for rank, program in enumerate(job.programs)]
    moving = list(range(len(walkers)))
    while moving:
        stayed = [rank for rank in moving if not _ended(walkers[rank])]
        if len(stayed) == len(moving) and not board.changed:
            raise PlanError("the programs wait for each other: a message or collective has no counterpart; check the schedule's order")
        board.changed = False
        moving = stayed
    _refuse_contention(board)
    return Times(step_s=max(board.done_s.values()), done_s=tuple(board.done_s[rank] for rank in range(len(walkers))))


class _Board:
    """Times that are known so far: arrivals by channel, ends of collectives by rank, uses of links."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.changed = False
        self.done_s: dict[int, float] = {}
        self.arrivals: dict[int, deque[float]] = defaultdict(deque)
        self.meetings: dict[int, list[tuple[int, CollectiveSpec, float]]] = defaultdict(list)
        self.slots: dict[tuple[int, int], float | None] = {}
        self.streams: dict[tuple[int, int], float | None] = {}
        self.uses: dict[Link, list[tuple[float, float, float]]] = defaultdict(list)
        self.inline: dict[Link, list[tuple[float, float, float]]] = defaultdict(list)

    def send(self, number: int, now: float) -> float:
        """Return when a message that leaves now is there."""
        channel = self.job.channels[number]
        self.occupy(channel.source, channel.target, channel.cost, now)
        self.arrivals[number].append(now + channel.cost.full_s + channel.cost.latency_s)
        self.changed = True
        return self.arrivals[number][-1]

    def meet(self, rank: int, spec: CollectiveSpec, now: float) -> None:
        """Note that a rank has reached a collective; the last member gives it a time."""
        meeting = self.meetings[spec.group]
        meeting.append((rank, spec, max(now, self.streams.get((rank, spec.stream)) or 0.0)))
        self.slots[rank, spec.slot] = self.streams[rank, spec.stream] = None
        self.changed = True
        if len(meeting) < spec.members:
            return
        del self.meetings[spec.group]
        begin = max(headed for _, _, headed in meeting)
        end = begin + max(own.cost.total_s for _, own, _ in meeting)
        for member, own, _ in meeting:
            self.occupy(member, member, own.cost, begin)
            self.slots[member, own.slot] = self.streams[member, own.stream] = end

    def occupy(self, source: int, target: int, cost: TransferCost, now: float) -> None:
        """Note what a transfer takes of ports and nodes' NICs; its latency takes nothing."""
        sender, receiver = self.job.programs[source], self.job.programs[target]
        demands = cost.port_bytes_per_s, cost.network_bytes_per_s * sender.flows
        links = (("port out", source), ("port in", target)), (("node out", sender.node), ("node in", receiver.node))
        for pair, demand in zip(links, demands, strict=True):
            if demand and cost.full_s > 0.0:
                for link in pair:
                    self.uses[link].append((now, now + cost.full_s, demand))

    def compute(self, rank: int, segment: Segment, begin: float, end: float) -> None:
        """Note which links the inline collectives of a segment use."""
        node = self.job.programs[rank].node
        links = (("port out", rank), ("port in", rank)) if segment.on_port else ()
        for link in (*links, *((("node out", node), ("node in", node)) if segment.on_network else ())):
            self.inline[link].append((begin, end, 0.0))


def _ended(walker: Iterator[None]) -> bool:
    """Play a rank on until it lacks a time; True at its end."""
    return next(walker, walker) is walker


def _walk(board: _Board, rank: int, program: Program) -> Iterator[None]:  # noqa: C901 - an interpreter's dispatch
    """Play the program of one rank, yielding wherever a time that it needs is not known yet."""
    now, host = 0.0, -board.job.leads_s[rank] if board.job.leads_s else 0.0
    for opcode, operand in _instructions(program):
        if opcode == COMPUTE:
            _refuse_beside(board, rank, now)
            host = max(host, now - board.job.queue_depth_s)
            begin, now = now, max(now + operand.device_s, host + operand.lead_s)
            host += operand.launch_s
            if operand.on_port or operand.on_network:
                board.compute(rank, operand, begin, now)
        elif opcode == RECEIVE:
            while not board.arrivals[operand]:
                yield
            now = max(now, board.arrivals[operand].popleft())
        elif opcode in (SEND, SEND_AND_WAIT):
            arrival = board.send(operand, now)
            now = arrival if opcode == SEND_AND_WAIT else now
        elif opcode == ISSUE:
            spec = board.job.collectives[operand]
            while board.streams.get((rank, spec.stream), 0.0) is None:
                yield
            board.meet(rank, spec, now)
        elif opcode == WAIT:
            while board.slots.get((rank, operand), now) is None:
                yield
            now = max(now, board.slots.pop((rank, operand), None) or now)
        elif opcode == UNTIL:
            now = max(now, operand)
    board.done_s[rank] = now
    board.changed = True


def _instructions(program: Program) -> Iterator[Instruction]:
    for body, times in program.repeats:
        for _ in range(times):
            yield from (instruction for instruction in body if instruction.opcode != RESIZE)


def _refuse_beside(board: _Board, rank: int, now: float) -> None:
    for stream in range(len(board.job.streams)):
        until = board.streams.get((rank, stream), 0.0)
        if until is None or until > now * (1.0 + TOUCH):
            raise PlanError(
                f"{board.job.programs[rank].label}: a collective on stream {board.job.streams[stream]} runs beside compute, "
                "which max-plus times cannot follow; use the engine, or a software that hides no communication"
            )


def _refuse_contention(board: _Board) -> None:
    for link, uses in board.uses.items():
        capacity = board.job.port_bytes_per_s if link[0].startswith("port") else board.job.network_bytes_per_s
        changes = [(at, sign, sign * demand) for a, b, demand in uses for at, sign in ((a, 1), (b * (1.0 - TOUCH), -1))]
        changes += [(at, 0, sign) for a, b, _ in board.inline[link] for at, sign in ((a, 1.0), (b * (1.0 - TOUCH), -1.0))]
        asked, users, inline = 0.0, 0, 0.0
        for _, step, change in sorted(changes):
            users += step
            asked, inline = (asked + change, inline) if step else (asked, inline + change)
            if users and (inline > 0.0 or (users > 1 and asked > capacity * ROOM)):
                raise PlanError(f"transfers share {link[0]} {link[1]}, which max-plus times cannot follow; use the engine")
