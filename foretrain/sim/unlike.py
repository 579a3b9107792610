"""Which replicas of a class a disturbance leaves alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from foretrain.hardware.cluster import Cluster
from foretrain.sim.disturbance import Disturbance
from foretrain.sim.plan import Plan


def unlike(
    classes: Sequence[Sequence[int]], cluster: Cluster, plan: Plan, disturbance: Disturbance
) -> tuple[Sequence[int], ...]:
    """Return the classes of replicas, each split where devices or links of its members are not equally slow."""
    if not (disturbance.ranks or disturbance.nodes or disturbance.links):
        return tuple(classes)
    split: dict[tuple[object, ...], list[int]] = {}
    for number, members in enumerate(classes):
        for replica in members:
            split.setdefault((number, *_factors(replica, cluster, plan, disturbance)), []).append(replica)
    return tuple(split.values())


def _factors(replica: int, cluster: Cluster, plan: Plan, disturbance: Disturbance) -> list[tuple[float, float]]:
    """Return how slow the device and the links of every rank of a replica are, rank by rank."""
    per_node, strides = cluster.node.accelerators, plan.strides
    found = []
    for stage, c, t in product(range(plan.pp), range(plan.cp), range(plan.tp)):
        rank = stage * strides["pp"] + replica * strides["dp"] + c * strides["cp"] + t * strides["tp"]
        found.append((disturbance.device_factor(rank, per_node), disturbance.links.get(rank // per_node, 1.0)))
    return found
