"""Measured points of the collectives that come with the package, by node, collective and number of ranks."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from importlib import resources

from foretrain.errors import ForetrainError
from foretrain.hardware.cluster import Cluster
from foretrain.validate.curve_rows import curve_of, measured_time_s

FILES = ("network.csv", "collectives.csv")


def measured_points(kind: str, cluster: Cluster, ranks: int) -> dict[str, list[tuple[float, float]]]:
    """Return (bytes, bus bandwidth) by system, for systems with the same chip, scale-up fabric and number of hosts."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in _rows():
        try:
            curve = curve_of(row)
            time_s = measured_time_s(row, curve)
        except ForetrainError:
            continue
        if (curve.kind, curve.ranks) == (kind, ranks) and _alike(curve.cluster, cluster) and curve.hosts == _hosts(cluster, ranks):
            found[row.get("system") or row["machine"]].append((curve.size_bytes, curve.busbw_bytes_per_s(time_s)))
    return dict(found)


def _rows() -> list[dict[str, str]]:
    data = resources.files("foretrain.validate.data")
    return [row for name in FILES for row in csv.DictReader((data / name).read_text(encoding="utf-8").splitlines())]


def _alike(one: Cluster, other: Cluster) -> bool:
    """Return whether two clusters have the same ports and, where there are several hosts, the same network of the same rate."""
    if one.node.scale_up != other.node.scale_up:
        return False
    return one.nodes == 1 or replace(one.scale_out, domain=0) == replace(other.scale_out, domain=0)


def _hosts(cluster: Cluster, ranks: int) -> int:
    return -(-ranks // cluster.node.accelerators)
