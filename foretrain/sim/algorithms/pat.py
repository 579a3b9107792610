"""PAT: parallel aggregated trees, for gathers and scatters among many hosts with one rank each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

from foretrain.sim.algorithms.base import Algorithm, Group, Option

SHARE = 0.75
"""Of a ring's bandwidth."""
OVERLAP = 3.5
"""Steps of different trees that run at once."""
PER_RANK_S = 2.8e-6
"""Work of every rank for each rank."""


@final
class Pat(Algorithm):
    """A gather or scatter in log2(ranks) rounds.

    latency = base + log2(ranks) · step / 3.5 + 2.8 µs · ranks

    **Source:** NVIDIA/nccl v2.30, `src/graph/tuning.cc`; Jeaugey, arXiv:2506.20252 (PAT).
    """

    name = "pat"

    def options(self, group: Group) -> Iterator[Option]:
        """Yield the trees where every domain has one rank."""
        span = group.span
        if group.kind not in ("all_gather", "reduce_scatter") or span.per_domain > 1 or span.domains < 3:
            return
        latency_s = group.out.base_latency_s + math.log2(span.domains) * group.out.step_latency_s / OVERLAP + PER_RANK_S * span.ranks
        yield self.option(latency_s=latency_s, inside=math.inf, outside=SHARE * group.outside_bytes_per_s)
