"""Where a collective meets a fabric: latency, time at full rate, and what it asks of each link.

A collective of n ranks over S bytes (the full tensor) puts `wire_share · S` bytes on each rank's port: 2(n-1)/n for an all-reduce,
(n-1)/n for an all-gather, reduce-scatter or all-to-all, 1 for a broadcast. Its time is latency + wire bytes / bus bandwidth. Among
the algorithms and protocols that library and fabric allow the cheapest for the size is taken: the least of rising straight lines,
so time neither jumps nor falls as bytes grow.

**Source:** NVIDIA/nccl v2.30, `src/graph/tuning.cc` (latency per algorithm and protocol, choice by least time).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import NamedTuple

from foretrain.hardware.cluster import Cluster
from foretrain.hardware.fabric import Fabric
from foretrain.sim.algorithms.base import Group, Option, wire_share
from foretrain.sim.algorithms.registry import algorithms
from foretrain.sim.nearness import Nearness
from foretrain.sim.placement import Span


class Payload(NamedTuple):
    """What a transfer carries: of a collective the full tensor, of a message what is sent."""

    op: str
    size_bytes: float
    ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCost:
    """One transfer, seen from one rank.

    `latency_s` is paid whatever else runs; `full_s` is the rest at full rate. `port_bytes_per_s` and `network_bytes_per_s` are
    what one rank occupies of its scale-up port and of its node's NICs while it runs at full rate, protocol overhead included, so
    that a transfer alone at its plateau occupies the whole link. `payload` is what it carries, whatever it costs.
    """

    latency_s: float
    full_s: float
    port_bytes_per_s: float
    network_bytes_per_s: float
    wire_bytes: float
    payload: Payload | None = None

    @property
    def total_s(self) -> float:
        """Time when nothing contends."""
        return self.latency_s + self.full_s

    def times(self, factor: float) -> TransferCost:
        """Return the transfer taking so many times as long."""
        return replace(self, latency_s=self.latency_s * factor, full_s=self.full_s * factor)


NOTHING = TransferCost(latency_s=0.0, full_s=0.0, port_bytes_per_s=0.0, network_bytes_per_s=0.0, wire_bytes=0.0)


def collective(kind: str, size_bytes: float, span: Span, cluster: Cluster, scale: float = 1.0) -> TransferCost:
    """Return the cost of a collective over `size_bytes` of full tensor among the ranks of `span`.

    `kind` is all_reduce, all_gather, reduce_scatter, all_to_all or broadcast; `scale` multiplies the bus bandwidth (a software's
    own efficiency).
    """
    if span.ranks == 1 or size_bytes <= 0.0:
        return NOTHING
    cost, rows = _collective(kind, size_bytes, span, cluster, scale), cluster.node.scale_up.rows(kind)
    if span.domains > 1 or not rows:
        return cost
    nearness = _nearness(kind, cluster.node.scale_up, cluster.node.accelerators)
    return cost.times(nearness.factor((float(span.ranks), size_bytes)))


@functools.lru_cache(maxsize=64)
def _nearness(kind: str, up: Fabric, host: int) -> Nearness:
    """Return how far messages that were measured inside a domain are from what its fabric says of them."""

    def priced_s(row: tuple[float, ...]) -> float:
        ranks, size_bytes = int(row[0]), row[1]
        if kind == "send":
            rate = up.bandwidth_bytes_per_s * up.point_to_point_efficiency
            return (up.point_to_point_latency_s or up.step_latency_s) + size_bytes / rate
        span = Span(ranks=ranks, domains=1, per_domain=ranks, network_bytes_per_s=float("inf"))
        wire_bytes = wire_share(kind, ranks) * size_bytes
        return min(option.latency_s + wire_bytes / option.bytes_per_s for option in options(kind, span, up, up, host, 1.0))

    return Nearness(up.rows(kind), priced_s)


def _collective(kind: str, size_bytes: float, span: Span, cluster: Cluster, scale: float) -> TransferCost:
    wire_bytes = wire_share(kind, span.ranks) * size_bytes
    best = choice(kind, size_bytes, span, cluster, scale)
    port = cluster.node.scale_up.bandwidth_bytes_per_s if span.per_domain > 1 else 0.0
    network = span.network_bytes_per_s / span.per_domain if span.domains > 1 else 0.0
    return TransferCost(
        latency_s=best.latency_s,
        full_s=wire_bytes / best.bytes_per_s,
        port_bytes_per_s=port * best.port_share,
        network_bytes_per_s=network * best.network_share,
        wire_bytes=wire_bytes,
        payload=Payload(kind, size_bytes, span.ranks),
    )


def choice(kind: str, size_bytes: float, span: Span, cluster: Cluster, scale: float = 1.0) -> Option:
    """Return the quickest way to run a collective of this size."""
    wire_bytes = wire_share(kind, span.ranks) * size_bytes
    found = options(kind, span, cluster.node.scale_up, cluster.scale_out, cluster.node.accelerators, scale)
    return min(found, key=lambda option: option.latency_s + wire_bytes / option.bytes_per_s)


@functools.lru_cache(maxsize=4096)
def options(kind: str, span: Span, up: Fabric, out: Fabric, host: int, scale: float) -> tuple[Option, ...]:
    """Return every way to run a collective among the ranks of `span`, whatever its size."""
    group = Group(kind=kind, span=span, up=up, out=out, host=host, scale=scale)
    library = algorithms(up.library, "none" if group.crosses else up.topology)
    return tuple(option for algorithm in library for option in algorithm.options(group))


def ring_send(size_bytes: float, span: Span, cluster: Cluster, scale: float = 1.0) -> TransferCost:
    """Return the cost of one step of a ring: each rank of `span` sends to the next, the slowest hop sets the pace.

    Of a group that lies over several domains one member in each sends out of it, and has the group's share of the NICs.
    """
    if span.ranks == 1:
        return NOTHING
    if span.domains == 1:
        return send(size_bytes, cluster, crosses=False, flows=1, scale=scale)
    groups = max(1, round(cluster.node.network_bytes_per_s / span.network_bytes_per_s))
    cost = send(size_bytes, cluster, crosses=True, flows=groups, scale=scale)
    return replace(cost, network_bytes_per_s=cost.network_bytes_per_s / span.per_domain)


def send(size_bytes: float, cluster: Cluster, *, crosses: bool, flows: int, scale: float = 1.0) -> TransferCost:
    """Return the cost of one point-to-point send when `flows` ranks of the node send at the same time."""
    if size_bytes <= 0.0:
        return NOTHING
    cost, rows = _send(size_bytes, cluster, crosses=crosses, flows=flows, scale=scale), cluster.node.scale_up.rows("send")
    if crosses or not rows:
        return cost
    return cost.times(_nearness("send", cluster.node.scale_up, cluster.node.accelerators).factor((2.0, size_bytes)))


def _send(size_bytes: float, cluster: Cluster, *, crosses: bool, flows: int, scale: float) -> TransferCost:
    up, out, node = cluster.node.scale_up, cluster.scale_out, cluster.node
    if not crosses:
        port, network, tier = up.bandwidth_bytes_per_s, 0.0, up
    else:
        port, network, tier = 0.0, min(node.nic_bytes_per_s, node.network_bytes_per_s / flows), out
    rate = (port or network) * tier.point_to_point_efficiency * scale
    latency_s = tier.point_to_point_latency_s or tier.step_latency_s
    return TransferCost(
        latency_s=latency_s, full_s=size_bytes / rate, port_bytes_per_s=port, network_bytes_per_s=network, wire_bytes=size_bytes,
        payload=Payload("send", size_bytes, 2),
    )  # fmt: skip
