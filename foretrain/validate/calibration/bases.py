"""Which profiles a calibration starts from: those of the user, or those of the library that the device's name means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from foretrain.errors import ProfileError, UsageError
from foretrain.hardware.load import list_nodes, load_accelerator, load_cluster, load_node
from foretrain.software.load import load_software
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.chips import accelerator_named

CPU_NODE, CPU_SOFTWARE, GPU_SOFTWARE = "cpu-cores", "pytorch-cpu", "pytorch-loop"
PLAIN = ("hgx-", "pcie-", "dgx-")
"""Nodes of no cloud, which are taken first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """Names or paths of the profiles that a calibration changes: a node or a cluster, and a software."""

    cluster: str
    software: str

    @property
    def is_node(self) -> bool:
        """Whether the first is a node of the library, of which one makes the cluster."""
        return self.cluster in list_nodes()


def bases_of(stamp: Mapping[str, Any], cluster: str | None = None, software: str | None = None) -> Bases:
    """Return the profiles for the device of a stamp; `cluster` and `software` are the user's choice.

    Raises:
        UsageError: where the library has no such device and the user names none.
    """
    if stamp.get("device") == "cpu":
        return Bases(cluster=cluster or CPU_NODE, software=software or CPU_SOFTWARE)
    found = cluster or _node_with(str(stamp.get("device_name", "")))
    return Bases(cluster=found, software=software or GPU_SOFTWARE)


def machine_of(bases: Bases, ranks: int | None = None) -> Machine:
    """Return the machine of the bases; where a node of the library stands for it, one with as many accelerators as there are ranks."""
    cluster = load_cluster(f"{bases.cluster}:1" if bases.is_node else bases.cluster)
    if bases.is_node and ranks is not None:
        cluster = replace(cluster, node=replace(cluster.node, accelerators=max(1, ranks)))
    return Machine(cluster=cluster, software=load_software(bases.software))


def _node_with(name: str) -> str:
    """Return the node of the library that carries the accelerator of a name, the plainest first."""
    try:
        chip, _ = accelerator_named(name)
    except ProfileError as error:
        raise UsageError(f"{error}; name the node that it is in, or is most like, with --cluster") from error
    carrying = [node for node in list_nodes() if load_node(node).accelerator.key == chip.key]
    if not carrying:
        raise UsageError(f"no node of the library carries {load_accelerator(chip.key).name}; name one of your own with --cluster")
    return next((node for node in carrying if node.startswith(PLAIN)), carrying[0])
