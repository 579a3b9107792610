"""The double binary tree over hosts, with a chain through the ranks of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

from foretrain.sim.algorithms.base import Algorithm, Group, Option

SHARE = 0.92
"""Of a ring's bandwidth: two trees keep the links less evenly busy. **Source:** NVIDIA/nccl v2.30, `src/graph/tuning.cc`."""


@final
class Tree(Algorithm):
    """An all-reduce up and down two complementary binary trees, whose depth grows with the logarithm of the hosts.

    latency = base + 2 · ((ranks per host - 1) · inside step + log2(hosts of a domain) · inside step + log2(domains) · outside step)

    **Source:** Sanders, Speck, Träff, Parallel Computing 35 (2009), section 4; NVIDIA/nccl v2.30, `src/graph/tuning.cc`.
    """

    name = "tree"

    def options(self, group: Group) -> Iterator[Option]:
        """Yield the tree at full rate and in every quick protocol, where there is more than one host."""
        span = group.span
        chain = min(group.host, span.per_domain)
        hosts = -(-span.per_domain // chain)
        if group.kind != "all_reduce" or span.domains * hosts < 2:
            return
        within, across = chain - 1 + math.ceil(math.log2(hosts)), math.ceil(math.log2(span.domains))
        inside, outside = group.inside_bytes_per_s * SHARE, group.outside_bytes_per_s
        fill_s = 2.0 * (within + across) * group.fill_bytes() / min(inside, outside)
        for pace in group.pace():
            latency_s = pace.base_s + 2.0 * (within * pace.inside_s + across * pace.outside_s) + fill_s * pace.full
            yield self.option(latency_s=latency_s, inside=inside, outside=outside, pace=pace)
