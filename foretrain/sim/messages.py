"""Point-to-point messages: a sender never waits unless it must, and a message that nobody waits for is no event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretrain.sim.links import Transfer
from foretrain.sim.program import ChannelSpec
from foretrain.sim.rank import BLOCKED, IDLE, Channel, Rank, links_between

if TYPE_CHECKING:
    from foretrain.sim.engine import Engine

TINY = 1e-15
"""Relative slack when a time that was scheduled is compared with the clock that it became."""


class Messages:
    """The channels of a job and what is under way on them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.channels = [self._channel(spec) for spec in engine.job.channels]

    def _channel(self, spec: ChannelSpec) -> Channel:
        source, target = self.engine.ranks[spec.source], self.engine.ranks[spec.target]
        return Channel(source, target, spec.cost, links_between(source, target, spec.cost))

    def send(self, rank: Rank, number: int, now: float) -> Transfer:
        """Put a message on its way."""
        channel = self.channels[number]
        transfer = self.engine.network.start(channel.cost, channel.links)
        transfer.channel = channel
        transfer.retimed = self._retimed
        rank.link_bytes += channel.cost.wire_bytes
        channel.queue.append(transfer)
        if channel.listened:
            self.engine.legs.disturb(channel.links)
        if channel.waiter is not None and len(channel.queue) == 1:
            self.engine.arm(channel.waiter, transfer.arrival)
        return transfer

    def send_and_wait(self, rank: Rank, number: int, now: float) -> None:
        """Put a message on its way and block the sender until it has arrived."""
        transfer = self.send(rank, number, now)
        rank.mode = BLOCKED
        rank.waiting = transfer
        rank.messages_exposed_s += transfer.arrival - now
        self.engine.arm(rank, transfer.arrival)

    def receive(self, rank: Rank, number: int, now: float) -> bool:
        """Take the next message of a channel; False where it is not there yet and the rank waits."""
        channel = self.channels[number]
        queue = channel.queue
        if queue and queue[0].end + queue[0].latency_s - now <= TINY * now:
            transfer = queue.popleft()
            rank.messages_s += transfer.end + transfer.latency_s - transfer.started
            if self.engine.recorder is not None:
                self.engine.recorder.message(channel, transfer.started, transfer.arrival)
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
            self.engine.arm(rank, queue[0].arrival)
        return False

    def _retimed(self, transfer: Transfer) -> None:
        channel = transfer.channel
        if channel is None:
            return
        if channel.waiter is not None and channel.queue and channel.queue[0] is transfer:
            self.engine.arm(channel.waiter, transfer.arrival)
        sender = channel.source
        if sender.mode == BLOCKED and sender.waiting is transfer:
            sender.messages_exposed_s += transfer.arrival - sender.wake_at
            self.engine.arm(sender, transfer.arrival)
