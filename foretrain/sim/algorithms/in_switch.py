"""All-reduce that the scale-up switches add up (NVLink SHARP), alone or under a tree over the network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

from foretrain.sim.algorithms.base import Algorithm, Group, Option, wire_share


@final
class InSwitch(Algorithm):
    """Every rank reads its part of the sum from the switch and multicasts it back, over one domain.

    A port carries S out for the others and S / ranks of its own, so time = latency + S (1 + 1 / ranks) / (share · port bandwidth).

    **Source:** Klenk et al., ISCA 2020 (in-network reductions of a scale-up switch), section III; the share is measured.
    """

    name = "in-switch"

    def options(self, group: Group) -> Iterator[Option]:
        """Yield the reduction where the switches can do it; two ranks send less to each other."""
        if group.crosses or not _capable(group):
            return
        yield self.option(latency_s=_start_s(group) + 2.0 * group.up.step_latency_s, inside=_rate(group), outside=math.inf)


@final
class InSwitchTree(Algorithm):
    """In-switch reduction in each domain, a double binary tree between the domains.

    The network carries each byte of the tensor once each way between two domains, twice where inner nodes of a tree have children.

    **Source:** NVIDIA/nccl v2.30, `src/graph/tuning.cc` (NVLSTree).
    """

    name = "in-switch tree"

    def options(self, group: Group) -> Iterator[Option]:
        """Yield the tree where the group crosses domains whose switches reduce."""
        if not group.crosses or not _capable(group):
            return
        depth, span = math.ceil(math.log2(group.span.domains)), group.span
        sent = 1.0 if span.domains == 2 else 2.0
        latency_s = max(group.out.base_latency_s, _start_s(group)) + 2.0 * (group.up.step_latency_s + depth * group.out.step_latency_s)
        outside = group.outside_bytes_per_s * wire_share(group.kind, span.ranks) / sent
        fill_s = 2.0 * depth * group.fill_bytes() / min(_rate(group), outside)
        yield self.option(latency_s=latency_s + fill_s, inside=_rate(group), outside=outside)


def _capable(group: Group) -> bool:
    return group.kind == "all_reduce" and group.span.per_domain > 2 and group.up.in_network_reduction > 0.0


def _start_s(group: Group) -> float:
    return group.up.base_latency_s + group.up.in_network_latency_s


def _rate(group: Group) -> float:
    """Return the bus bandwidth of the reduction in a domain."""
    alone = 1.0 + 1.0 / group.span.per_domain
    port = group.up.bandwidth_bytes_per_s * group.up.in_network_reduction * group.scale
    return port / alone * wire_share(group.kind, group.span.ranks)
