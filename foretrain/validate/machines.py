"""Which machine of the library a published run used: from the words for accelerator and links to a cluster."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from foretrain.errors import ProfileError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import list_nodes, load_node
from foretrain.hardware.node import Node
from foretrain.validate.cells import Row, needed, text, whole
from foretrain.validate.chips import accelerator_named
from foretrain.validate.links import Link, parse_link, says_nothing

LoadCluster = Callable[[str], Cluster]
"""Loads a node of the library by name, as a cluster of one."""


@dataclass(frozen=True, slots=True)
class Chip:
    """An accelerator by the words that name it, and the nodes of the library that carry it: the usual one first."""

    pattern: str
    nodes: tuple[str, ...]
    scale_up_bytes_per_s: float | None = None
    """NVLink per direction where an export version carries less than the library's."""
    note: str = ""


_A100_80 = ("dgx-a100-80gb", "hgx-a100-80gb-roce-1600", "hgx-a100-80gb-roce-400", "aws-p4de", "azure-nd-a100-v4", "jean-zay-a100")
_A100_40 = ("dgx-a100-40gb", "hgx-a100-40gb", "aws-p4d", "azure-nd-a100-v4")
_H100 = ("dgx-h100", "hgx-h100", "aws-p5")

CHIPS = (
    Chip(r"\bB200", ("dgx-b200",)),
    Chip(r"\bH200", ("dgx-h200",)),
    Chip(r"H100.*96\s*Gi?B", ("hgx-h100-96gb-hbm2e",)),
    Chip(r"H800", _H100, 200e9, "H800 taken as an H100 with 200 GB/s of NVLink each way"),
    Chip(r"H100", _H100),
    Chip(r"A800", _A100_80, 200e9, "A800 taken as an A100 with 200 GB/s of NVLink each way"),
    Chip(r"A100.*40\s*Gi?B", _A100_40),
    Chip(r"A100.*80\s*Gi?B", _A100_80),
    Chip(r"A100", _A100_80, note="80 GB taken for the A100's memory"),
    Chip(r"V100.*SXM3|DGX-2", ("dgx-2",)),
    Chip(r"V100.*32\s*Gi?B", ("dgx-1v-32gb", "jean-zay-v100")),
    Chip(r"V100", ("dgx-1v-16gb", "jean-zay-v100")),
    Chip(r"TPU\s*v4", ("tpu-v4-host",)),
    Chip(r"TPU\s*v5\s*(e|lite)", ("tpu-v5e-host",)),
    Chip(r"TPU\s*v5p", ("tpu-v5p-host",)),
)
"""In order of priority: the first whose words occur decides."""

_NOT_SXM = re.compile(r"PCIe|\bNVL\b|PCI-E", re.IGNORECASE)
_MODULE = re.compile(r"MI250", re.IGNORECASE)
_FIRST_80GB = "2020-11"
"""The A100 with 80 GB was announced in November 2020."""

_FABRICS = {
    "infiniband": ("dgx-",),
    "roce": ("hgx-",),
    "efa": ("aws-",),
    "azure": ("azure-",),
    "omni-path": ("jean-zay-",),
}
"""Beginnings of the names of nodes whose network is of a technology."""


def cluster_of(row: Row, load: LoadCluster) -> tuple[Cluster, tuple[str, ...]]:
    """Return the cluster of a row and what had to be assumed.

    Raises:
        ProfileError: where the library holds no such accelerator.
    """
    chip = chip_of(text(row, "accelerator"), text(row, "date"))
    total = needed(row, "n_accelerators", "the number of accelerators")
    per_node = whole(row, "accel_per_node")
    words = text(row, "inter_node_link")
    link = parse_link(words, accelerators=per_node or 8)
    name = _node_name(chip, link, load)
    base = _with_chip(load(name), load(chip.nodes[0]))
    nodes = math.ceil(total / (per_node or base.node.accelerators))
    sized = _with_size(replace(base, nodes=nodes, name=f"{name}:{nodes}"), chip, per_node)
    cluster = joined(with_link(sized, link))
    cluster = _with_torus(cluster, total, link.slices) if is_tpu(row) else cluster
    return cluster, _assumptions(chip, cluster, words, link)


def chip_of(words: str, date: str = "") -> Chip:
    """Return the chip that `words` name.

    Raises:
        ProfileError: where the library holds none, or counts it otherwise than published runs do.
    """
    chip = next((chip for chip in CHIPS if re.search(chip.pattern, words, re.IGNORECASE)), None)
    if chip is None or _NOT_SXM.search(words):
        return _any_chip(words)
    if chip.pattern == "A100" and "" < date < _FIRST_80GB:
        return Chip(r"A100", _A100_40, note="40 GB taken for the A100's memory: 80 GB came later")
    return chip


def _any_chip(words: str) -> Chip:
    """Return a chip that no entry of `CHIPS` is about: what the library calls so, in the nodes that carry it, a maker's own first."""
    if _MODULE.search(words):
        raise ProfileError(f"accelerator {words!r} is a module of two dies, and the source does not say which it counts")
    accelerator, notes = accelerator_named(words)
    nodes = [name for name in list_nodes() if load_node(name).accelerator.key == accelerator.key]
    if not nodes:
        raise ProfileError(f"no node of the library carries {accelerator.name}")
    return Chip(re.escape(words), tuple(sorted(nodes, key=lambda name: not _plain(name))), note=", ".join(notes))


