"""One tier after the other: scatter in the domain, exchange between domains, gather in the domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from foretrain.sim.algorithms.base import PASSES, Algorithm, Group, Option


@final
class Hierarchical(Algorithm):
    """A collective that sends only a rank's own share between domains, so that the network carries 1 / ranks-per-domain of it.

    Per byte of the tensor, with p ranks in each of m domains: (p - 1) / p inside, then (m - 1) / (m p) by each rank outside, one
    after the other; twice for an all-reduce.

    **Source:** Thakur, Rabenseifner, Gropp (2005), section 4; Cho et al., BlueConnect (2019), section 3; used by XLA across slices.
    """

    name = "hierarchical"

    def options(self, group: Group) -> Iterator[Option]:
        """Yield the two stages where the group spans both tiers."""
        span = group.span
        if span.per_domain < 2 or not group.crosses or group.kind not in ("all_reduce", "all_gather", "reduce_scatter"):
            return
        passes = PASSES[group.kind]
        inside, outside = group.inside_bytes_per_s, group.outside_bytes_per_s
        within = (span.per_domain - 1) / span.per_domain / inside
        # Outside, `outside` is what the members on a domain send together; each sends its own part of the tensor.
        across = (span.domains - 1) / span.domains / outside
        wire = (span.ranks - 1) / span.ranks
        for pace in group.pace():
            latency_s = pace.base_s + passes * (span.per_domain - 1) * pace.inside_s + passes * (span.domains - 1) * pace.outside_s
            rate = wire / (within / pace.inside + across / pace.outside)
            yield Option(
                algorithm=self.name, latency_s=latency_s, bytes_per_s=rate,
                port_share=min(1.0, rate / inside), network_share=min(1.0, rate / outside),
            )  # fmt: skip
