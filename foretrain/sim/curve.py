"""The curve of a collective: time and bus bandwidth against message size, by the algorithm that is chosen and by each."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import PlanError
from foretrain.hardware.cluster import Cluster
from foretrain.sim.algorithms.base import PASSES, wire_share
from foretrain.sim.collectives import choice, options
from foretrain.sim.cut import closest
from foretrain.sim.placement import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One size: what the chosen algorithm takes, and the bus bandwidth of every algorithm's quickest protocol."""

    size_bytes: float
    time_s: float
    algorithm: str
    by_algorithm: dict[str, float]
    """Bus bandwidth in bytes per second."""

    @property
    def busbw_bytes_per_s(self) -> float:
        """Bus bandwidth of the chosen algorithm."""
        return self.by_algorithm[self.algorithm]


def lone_span(cluster: Cluster, ranks: int) -> Span:
    """Return how `ranks` accelerators lie that fill the cluster's domains evenly and have its network to themselves.

    Raises:
        PlanError: where the cluster has fewer, or they do not divide over domains.
    """
    if not 2 <= ranks <= cluster.accelerators:
        raise PlanError(f"ranks={ranks} is not between 2 and the {cluster.accelerators} accelerators of {cluster.name}")
    domains = -(-ranks // cluster.domain)
    if ranks % domains:
        even = [count for count in range(2, cluster.accelerators + 1) if count % -(-count // cluster.domain) == 0]
        raise PlanError(f"ranks={ranks} do not fill {domains} domains of {cluster.name} evenly; use {closest(ranks, even)}")
    per_domain = ranks // domains
    # A domain of several hosts has all of their NICs; ranks that leave accelerators idle have a NIC each while there are some.
    share = max(per_domain / cluster.node.accelerators, min(1.0, per_domain / cluster.node.nics))
    network = cluster.node.network_bytes_per_s * share if domains > 1 else float("inf")
    return Span(ranks=ranks, domains=domains, per_domain=per_domain, network_bytes_per_s=network)


def curve(kind: str, cluster: Cluster, span: Span, sizes: list[float]) -> list[CurvePoint]:
    """Return a point per size of full tensor.

    Raises:
        PlanError: where there is no such collective.
    """
    if kind not in PASSES:
        raise PlanError(f"collective {kind!r} is unknown; use one of {', '.join(PASSES)}")
    return [_point(kind, cluster, span, size) for size in sizes]


def _point(kind: str, cluster: Cluster, span: Span, size_bytes: float) -> CurvePoint:
    wire = wire_share(kind, span.ranks) * size_bytes
    best: dict[str, float] = {}
    for option in options(kind, span, cluster.node.scale_up, cluster.scale_out, cluster.node.accelerators, 1.0):
        rate = wire / (option.latency_s + wire / option.bytes_per_s)
        best[option.algorithm] = max(best.get(option.algorithm, 0.0), rate)
    chosen = choice(kind, size_bytes, span, cluster)
    return CurvePoint(size_bytes=size_bytes, time_s=wire / best[chosen.algorithm], algorithm=chosen.algorithm, by_algorithm=best)
