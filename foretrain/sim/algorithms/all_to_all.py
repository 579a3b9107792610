"""All-to-all: every rank sends a part of its tensor to every other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

from foretrain.sim.algorithms.base import Algorithm, Group, Option
from foretrain.sim.algorithms.torus import AXES, shape


@final
class AllToAll(Algorithm):
    """Sends and receives between all pairs at once.

    A rank sends S / ranks to each other rank: inside its domain through its port, outside through the NICs, both at the same time;
    the slower sets the pace. What leaves a pod crosses its oversubscribed links. On a torus a byte passes side / 4 links of an axis.

    **Source:** NVIDIA/nccl v2.30, `ncclAlltoAll` (grouped sends and receives); Dally and Towles, Principles and Practices of
    Interconnection Networks (2004), section 5.2.1 (bisection of a torus).
    """

    name = "all-to-all"

    def options(self, group: Group) -> Iterator[Option]:
        """Yield the exchange."""
        if group.kind != "all_to_all":
            return
        span = group.span
        inside = self._inside(group)
        leaving = (span.ranks - span.per_domain) / (span.ranks - 1)
        # One rank's share of the NICs is the group's over its members on a domain.
        outside = group.outside_bytes_per_s / span.per_domain / leaving * _uplinks(group) if group.crosses else math.inf
        for pace in group.pace():
            # All partners of a tier are served at once; each costs the sender a fraction of a step to post.
            latency_s = pace.base_s + pace.inside_s + (pace.outside_s if group.crosses else 0.0) + POSTING_S * (span.ranks - 1)
            yield self.option(latency_s=latency_s, inside=inside, outside=outside, pace=pace)

    @staticmethod
    def _inside(group: Group) -> float:
        span, up = group.span, group.up
        if span.per_domain < 2:
            return math.inf
        share = (span.ranks - 1) / (span.per_domain - 1)
        axes = AXES.get(up.topology)
        if axes is None:
            return group.inside_bytes_per_s * share
        used, side = shape(up, span.per_domain)
        hops = used * (side / 4.0 if side >= up.wraparound else side / 3.0)
        return group.inside_bytes_per_s * share * (used / axes) / max(1.0, hops)


POSTING_S = 1e-6
"""Host and proxy work to post one send and one receive."""


def _uplinks(group: Group) -> float:
    """Return the share of injection bandwidth left where part of the traffic goes between pods."""
    members, ranks = group.pod_members, group.span.ranks
    if members >= ranks:
        return 1.0
    beyond = (ranks - members) / (ranks - group.span.per_domain)
    return 1.0 / max(1.0, beyond * group.out.oversubscription)
