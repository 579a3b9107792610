"""Joules of a step: a baseline for as long as it lasts, what every instruction adds, supplies and the facility on top.

    E = PUE / η · ( (P_idle + P_host/g + P_network) · n · T  +  Σ_ranks Σ_instructions dynamic )

with g accelerators per node, n accelerators and η the efficiency of the supplies. Dynamic energy is per FLOP, per byte of memory and
link, and per second busy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foretrain.hardware.cluster import Cluster
from foretrain.sim.rank import Rank
from foretrain.sim.segment import Segment

METER_S = 0.025
"""Time over which a meter averages where the profile names none."""
DYNAMIC = ("math", "memory", "links", "busy")
OF_ACCELERATOR = ("idle", *DYNAMIC)


def baseline_w(cluster: Cluster) -> dict[str, float]:
    """Return the watts of one accelerator and its shares of host and network that a step draws whatever its instructions, by part."""
    node = cluster.node
    return {
        "idle": cluster.accelerator.power.idle_w,
        "host": (node.host_w + node.host_busy_w + node.fan_w) / node.accelerators,
        "network": cluster.facility.network_w_per_accelerator + (node.nic_w + node.switch_w) / node.accelerators,
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
    """Return the joules of a step over all accelerators by part, the losses of supplies and the facility's overhead last."""
    accelerators = sum(rank.program.multiplicity for rank in ranks)
    parts = {name: watts * step_s * accelerators for name, watts in baseline_w(cluster).items()}
    parts |= dict.fromkeys(DYNAMIC, 0.0)
    for rank in ranks:
        for part, joules in dynamic_j(rank, segments, cluster.accelerator.power.link_j_per_byte).items():
            parts[part] += joules * rank.program.multiplicity
    if cluster.node.supply_efficiency < 1.0:
        parts["supply"] = (1.0 / cluster.node.supply_efficiency - 1.0) * sum(parts.values())
    parts["facility"] = (cluster.facility.pue - 1.0) * sum(parts.values())
    return parts


def step_power(
    cluster: Cluster, ranks: Sequence[Rank], segments: Sequence[Segment], energy: Mapping[str, float], step_s: float
) -> Mapping[str, float]:
    """Return mean and peak watts of an accelerator (at its own meter), of a node (at the wall) and of the cluster (at the facility's).

    The peak of an accelerator is the highest mean power of one pass, as a meter that averages over tens of milliseconds shows it;
    those of node and cluster are for all accelerators at their peak at once.
    """
    accelerators = sum(rank.program.multiplicity for rank in ranks)
    mean_w = sum(energy[part] for part in OF_ACCELERATOR) / step_s / accelerators
    power = cluster.accelerator.power
    peak_w = max(mean_w, _highest_w(ranks, segments, power.idle_w, mean_w, power.clocks.window_s if power.clocks else METER_S))
    beside_w = sum(watts for name, watts in baseline_w(cluster).items() if name != "idle") - cluster.facility.network_w_per_accelerator
    per_node, efficiency = min(cluster.node.accelerators, accelerators), cluster.node.supply_efficiency
    overhead = cluster.facility.pue / efficiency
    network_w = cluster.facility.network_w_per_accelerator
    return {
        "accelerator_mean_w": mean_w,
        "accelerator_peak_w": peak_w,
        "node_mean_w": per_node * (mean_w + beside_w) / efficiency,
        "node_peak_w": per_node * (peak_w + beside_w) / efficiency,
        "cluster_mean_w": sum(energy.values()) / step_s,
        "cluster_peak_w": accelerators * (peak_w + beside_w + network_w) * overhead,
    }


def mean_clock_hz(ranks: Sequence[Rank], segments: Sequence[Segment]) -> float:
    """Return the clock of the compute units, averaged over the time that they work; 0 where the profile has no clocks."""
    worked = turned = 0.0
    for rank in ranks:
        for segment, count in zip(segments, rank.counts, strict=True):
            seconds = rank.program.multiplicity * count * segment.device_s
            worked += seconds
            turned += seconds * segment.clock_hz
    return turned / worked if worked else 0.0


def _highest_w(ranks: Sequence[Rank], segments: Sequence[Segment], idle_w: float, mean_w: float, window_s: float) -> float:
    """Return the highest power of a pass over a window; what a short pass leaves of the window is at mean power."""
    played = {index for rank in ranks for index, count in enumerate(rank.counts) if count}
    highest = mean_w
    for segment in (segments[index] for index in played):
        seconds = max(segment.device_s, window_s)
        highest = max(highest, mean_w + ((idle_w - mean_w) * segment.device_s + sum(segment.joules.values())) / seconds)
    return highest
