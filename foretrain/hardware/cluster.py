"""A cluster: nodes of one kind, the fabric between them, and the facility around them."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.fabric import Fabric
from foretrain.hardware.node import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Facility:
    """The building: overhead of power, price of electricity, carbon of the grid."""

    pue: float
    usd_per_kwh: float
    co2_g_per_kwh: float
    network_w_per_accelerator: float
    """Scale-out switches and optics, shared out over the accelerators."""
    name: str = ""
    grid: str = ""
    """Where the figure of the grid's carbon comes from, with its year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`nodes` equal nodes behind one scale-out fabric (whose bandwidth is that of one node)."""

    name: str
    node: Node
    nodes: int
    scale_out: Fabric
    facility: Facility
    assumed: tuple[str, ...] = ()

    @property
    def accelerator(self) -> Accelerator:
        """The accelerator of every node."""
        return self.node.accelerator

    @property
    def accelerators(self) -> int:
        """Accelerators of the whole cluster."""
        return self.nodes * self.node.accelerators

    @property
    def domain(self) -> int:
        """Accelerators that one scale-up domain joins, at most the whole cluster."""
        return min(self.node.scale_up.domain, self.accelerators)
