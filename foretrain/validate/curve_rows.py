"""Rows of measured collectives (network.csv, collectives.csv): what was run on what, and what came out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from foretrain.errors import ProfileError
from foretrain.hardware.cluster import Cluster
from foretrain.sim.algorithms.base import wire_share
from foretrain.sim.collectives import collective, send
from foretrain.sim.placement import Span
from foretrain.units import parse
from foretrain.validate.cells import Row, number, text, whole
from foretrain.validate.curve_machines import cluster_of, without_in_switch

KINDS = {
    "all_reduce": "all_reduce", "allreduce": "all_reduce", "all_gather": "all_gather", "allgather": "all_gather",
    "reduce_scatter": "reduce_scatter", "alltoall": "all_to_all", "all_to_all": "all_to_all", "broadcast": "broadcast",
    "send_recv": "send_recv", "sendrecv": "send_recv",
}  # fmt: skip
LARGE_BYTES = parse("8 GiB", "B")
"""Taken where a source gives the bandwidth of "large messages"."""
GIGA = parse("1 GB/s", "B/s")
MICRO = parse("1 us", "s")
_NO_SWITCH_SUMS = re.compile(r"NVLS_ENABLE=0|\bring\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One measured point: a collective of `size_bytes` among `ranks` on `hosts`, on a cluster."""

    kind: str
    size_bytes: float
    ranks: int
    hosts: int
    cluster: Cluster
    assumed: tuple[str, ...]

    @property
    def per_host(self) -> int:
        """Ranks on the host that has most."""
        return -(-self.ranks // self.hosts)

    @property
    def span(self) -> Span:
        """How the ranks lie: nothing else runs on their hosts, so each has a NIC of its own while there are some."""
        node = self.cluster.node
        share = min(1.0, max(self.per_host / node.accelerators, self.per_host / node.nics))
        network = node.network_bytes_per_s * share if self.hosts > 1 else float("inf")
        return Span(ranks=self.ranks, domains=self.hosts, per_domain=self.per_host, network_bytes_per_s=network)

    def time_s(self) -> float:
        """Return the predicted time of the collective."""
        if self.kind == "send_recv":
            return send(self.size_bytes, self.cluster, crosses=self.hosts > 1, flows=1).total_s
        return collective(self.kind, self.size_bytes, self.span, self.cluster).total_s

    def busbw_bytes_per_s(self, time_s: float) -> float:
        """Return the bus bandwidth of a time: bytes sent by each rank over it."""
        share = 1.0 if self.kind == "send_recv" else wire_share(self.kind, self.ranks)
        return share * self.size_bytes / time_s


def curve_of(row: Row) -> Curve:
    """Return the point that a row measured.

    Raises:
        ProfileError: where the row is no collective, leaves something open that cannot be assumed, or the library lacks its system.
    """
    return _single(row) if "machine" in row else _of_network(row)


def _of_network(row: Row) -> Curve:
    metric = text(row, "metric")
    if metric != "busbw":
        raise ProfileError(f"metric {metric!r} is no collective's bus bandwidth")
    kind = _kind(text(row, "collective"))
    assumed: tuple[str, ...] = ()
    size, ranks, hosts = _size(row), whole(row, "n_ranks"), whole(row, "n_hosts")
    if size is None:
        size, assumed = LARGE_BYTES, ("size taken as 8 GiB: the source says large messages",)
    if ranks is None:
        ranks, hosts = _ranks(row, kind), 1
        assumed += (f"{ranks} ranks on one host, from the ratio of bus to algorithm bandwidth",)
    hosts = hosts or 1
    cluster, notes = cluster_of(text(row, "system"), text(row, "link"), hosts=hosts, per_host=-(-ranks // hosts))
    if _NO_SWITCH_SUMS.search(text(row, "software")):
        cluster = without_in_switch(cluster)
    return Curve(kind=kind, size_bytes=size, ranks=ranks, hosts=hosts, cluster=cluster, assumed=(*assumed, *notes))


def _single(row: Row) -> Curve:
    kind = _kind(text(row, "collective"))
    ranks, hosts, size = whole(row, "gpus"), whole(row, "nodes"), number(row, "bytes")
    if ranks is None or hosts is None or size is None:
        raise ProfileError("gpus, nodes and bytes are needed; at least one is empty")
    cluster, notes = cluster_of(text(row, "machine"), "", hosts=hosts, per_host=-(-ranks // hosts))
    return Curve(kind=kind, size_bytes=size, ranks=ranks, hosts=hosts, cluster=cluster, assumed=notes)


def _kind(words: str) -> str:
    if words not in KINDS:
        raise ProfileError(f"collective {words!r} is not simulated")
    return KINDS[words]


def _size(row: Row) -> float | None:
    if text(row, "size_B") in ("0", "0.0"):
        raise ProfileError("size_B is 0: nothing is sent")
    return number(row, "size_B")


def _ranks(row: Row, kind: str) -> int:
    """Return the ranks for which bus and algorithm bandwidth stand in the measured ratio, 2(n-1)/n for an all-reduce.

    Two printed figures of a few digits tell eight ranks from seven, not 64 from 65.
    """
    bus, algorithm = (float(text(row, name) or 0.0) for name in ("busbw_GBps", "algbw_GBps"))
    if kind != "all_reduce" or bus < 1.0 or algorithm <= 0.0 or bus / algorithm >= 1.95:
        raise ProfileError("the number of ranks is not given (n_ranks is empty)")
    return max(2, round(2.0 / (2.0 - bus / algorithm)))


def measured_time_s(row: Row, curve: Curve) -> float:
    """Return the measured time: as printed, else from the bus bandwidth.

    Raises:
        ProfileError: where the row gives neither, or a bandwidth that was rounded to nothing.
    """
    printed = number(row, "time_us")
    if printed is not None:
        return printed * MICRO
    bandwidth = text(row, "busbw_GBps")
    if not bandwidth or float(bandwidth) <= 0.0:
        raise ProfileError(f"nothing measured: busbw_GBps is {bandwidth!r} and time_us is empty")
    return curve.busbw_bytes_per_s(float(bandwidth) * GIGA)
