"""The machine of a row of classic runs: its accelerator by name, its links by the words for node and link."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from foretrain.errors import ProfileError
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.cluster import Cluster
from foretrain.validate.cells import Row, needed, text, whole
from foretrain.validate.chips import accelerator_named
from foretrain.validate.links import parse_link
from foretrain.validate.machines import joined, resized, with_link

LoadCluster = Callable[[str], Cluster]


@dataclass(frozen=True, slots=True)
class Host:
    """A node of the library by what its rows say: the words for the node, the words for the link, the name of the accelerator."""

    node: str
    node_type: str = ""
    link: str = ""
    chip: str = ""
    note: str = ""


HOSTS = (
    Host("dgx-2h", r"DGX-2H"),
    Host("dgx-2", r"DGX-2"),
    Host("dgx-1v-16gb", r"DGX-1V"),
    Host("dgx-1-p100", r"DGX-1 \(P100\)"),
    Host("dlperf-v100", r"Xeon Gold 5118|1x IB EDR"),
    Host("aws-p2-16xlarge", r"p2\.16xlarge"),
    Host("aws-p2-8xlarge", r"p2\.|k80x8"),
    Host("aws-g3-4xlarge", r"g3\."),
    Host("aws-p3-2xlarge", r"p3\.2xlarge"),
    Host("azure-nc96ads-a100-v4", r"NC96ads"),
    Host("smc-8x-h100", r"SMC-H100", chip=r"^h100-sxm"),
    Host("pcie-2x-h100-bridge", link=r"bridge|NVLink", chip=r"^h100-(pcie|nvl)"),
    Host("azure-nc96ads-a100-v4", link=r"NVLink", node_type=r"NV-?Bridge", chip=r"^a100-pcie"),
    Host("azure-nc96ads-a100-v4", link=r"NVLink bridge", chip=r"^(a100-pcie|a30|a40|rtx-a6000|rtx-3090)"),
    Host("pcie-8x-rtx-8000-bridge", link=r"NVLink bridge", chip=r"rtx-8000|rtx-6000|titan-rtx"),
    Host("pcie-8x-rtx-2080-ti-bridge", link=r"NVLink bridge", chip=r"rtx-2080"),
    Host("azure-nc96ads-a100-v4", node_type=r"NV-?Bridge", chip=r"^(a100-pcie|a30|a40)"),
    Host("gb200-nvl72", chip=r"^gb200"),
    Host("gb300-nvl72", chip=r"^gb300"),
    Host("dgx-b300", chip=r"^b300"),
    Host("dgx-b200", chip=r"^b200"),
    Host("dgx-h200", chip=r"^h200-sxm"),
    Host("dgx-h100", chip=r"^h[12]00-sxm|^h800-sxm"),
    Host("dgx-a100-80gb", chip=r"^a[18]00-sxm"),
    Host("dgx-2", chip=r"^v100-sxm3"),
    Host("lambda-8x-v100", r"LambdaCloud.*V100", chip=r"^v100-sxm2"),
    Host("dgx-1v-16gb", chip=r"^v100-sxm2"),
    Host("dgx-1-p100", chip=r"^p100-sxm"),
    Host("pcie-8x-h100", chip=r"^h[12]00|^gh200"),
    Host("pcie-8x-rtx-3090", chip=r"^(a\d|l4|rtx-(30|40|50|6000-ada|a\d))"),
    Host("pcie-4x-rtx-2080-ti"),
)
"""In order of priority: the first whose words occur decides; without any, cards in slots of their generation of PCIe."""
RACK = 32
"""Accelerators from which a node is a rack, whose trays count as nodes but share its links."""


def cluster_of(row: Row, load: LoadCluster) -> tuple[Cluster, tuple[str, ...]]:
    """Return the cluster of a row and what had to be assumed.

    Raises:
        ProfileError: where the library holds no such accelerator.
    """
    chip, notes = _chip(text(row, "accelerator"))
    total = needed(row, "n_accelerators", "the number of accelerators")
    host = _host(row, chip)
    base = load(host.node)
    nodes = 1 if base.node.accelerators >= RACK else whole(row, "n_nodes") or 1
    per_node = -(-total // nodes)
    one = replace(base, node=replace(base.node, accelerator=chip), nodes=nodes, name=f"{host.node} with {chip.name}:{nodes}")
    outside = _outside(text(row, "link")) if nodes > 1 else ""
    cluster = joined(with_link(resized(one, per_node), parse_link(outside, accelerators=per_node)))
    return cluster, (*notes, *_assumptions(host, chip, base, nodes=nodes, total=total, outside=outside))


def _outside(link: str) -> str:
    """Return the words for the network that carries training, without those for storage and management."""
    words = link.rpartition("|")[2]
    found = re.search(r"Compute:(.*?)(?:Management:|Storage:|$)", words)
    return found.group(1) if found else words


@lru_cache(maxsize=512)
def _chip(words: str) -> tuple[Accelerator, tuple[str, ...]]:
    if not words:
        raise ProfileError("accelerator is not given")
    stated = re.search(r"(\d+)\s*W\b", words)
    return accelerator_named(re.sub(r"\([^)]*\bdie\)|\(?\d+\s*W\)?|\bGPU\b|\bBlackwell( Ultra)?\b|\bCTS\b|\bHBM\w*", " ", words),
                             float(stated.group(1)) / 1.05 if stated else 0.0)  # fmt: skip


def _host(row: Row, chip: Accelerator) -> Host:
    return next(
        host for host in HOSTS
        if re.search(host.node_type, text(row, "node_type"), re.IGNORECASE)
        and re.search(host.link, text(row, "link"), re.IGNORECASE)
        and re.search(host.chip, chip.key)
    )  # fmt: skip


def _assumptions(host: Host, chip: Accelerator, base: Cluster, *, nodes: int, total: int, outside: str) -> tuple[str, ...]:
    """Return what the row leaves open about its links."""
    found = []
    if total > 1 and base.accelerator.key.partition("-")[0] != chip.key.partition("-")[0]:
        found.append(f"links as in {host.node}")
    if nodes > 1 and parse_link(outside, accelerators=1).node_bytes_per_s is None:
        found.append(f"network as in {host.node}: the source does not state it")
    return tuple(found)