def is_tpu(row: Row) -> bool:
    """Return whether the accelerator of a row is a TPU."""
    return "TPU" in text(row, "accelerator").upper()


def _node_name(chip: Chip, link: Link, load: LoadCluster) -> str:
    """Return the node whose network is of the technology that the row names, nearest in bandwidth where there are several."""
    if link.technology is None:
        exact = (name for name in chip.nodes if _plain(name) and _gap(name, link, load) < 0.01)
        return next(exact, chip.nodes[0]) if link.node_bytes_per_s else chip.nodes[0]
    beginnings = _FABRICS[link.technology]
    fitting = [name for name in chip.nodes if name.startswith(beginnings)]
    if not fitting:
        return chip.nodes[0]
    return min(fitting, key=lambda name: _gap(name, link, load))


def _plain(name: str) -> bool:
    return not name.startswith(("aws-", "azure-", "gcp-", "gce-", "lambda-", "jean-zay-"))


def _gap(name: str, link: Link, load: LoadCluster) -> float:
    """Return how far the bandwidth of a node's network is from the stated one, as a log ratio."""
    if not link.node_bytes_per_s:
        return 0.0
    return abs(math.log(load(name).node.network_bytes_per_s / link.node_bytes_per_s))


def _with_chip(cluster: Cluster, usual: Cluster) -> Cluster:
    """Return the cluster with the accelerator of the chip's usual node: a site's node may exist with another memory size."""
    return replace(cluster, node=replace(cluster.node, accelerator=usual.accelerator))


def _with_size(cluster: Cluster, chip: Chip, per_node: int | None) -> Cluster:
    """Return the cluster with the row's accelerators per node and the chip's own NVLink."""
    node = cluster.node
    if chip.scale_up_bytes_per_s is not None:
        node = replace(node, scale_up=replace(node.scale_up, bandwidth_bytes_per_s=chip.scale_up_bytes_per_s))
    return resized(replace(cluster, node=node), per_node or node.accelerators)


def resized(cluster: Cluster, per_node: int) -> Cluster:
    """Return the cluster with so many accelerators per node, NICs in proportion."""
    node = cluster.node
    scale_up = node.scale_up
    if per_node == node.accelerators:
        return cluster
    share = per_node / node.accelerators
    outgrown = scale_up.topology in ("mesh", "cube-mesh") and per_node > node.accelerators
    scale_up = replace(scale_up, domain=per_node, topology="switch" if outgrown else scale_up.topology)
    nics = max(1, round(node.nics * share))
    total = node.network_bytes_per_s * share
    smaller = replace(node, accelerators=per_node, scale_up=scale_up, nics=nics, nic_bytes_per_s=total / nics,
                      host_w=node.host_w * share, host_busy_w=node.host_busy_w * share, usd_per_hour=node.usd_per_hour * share)  # fmt: skip
    return replace(cluster, node=smaller, scale_out=replace(cluster.scale_out, bandwidth_bytes_per_s=total))


def with_link(cluster: Cluster, link: Link) -> Cluster:
    """Return the cluster with the NICs and bandwidth that the row states, where they differ from the library's."""
    stated, node = link.node_bytes_per_s, cluster.node
    if stated is None or math.isclose(stated, node.network_bytes_per_s, rel_tol=0.01):
        return cluster
    nics = link.nics or node.nics
    node = replace(node, nics=nics, nic_bytes_per_s=stated / nics)
    return replace(cluster, node=node, scale_out=replace(cluster.scale_out, bandwidth_bytes_per_s=stated))


def joined(cluster: Cluster) -> Cluster:
    """Return the cluster with a scale-out network that joins all of its accelerators."""
    return replace(cluster, scale_out=replace(cluster.scale_out, domain=cluster.accelerators))


def _with_torus(cluster: Cluster, total: int, slices: int) -> Cluster:
    """Return the cluster cut into `slices` tori that the data-centre network joins."""
    return replace(cluster, node=_sliced(cluster.node, max(1, total // slices)))


def _sliced(node: Node, domain: int) -> Node:
    return replace(node, scale_up=replace(node.scale_up, domain=domain))


def _assumptions(chip: Chip, cluster: Cluster, words: str, link: Link) -> tuple[str, ...]:
    """Return what the row leaves open about its machine, or says of one that the library does not hold."""
    notes = [chip.note] if chip.note else []
    name = cluster.name.partition(":")[0]
    if cluster.nodes > 1 and not name.startswith("tpu-"):
        if says_nothing(words):
            notes.append(f"network taken as that of {name}: the source does not state it")
        elif link.technology is not None and not name.startswith(_FABRICS[link.technology]):
            notes.append(f"network {words!r} taken as that of {name}, at the stated bandwidth")
        if "TCPX" in words:
            notes.append("GPUDirect-TCPX taken as RoCE")
    return tuple(notes)
