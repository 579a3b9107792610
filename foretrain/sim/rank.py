"""The state of one simulated rank while a program plays, and what it has used so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simpy.events import Event

from foretrain.sim.program import CollectiveSpec, Instruction, Program

if TYPE_CHECKING:
    from foretrain.sim.collectives import TransferCost
    from foretrain.sim.links import Link, Transfer
    from foretrain.sim.segment import Leg, Segment

IDLE, COALESCED, LEGS, BLOCKED, DONE = range(5)
"""Between instructions; in a segment played whole; in one played leg by leg; waiting; finished."""


class Channel:
    """Messages under way from one rank to another, in order; `waiter` is the receiver when it is there first."""

    __slots__ = ("cost", "links", "listened", "queue", "source", "target", "waiter")

    def __init__(self, source: Rank, target: Rank, cost: TransferCost, links: tuple[tuple[Link, float], ...]) -> None:
        self.source = source
        self.target = target
        self.cost = cost
        self.links = links
        self.listened = any(link.listeners for link, _ in links)
        self.queue: deque[Transfer] = deque()
        self.waiter: Rank | None = None


class Rank:
    """One simulated rank. Totals are in seconds, bytes or counts; `counts` has one entry per segment."""

    __slots__ = (
        "activations",
        "active",
        "body",
        "bubble_s",
        "buffers",
        "callbacks",
        "counts",
        "done_s",
        "event",
        "exposed",
        "extra",
        "host",
        "host_wait_s",
        "index",
        "leg",
        "leg_end",
        "leg_idle",
        "leg_left",
        "leg_rate",
        "leg_since",
        "leg_start",
        "legs",
        "link_bytes",
        "loop",
        "memory",
        "messages_exposed_s",
        "messages_s",
        "mode",
        "moved",
        "network_in",
        "network_out",
        "pc",
        "peak",
        "peak_activations",
        "peak_buffers",
        "pending",
        "port_in",
        "port_out",
        "program",
        "repeats_left",
        "segment",
        "segment_start",
        "streams",
        "wait_since",
        "waiting",
        "wake_at",
    )  # fmt: skip

    def __init__(self, index: int, program: Program, segments: int, streams: int) -> None:  # noqa: PLR0915 - one line per total
        self.index = index
        self.program = program
        self.loop = -1
        self.repeats_left = 0
        self.body: tuple[Instruction, ...] = ()
        self.pc = 0
        self.mode = IDLE
        self.host = 0.0
        self.event: Event | None = None
        self.wake_at = 0.0
        self.waiting: object = None
        self.wait_since = 0.0
        self.segment: Segment | None = None
        self.segment_start = 0.0
        self.legs: tuple[Leg, ...] = ()
        self.leg = 0
        self.leg_left = self.leg_since = self.leg_start = self.leg_end = 0.0
        self.leg_rate = 1.0
        self.leg_idle = 0.0
        """Seconds of the leg under way that the device has waited for the host, as far as is known."""
        self.active = 0
        """Collectives of this rank that run in the background now."""
        self.streams: list[deque[CollectiveSpec]] = [deque() for _ in range(streams)]
        self.pending: set[int] = set()
        self.counts = [0] * segments
        self.extra: dict[str, float] = {}
        """Seconds by class beyond the segments' own: stretch by overlap or contention."""
        self.exposed: dict[str, float] = {}
        self.moved: dict[str, float] = {}
        """Seconds that collectives and messages took, by class, hidden or not."""
        self.bubble_s = self.host_wait_s = self.done_s = 0.0
        self.messages_s = self.messages_exposed_s = 0.0
        """Seconds of point-to-point messages that this rank received, and those that it waited for (sent ones included)."""
        self.callbacks: list[Callable[[Any], None]] = []
        self.link_bytes = 0.0
        self.memory = 0.0
        self.activations = self.buffers = 0.0
        self.peak = self.peak_activations = self.peak_buffers = 0.0
        self.port_in: Link
        self.port_out: Link
        self.network_in: Link
        self.network_out: Link

    def port_busy(self, now: float) -> bool:
        """Tell whether anything is under way on this rank's port."""
        return self.port_out.busy(now) or self.port_in.busy(now)

    def network_busy(self, now: float) -> bool:
        """Tell whether anything is under way on the NICs of this rank's node."""
        return self.network_out.busy(now) or self.network_in.busy(now)


def links_between(source: Rank, target: Rank, cost: TransferCost) -> tuple[tuple[Link, float], ...]:
    """Return what a transfer occupies of each link; a member of a ring sends and receives alike (source = target)."""
    port, network = cost.port_bytes_per_s, cost.network_bytes_per_s * source.program.flows
    ports = ((source.port_out, port), (target.port_in, port)) if port else ()
    return (*ports, (source.network_out, network), (target.network_in, network)) if network else ports


def add(totals: dict[str, float], key: str, amount: float) -> None:
    """Add to one entry of a rank's totals."""
    totals[key] = totals.get(key, 0.0) + amount
