"""A node: accelerators of one kind, their scale-up fabric, NICs and host."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.fabric import Fabric


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One host with its accelerators. Bandwidths are per direction."""

    name: str
    accelerator: Accelerator
    accelerators: int
    scale_up: Fabric
    nics: int
    nic_bytes_per_s: float
    host_w: float
    """Host draw beside the accelerators while training: CPUs, memory, storage, and of the next four whatever is 0 or 1 there."""
    usd_per_hour: float
    """Rental price of the whole node."""
    host_busy_w: float = 0.0
    """Added to it while the host feeds accelerators that train, where `host_w` is that of an idle node."""
    nic_w: float = 0.0
    """Draw of the NICs with their optics, together."""
    switch_w: float = 0.0
    """Draw of the scale-up switches in the node, together."""
    fan_w: float = 0.0
    """Draw of fans and pumps."""
    host_memory_bytes_per_s: float = 0.0
    """What an optimizer on the CPUs moves, all sockets together (0: not known); it is what offload of the optimizer costs."""
    supply_efficiency: float = 1.0
    """Power that leaves the supplies over what they draw from the wall."""
    assumed: tuple[str, ...] = ()

    @property
    def network_bytes_per_s(self) -> float:
        """Bandwidth of all NICs together, one direction."""
        return self.nics * self.nic_bytes_per_s
