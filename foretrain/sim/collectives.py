"""Where a collective meets a fabric: latency, time at full rate, and what it asks of each link.

A collective of n ranks over S bytes (the full tensor) puts `wire * S` bytes on each rank's port, with wire = 2(n-1)/n for an
all-reduce and (n-1)/n for an all-gather or reduce-scatter. Its time is latency + wire * S / bus bandwidth. Among the algorithms
that the fabric allows the cheapest is taken, as NCCL's tuner does.

**Source:** Thakur, Rabenseifner, Gropp, IJHPCA 19 (2005), section 4 (ring costs); NVIDIA NCCL v2.30, `src/graph/tuning.cc`
(latency per algorithm, choice by least time).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from foretrain.hardware.cluster import Cluster
from foretrain.hardware.fabric import Fabric
from foretrain.sim.placement import Span

WIRE = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}
"""Passes of (n-1)/n of the tensor that each rank sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCost:
    """One transfer, seen from one rank.

    `latency_s` is paid whatever else runs; `full_s` is the rest at full rate. `port_bytes_per_s` and `network_bytes_per_s` are
    what one rank occupies of its scale-up port and of its node's NICs while it runs at full rate, protocol overhead included, so
    that a transfer alone at its plateau occupies the whole link.
    """

    latency_s: float
    full_s: float
    port_bytes_per_s: float
    network_bytes_per_s: float
    wire_bytes: float

    @property
    def total_s(self) -> float:
        """Time when nothing contends."""
        return self.latency_s + self.full_s


NOTHING = TransferCost(latency_s=0.0, full_s=0.0, port_bytes_per_s=0.0, network_bytes_per_s=0.0, wire_bytes=0.0)


def collective(kind: str, size_bytes: float, span: Span, cluster: Cluster, scale: float = 1.0) -> TransferCost:
    """Return the cost of a collective over `size_bytes` of full tensor among the ranks of `span`.

    `scale` multiplies the bus bandwidth (a software's own efficiency).
    """
    if span.ranks == 1 or size_bytes <= 0.0:
        return NOTHING
    wire_bytes = WIRE[kind] * (span.ranks - 1) / span.ranks * size_bytes
    options = [_ring(kind, span, cluster, scale), _tree(kind, span, cluster, scale), _in_switch(kind, span, cluster, scale)]
    latency_s, rate = min(
        (option for option in options if option is not None), key=lambda option: option[0] + wire_bytes / option[1]
    )
    up, out = cluster.node.scale_up, cluster.scale_out
    crossing = 0.0 if span.domains == 1 else rate / span.per_domain / out.efficiency / scale
    return TransferCost(
        latency_s=latency_s,
        full_s=wire_bytes / rate,
        port_bytes_per_s=min(up.bandwidth_bytes_per_s, rate / up.efficiency / scale) if span.per_domain > 1 else 0.0,
        network_bytes_per_s=crossing,
        wire_bytes=wire_bytes,
    )


def send(size_bytes: float, cluster: Cluster, *, crosses: bool, flows: int, scale: float = 1.0) -> TransferCost:
    """Return the cost of one point-to-point send when `flows` ranks of the node send at the same time."""
    if size_bytes <= 0.0:
        return NOTHING
    up, out, node = cluster.node.scale_up, cluster.scale_out, cluster.node
    if not crosses:
        port, network, tier = up.bandwidth_bytes_per_s, 0.0, up
    else:
        port, network, tier = 0.0, min(node.nic_bytes_per_s, node.network_bytes_per_s / flows), out
    rate = (port or network) * tier.point_to_point_efficiency * scale
    return TransferCost(
        latency_s=tier.step_latency_s, full_s=size_bytes / rate, port_bytes_per_s=port, network_bytes_per_s=network, wire_bytes=size_bytes
    )


def _bandwidth(span: Span, cluster: Cluster, scale: float) -> float:
    """Return the plateau bus bandwidth of a ring: the slower of the port and the group's share of the NICs."""
    up, out = cluster.node.scale_up, cluster.scale_out
    inside = up.bandwidth_bytes_per_s * up.efficiency if span.per_domain > 1 else math.inf
    if up.topology == "mesh" and span.domains == 1:
        inside *= min(1.0, (span.ranks - 1) / (up.domain - 1))
    outside = span.network_bytes_per_s * out.efficiency
    return min(inside, outside) * scale


def _steps(span: Span, fabric: Fabric) -> float:
    """Return the steps of one pass of a ring inside a domain; a torus runs its dimensions one after another."""
    dimensions = {"torus-2d": 2, "torus-3d": 3}.get(fabric.topology, 1)
    return float(dimensions * (span.per_domain ** (1 / dimensions) - 1))


def _fill(span: Span, kind: str, rate: float, fabric: Fabric) -> float:
    """Return the time to bring a ring up to rate: half_bytes_per_rank more bytes on each of its chunks."""
    return WIRE[kind] * (span.ranks - 1) * fabric.half_bytes_per_rank / rate


def _ring(kind: str, span: Span, cluster: Cluster, scale: float) -> tuple[float, float]:
    up, out = cluster.node.scale_up, cluster.scale_out
    rate = _bandwidth(span, cluster, scale)
    inside = _steps(span, up) * span.domains * up.step_latency_s
    outside = 0.0 if span.domains == 1 else span.domains * out.step_latency_s
    base = up.base_latency_s if span.domains == 1 else max(up.base_latency_s, out.base_latency_s)
    fill = _fill(span, kind, rate, up if span.domains == 1 else out)
    return base + WIRE[kind] * (inside + outside) + fill, rate


def _tree(kind: str, span: Span, cluster: Cluster, scale: float) -> tuple[float, float] | None:
    """Return a double binary tree over domains with chains inside them (all-reduce), or a PAT-like tree for the halves."""
    if span.domains < 2:
        return None
    up, out = cluster.node.scale_up, cluster.scale_out
    rate = 0.92 * _bandwidth(span, cluster, scale)  # NCCL's tree correction for large messages, tuning.cc
    depth = math.ceil(math.log2(span.domains))
    latency = max(up.base_latency_s, out.base_latency_s) + WIRE[kind] * (
        (span.per_domain - 1) * up.step_latency_s + depth * out.step_latency_s
    )
    fill = WIRE[kind] * (depth + span.per_domain) * out.half_bytes_per_rank / rate
    return latency + fill, rate


def _in_switch(kind: str, span: Span, cluster: Cluster, scale: float) -> tuple[float, float] | None:
    """Return an all-reduce that the switches of one domain add up (NVLink SHARP)."""
    up = cluster.node.scale_up
    if kind != "all_reduce" or span.domains > 1 or not up.in_network_reduction or span.ranks < 3:
        return None
    rate = up.bandwidth_bytes_per_s * up.in_network_reduction * scale
    return up.base_latency_s + 2 * up.step_latency_s + _fill(span, kind, rate, up), rate
