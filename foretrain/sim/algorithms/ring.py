"""The ring: every rank sends to its neighbour, once round for a gather, a scatter or a broadcast, twice for an all-reduce."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from foretrain.sim.algorithms.base import PASSES, Algorithm, Group, Option


@final
class Ring(Algorithm):
    """A pipelined ring through all ranks, domain after domain.

    latency = base + passes · ((ranks - domains) · inside step + (domains - 1) · outside step) + the time to fill the steps

    **Source:** Thakur, Rabenseifner, Gropp, IJHPCA 19 (2005), section 4; NVIDIA/nccl v2.30, `src/graph/tuning.cc`.
    """

    name = "ring"

    def options(self, group: Group) -> Iterator[Option]:
        """Yield the ring at full rate and in every quick protocol."""
        if group.kind not in PASSES or group.kind == "all_to_all":
            return
        span, passes = group.span, PASSES[group.kind]
        inside, outside = group.inside_bytes_per_s, group.outside_bytes_per_s
        across = passes * (span.domains - 1)
        within = passes * (span.ranks - span.domains)
        fill_s = passes * (span.ranks - 1) * group.fill_bytes() / min(inside, outside)
        for pace in group.pace():
            latency_s = pace.base_s + within * pace.inside_s + across * pace.outside_s + fill_s * pace.full
            yield self.option(latency_s=latency_s, inside=inside, outside=outside, pace=pace)
