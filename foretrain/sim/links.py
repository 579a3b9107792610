"""Transfers that share links: max-min fair, re-timed only when somebody starts or stops.

A transfer that is alone, or whose links have room for all their users, runs at full rate and costs no event. Where a link is
asked for more than it carries, all transfers that it connects are re-rated by progressive filling, and each end is an event.

**Source:** Bertsekas and Gallager, Data Networks (1992), section 6.5.2 (max-min fairness by progressive filling).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simpy import Environment
from simpy.events import NORMAL, Event

from foretrain.sim.collectives import TransferCost

if TYPE_CHECKING:
    from foretrain.sim.rank import Channel, Rank

ROOM = 1.0 + 1e-9
"""Slack on a link's capacity, so that demands that add up to it exactly are not taken for contention by rounding."""


class Link:
    """One direction of a port or of a node's NICs; `listeners` are the ranks whose inline collectives use it.

    A `narrow` one carries less than a transfer at full rate may ask for.

    `last` is a time from which on nobody uses it, as far as is known: users that are done by then need no look.
    """

    __slots__ = ("capacity", "last", "listeners", "name", "narrow", "users")

    def __init__(self, name: str, capacity: float, *, narrow: bool = False) -> None:
        self.name = name
        self.narrow = narrow
        self.capacity = capacity
        self.last = 0.0
        self.users: list[Transfer] = []
        self.listeners: list[Rank] = []

    def busy(self, now: float) -> bool:
        """Tell whether anything is under way on this link."""
        return self.last > now and any(user.end > now and not user.ended for user in self.users)


class Transfer:
    """Bytes on their way. `left_s` is what remains at full rate, `speed` the fraction of it; latency follows the last byte."""

    __slots__ = (
        "channel", "cost", "end", "ended", "event", "latency_s", "left_s", "links", "retimed", "shared", "since", "speed", "started",
    )  # fmt: skip

    def __init__(self, cost: TransferCost, links: tuple[tuple[Link, float], ...], now: float) -> None:
        self.latency_s = cost.latency_s
        self.left_s = cost.full_s
        self.cost = cost
        self.links = links
        self.speed = 1.0
        self.since = self.started = now
        self.end = now + cost.full_s
        self.shared = False
        self.ended = False
        self.event: Event | None = None
        self.channel: Channel | None = None
        self.retimed: Callable[[Transfer], None] | None = None

    @property
    def rate(self) -> float:
        """Bytes per second of one flow at full rate."""
        return self.cost.wire_bytes / self.cost.full_s if self.cost.full_s > 0.0 and self.cost.wire_bytes > 0.0 else 1.0

    @property
    def arrival(self) -> float:
        """When the last byte is there, as far as is known now."""
        return self.end + self.latency_s


class Network:
    """Starts transfers and shares links among them."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.shares = 0

    def start(self, cost: TransferCost, links: tuple[tuple[Link, float], ...]) -> Transfer:
        """Return a transfer that begins now; others on its links are re-timed if they no longer fit."""
        now = self.env._now
        transfer = Transfer(cost, links, now)
        if cost.full_s <= 0.0:
            return transfer  # nothing but latency, which shares no link
        crowded = False
        end = transfer.end
        for link, demand in links:
            if link.last <= now:
                link.users = [transfer]
                link.last = end
                crowded = crowded or (link.narrow and demand > link.capacity * ROOM)
                continue
            link.users = [user for user in link.users if user.end > now and not user.ended]
            if (link.users or link.narrow) and _asked(link) + demand > link.capacity * ROOM:
                crowded = True
            link.users.append(transfer)
            link.last = max(link.last, end)
        if crowded:
            self._share(transfer)
        return transfer

    def _share(self, seed: Transfer) -> None:
        """Re-rate every transfer that shares a link, directly or through others, with `seed`."""
        now = self.env.now
        self.shares += 1
        group = _connected(seed, now)
        for transfer in group:
            transfer.left_s = max(0.0, transfer.left_s - (now - transfer.since) * transfer.speed)
            transfer.since = now
        for transfer, speed in zip(group, fair_speeds(group), strict=True):
            transfer.speed = speed
            transfer.end = now + transfer.left_s / speed
            for link, _ in transfer.links:
                link.last = max(link.last, transfer.end)
            transfer.shared = True
            self._watch(transfer)
            if transfer.retimed is not None:
                transfer.retimed(transfer)

    def _watch(self, transfer: Transfer) -> None:
        event = Event(self.env)
        event._ok, event._value = True, None
        event.callbacks = [lambda fired: self._ended(transfer, fired)]
        transfer.event = event
        self.env.schedule(event, NORMAL, transfer.end - self.env.now)

    def _ended(self, transfer: Transfer, fired: Event) -> None:
        if transfer.event is not fired:
            return
        transfer.ended = True
        for link, _ in transfer.links:
            link.users = [user for user in link.users if user is not transfer]
        for link, _ in transfer.links:
            slowed = next((user for user in link.users if user.speed < 1.0 and not user.ended), None)
            if slowed is not None:
                self._share(slowed)


def _asked(link: Link) -> float:
    return sum(demand for user in link.users for other, demand in user.links if other is link)


def _connected(seed: Transfer, now: float) -> list[Transfer]:
    group, frontier = [seed], [seed]
    while frontier:
        for link, _ in frontier.pop().links:
            for user in link.users:
                if user not in group and not user.ended and user.end > now:
                    group.append(user)
                    frontier.append(user)
    return group


def fair_speeds(group: list[Transfer]) -> list[float]:
    """Return the max-min fair speed of each transfer, as a fraction of its full rate.

    All flows rise together, in bytes per second; a transfer stops rising at its full rate or when a link of its is full.
    """
    speeds = [0.0] * len(group)
    rising = set(range(len(group)))
    room = {id(link): link.capacity for transfer in group for link, _ in transfer.links}
    while rising:
        asked: dict[int, float] = {}
        for index in rising:
            for link, demand in group[index].links:
                asked[id(link)] = asked.get(id(link), 0.0) + demand / group[index].rate
        rise = min((1.0 - speeds[index]) * group[index].rate for index in rising)
        rise = min([rise] + [max(0.0, room[key]) / total for key, total in asked.items() if total > 0.0])
        for index in rising:
            speeds[index] += rise / group[index].rate
        for key, total in asked.items():
            room[key] -= rise * total
        full = {key for key, total in asked.items() if room[key] <= 1e-9 * rise * total}
        stopped = {i for i in rising if speeds[i] >= 1.0 - 1e-12 or any(id(link) in full for link, _ in group[i].links)}
        if not stopped:
            break
        rising -= stopped
    return [max(speed, 1e-12) for speed in speeds]
