"""From the words that name a measured system to a cluster of the library: by rules over all systems, never by row."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from foretrain.errors import ProfileError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.validate.links import Link, parse_link


@dataclass(frozen=True, slots=True)
class System:
    """A node of the library by the words that name it, and what that takes for granted."""

    pattern: str
    node: str
    note: str = ""


SYSTEMS = (
    System(r"p5(en)?\.48xlarge", "aws-p5"),
    System(r"p4d\.24xlarge", "aws-p4d"),
    System(r"p3\.16xlarge", "aws-p3-16xlarge"),
    System(r"p6-b200", "aws-p6-b200"),
    System(r"ND H100 v5", "azure-nd-h100-v5"),
    System(r"ND H200 v5", "azure-nd-h200-v5"),
    System(r"a3-ultra", "gcp-a3-ultragpu-8g"),
    System(r"A100.*(PCIe.*NVLink|pairwise)|(pairwise|PCIe.*NVLink).*A100", "azure-nc96ads-a100-v4"),
    System(r"H100 PCIe", "pcie-2x-h100-bridge"),
    System(r"\bND A100 v4|\bND96a", "azure-nd-a100-v4"),
    System(r"a100_dgx", "hgx-a100-80gb-ethernet", "network not stated: taken as 4 NICs of 100 Gbit/s staged through host memory"),
    System(r"B300|GB300", "dgx-b300"),
    System(r"B200", "dgx-b200"),
    System(r"H200", "dgx-h200"),
    System(r"H100", "dgx-h100"),
    System(r"A100.*40\s*Gi?B", "dgx-a100-40gb"),
    System(r"A100", "dgx-a100-80gb"),
    System(r"DGX-2|16x V100", "dgx-2"),
    System(r"V100|DGX-1V", "dgx-1v-16gb"),
    System(r"P100", "dgx-1-p100"),
    System(r"MI300X", "mi300x-8"),
    System(r"MI250X", "frontier-node"),
)
"""In order of priority: the first whose words occur in the system's name and links decides."""

_DONORS = {"efa": "aws-p4d", "omni-path": "jean-zay-a100", "roce": "hgx-a100-40gb"}
"""Nodes of the library that stand on a network technology; InfiniBand is the usual one of each node."""
_FAULTY = re.compile(r"misconfigured|faulty|broken", re.IGNORECASE)
_SOCKETS = re.compile(r"\bTCP\b(?!X)")


def cluster_of(system: str, link: str, *, hosts: int, per_host: int) -> tuple[Cluster, tuple[str, ...]]:
    """Return the cluster of so many hosts that the names of a system and of its links describe, and what had to be assumed.

    Raises:
        ProfileError: where the library holds no such system, or the source itself calls it faulty.
    """
    words = f"{system}, {link}"
    if _FAULTY.search(words):
        raise ProfileError(f"the source says that {words!r} was not set up as it should be")
    known = next((known for known in SYSTEMS if re.search(known.pattern, words, re.IGNORECASE)), None)
    if known is None:
        raise ProfileError(f"no node of the library is called {words!r}")
    cluster = load_cluster(f"{known.node}:{hosts}")
    if per_host > cluster.node.scale_up.domain:
        raise ProfileError(f"{per_host} ranks a host, but {cluster.node.name} has {cluster.node.accelerators} accelerators")
    notes = (known.note,) if known.note and (hosts > 1 or "network" not in known.note) else ()
    return _linked(cluster, link) if hosts > 1 else cluster, notes


def _linked(cluster: Cluster, words: str) -> Cluster:
    """Return the cluster with the network that the words state, where they state one."""
    if not words:
        return cluster
    node = cluster.node
    link = parse_link(words, accelerators=node.accelerators)
    cluster = _on(cluster, words, link)
    stated = link.node_bytes_per_s
    if stated is None:
        return cluster
    nics = link.nics or node.nics
    node = replace(node, nics=nics, nic_bytes_per_s=stated / nics)
    return replace(cluster, node=node, scale_out=replace(cluster.scale_out, bandwidth_bytes_per_s=stated))


def _on(cluster: Cluster, words: str, link: Link) -> Cluster:
    donor = "aws-p3-16xlarge" if _SOCKETS.search(words) else _DONORS.get(link.technology or "")
    if donor is None or cluster.name.startswith("aws-p5"):
        return cluster
    network = load_cluster(f"{donor}:{cluster.nodes}").scale_out
    return replace(cluster, scale_out=replace(network, bandwidth_bytes_per_s=cluster.scale_out.bandwidth_bytes_per_s))


def without_in_switch(cluster: Cluster) -> Cluster:
    """Return the cluster with the reductions of its switches switched off."""
    node = cluster.node
    return replace(cluster, node=replace(node, scale_up=replace(node.scale_up, in_network_reduction=0.0)))
