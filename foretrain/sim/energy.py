"""Joules of a step: a baseline for as long as it lasts, what every instruction adds, and the facility on top.

    E = PUE · ( (P_idle + P_host/g + P_network) · n · T  +  Σ_ranks Σ_instructions dynamic )

with g accelerators per node and n accelerators. Dynamic energy is per FLOP, per byte of memory and link, and per second busy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foretrain.hardware.cluster import Cluster
from foretrain.sim.rank import Rank
from foretrain.sim.segment import Segment

DYNAMIC = ("math", "memory", "links", "busy")


def baseline_w(cluster: Cluster) -> dict[str, float]:
    """Return the watts of one accelerator and its shares of host and network while nothing runs, by part."""
    return {
        "idle": cluster.accelerator.power.idle_w,
        "host": cluster.node.host_w / cluster.node.accelerators,
        "network": cluster.facility.network_w_per_accelerator,
    }


def dynamic_j(rank: Rank, segments: Sequence[Segment], link_j_per_byte: float) -> dict[str, float]:
    """Return the joules that one accelerator's instructions added, by part."""
    total = dict.fromkeys(DYNAMIC, 0.0)
    for segment, count in zip(segments, rank.counts, strict=True):
        if count:
            for part, joules in segment.joules.items():
                total[part] += joules * count
    total["links"] += rank.link_bytes * link_j_per_byte
    return total


def step_energy(cluster: Cluster, ranks: Sequence[Rank], segments: Sequence[Segment], step_s: float) -> Mapping[str, float]:
    """Return the joules of a step over all accelerators by part, the facility's overhead last."""
    accelerators = sum(rank.program.multiplicity for rank in ranks)
    parts = {name: watts * step_s * accelerators for name, watts in baseline_w(cluster).items()}
    parts |= dict.fromkeys(DYNAMIC, 0.0)
    for rank in ranks:
        for part, joules in dynamic_j(rank, segments, cluster.accelerator.power.link_j_per_byte).items():
            parts[part] += joules * rank.program.multiplicity
    parts["facility"] = (cluster.facility.pue - 1.0) * sum(parts.values())
    return parts
