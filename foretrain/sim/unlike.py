"""Which replicas of a class are alike: by what stands beside them on their nodes, and by what a disturbance makes slow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import product

from foretrain.hardware.cluster import Cluster
from foretrain.sim.disturbance import Disturbance
from foretrain.sim.plan import Plan

MOST = 16
"""Classes up to which they are split by those beside them; a chain of replicas, each unlike the next, would be as many as they are."""


def beside_alike(classes: Sequence[Sequence[int]], cluster: Cluster, plan: Plan) -> tuple[Sequence[int], ...]:
    """Return the classes of replicas, split until the nodes of the members of each hold like ranks, which share their NICs.

    **Source:** Weisfeiler, Leman (1968): colours of vertices refined by those of their neighbours.
    """
    split = _beside(classes, cluster.node.accelerators, plan)
    while len(classes) < len(split) <= MOST:
        classes, split = split, _beside(split, cluster.node.accelerators, plan)
    return tuple(classes)


def _beside(classes: Sequence[Sequence[int]], per_node: int, plan: Plan) -> tuple[Sequence[int], ...]:
    """Return the classes, each split by how many ranks of each stage and class are on the nodes of its members, stage by stage."""
    homes = {replica: _homes(replica, per_node, plan) for members in classes for replica in members}
    on_node: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
    for number, members in enumerate(classes):
        for stage, node, ranks in (home for replica in members for home in homes[replica]):
            on_node[node][stage, number] += ranks
    kinds: dict[frozenset[tuple[tuple[int, int], int]], int] = {}
    kind = {node: kinds.setdefault(frozenset(counts.items()), len(kinds)) for node, counts in on_node.items()}
    split: dict[tuple[int, ...], list[int]] = {}
    for number, members in enumerate(classes):
        for replica in members:
            split.setdefault((number, *(kind[node] for _, node, _ in homes[replica])), []).append(replica)
    return tuple(split.values())


def _homes(replica: int, per_node: int, plan: Plan) -> list[tuple[int, int, int]]:
    """Return (stage, node, ranks on it) of every stage of a replica; its tensor-parallel ranks are neighbours in number."""
    strides = plan.strides
    firsts = [stage * strides["pp"] + replica * strides["dp"] for stage in range(plan.pp)]
    return [
        (stage, node, min(first + plan.tp, (node + 1) * per_node) - max(first, node * per_node))
        for stage, first in enumerate(firsts)
        for node in range(first // per_node, (first + plan.tp - 1) // per_node + 1)
    ]


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
