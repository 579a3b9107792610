"""Segments that something disturbs, played leg by leg at a rate that changes when background collectives start or end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretrain.sim.collectives import TransferCost
from foretrain.sim.messages import TINY
from foretrain.sim.rank import COALESCED, IDLE, LEGS, Rank, add, links_between
from foretrain.sim.segment import HOST, TENSOR, Leg, Segment

if TYPE_CHECKING:
    from foretrain.sim.engine import Engine
    from foretrain.sim.links import Link


class Legs:
    """Plays the legs of segments."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def begin(self, rank: Rank, segment: Segment, now: float) -> None:
        """Begin a segment with its first leg."""
        rank.mode = LEGS
        rank.segment = segment
        rank.segment_start = now
        rank.legs = segment.ops if self.engine.ops else segment.legs
        rank.leg = 0
        if self.engine.recorder is not None:
            self.engine.recorder.memory(rank, now)
        self._begin_leg(rank, now)

    def _begin_leg(self, rank: Rank, now: float) -> None:
        leg = rank.legs[rank.leg]
        rank.leg_start = rank.leg_since = now
        rank.leg_left = leg.device_s
        rank.leg_idle = 0.0
        rank.leg_rate = self._rate(rank, leg)
        rank.leg_end = rank.host + leg.lead_s
        rank.host += leg.launch_s
        if leg.transfer is not None and leg.device_s > 0.0:
            self._open_transfer(rank, leg, leg.transfer, rank.leg_end - leg.device_s)
            return
        self.engine.arm(rank, max(now + rank.leg_left / rank.leg_rate, rank.leg_end))

    def _open_transfer(self, rank: Rank, leg: Leg, cost: TransferCost, issued: float) -> None:
        """Begin an inline collective now, or when the host will have issued it."""
        if issued <= self.engine.env.now * (1.0 + TINY):
            self._inline_transfer(rank, cost)
            return
        rank.waiting = leg
        self.engine.arm(rank, issued)

    def _inline_transfer(self, rank: Rank, cost: TransferCost) -> None:
        links = links_between(rank, rank, cost)
        transfer = self.engine.network.start(cost, links)
        rank.waiting = transfer
        transfer.retimed = lambda moved: self.engine.arm(rank, moved.arrival) if rank.waiting is moved else None
        self.engine.arm(rank, transfer.arrival)
        self.disturb(links)

    def disturb(self, links: tuple[tuple[Link, float], ...]) -> None:
        """Split every segment played whole whose inline collectives use one of these links: something else is now on it."""
        for link, _ in links:
            for rank in link.listeners:
                if rank.mode == COALESCED:
                    segment = rank.segment
                    assert segment is not None, "a rank that plays has a segment"
                    if segment.on_port if link is rank.port_out or link is rank.port_in else segment.on_network:
                        self.split(rank)

    def _rate(self, rank: Rank, leg: Leg) -> float:
        """Return the rate of a leg now; only what the device works is slowed down, not what it waits for the host."""
        if not rank.active or leg.transfer is not None:
            return 1.0
        loss = self.engine.job.overlap_loss
        return (1.0 - loss) / (1.0 - loss + loss * leg.working)

    def rerate(self, rank: Rank) -> None:
        """Change the rate of the leg under way: a background collective has started or ended."""
        leg = rank.legs[rank.leg]
        rate = self._rate(rank, leg)
        if rate == rank.leg_rate or leg.transfer is not None:
            return
        now = self.engine.env.now
        rank.leg_idle += max(0.0, now - rank.leg_since - rank.leg_left / rank.leg_rate)
        rank.leg_left = max(0.0, rank.leg_left - (now - rank.leg_since) * rank.leg_rate)
        rank.leg_since = now
        rank.leg_rate = rate
        self.engine.arm(rank, max(now + rank.leg_left / rate, rank.leg_end))

    def split(self, rank: Rank) -> None:
        """Turn a segment that is under way at full rate into legs from where it is."""
        segment, now = rank.segment, self.engine.env.now
        assert segment is not None, "only a segment under way is split"
        rank.host -= segment.launch_s
        rank.legs = segment.legs
        rank.mode = LEGS
        at = rank.segment_start
        for number, leg in enumerate(rank.legs):
            end = max(at + leg.device_s, rank.host + leg.lead_s)
            if end > now or number == len(rank.legs) - 1:
                rank.leg = number
                self._resume_leg(rank, leg, at, end)
                return
            rank.host_wait_s += end - at - leg.device_s
            rank.host += leg.launch_s
            if self.engine.recorder is not None:
                self.engine.recorder.piece(rank, leg, at, end)
            at = end

    def _resume_leg(self, rank: Rank, leg: Leg, begun: float, end: float) -> None:
        """Go on with a leg that began at `begun` and would end at `end`; what the device has not worked since, it waited."""
        now = rank.leg_since = self.engine.env.now
        rank.leg_left = min(leg.device_s, max(0.0, end - now))
        rank.leg_start = begun
        rank.leg_idle = now - begun - (leg.device_s - rank.leg_left)
        rank.leg_end = rank.host + leg.lead_s
        rank.host += leg.launch_s
        rank.leg_rate = self._rate(rank, leg)
        if leg.transfer is not None and rank.leg_left > 0.0:
            self._open_transfer(rank, leg, _remaining(leg.transfer, rank.leg_left), end - leg.device_s)
            return
        self.engine.arm(rank, max(now + rank.leg_left / rank.leg_rate, rank.leg_end))

    def done(self, rank: Rank) -> None:
        """Account a finished leg and go on to the next, or to the next instruction."""
        now = self.engine.env.now
        leg = rank.legs[rank.leg]
        if rank.waiting is leg and leg.transfer is not None:
            rank.host_wait_s += now - rank.leg_start
            rank.leg_start = now
            rank.leg_idle = 0.0
            self._inline_transfer(rank, leg.transfer)
            return
        taken = now - rank.leg_start
        stretch = taken - leg.device_s
        if stretch > 0.0:
            moved = leg.transfer is not None and leg.device_s > 0.0  # one that was all hidden only waits for the host
            idle = 0.0 if moved else max(0.0, now - rank.leg_since - rank.leg_left / rank.leg_rate)
            self._stretched(rank, leg, stretch, rank.leg_idle + idle)
        if self.engine.recorder is not None:
            self.engine.recorder.piece(rank, leg, rank.leg_start, now)
        rank.waiting = None
        rank.leg += 1
        if rank.leg < len(rank.legs):
            self._begin_leg(rank, now)
            return
        rank.mode = IDLE
        self.engine.advance(rank)

    def _stretched(self, rank: Rank, leg: Leg, stretch: float, host_bound: float) -> None:
        """Account time beyond a leg's own: waiting for the host, contention on links, compute slowed by overlap."""
        waited = min(stretch, host_bound)
        rank.host_wait_s += waited
        rest = stretch - waited
        if leg.transfer is not None or leg.device_s <= 0.0:
            add(rank.extra, TENSOR, rest)
            return
        for name, seconds in leg.class_s.items():
            if name != HOST:
                add(rank.extra, name, rest * seconds / (leg.device_s * leg.working))


def _remaining(cost: TransferCost, left_s: float) -> TransferCost:
    """Return what is left of a transfer `left_s` before its arrival; the latency comes last."""
    latency_s = min(cost.latency_s, left_s)
    full_s = left_s - latency_s
    share = full_s / cost.full_s if cost.full_s else 0.0
    return TransferCost(
        latency_s=latency_s, full_s=full_s, port_bytes_per_s=cost.port_bytes_per_s, network_bytes_per_s=cost.network_bytes_per_s,
        wire_bytes=cost.wire_bytes * share,
    )  # fmt: skip
