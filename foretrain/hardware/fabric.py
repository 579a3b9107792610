"""One network tier: how many accelerators it joins, how fast, and how it reduces."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """One network tier, in SI units, per direction.

    `bandwidth_bytes_per_s` is the data sheet's injection bandwidth of one accelerator (scale-up) or of one node (scale-out).
    """

    name: str
    topology: str
    """`switch` (all to all), `mesh` (fixed links between peers), `torus-2d`, `torus-3d`, `fat-tree` or `none`."""
    domain: int
    """Accelerators that this tier joins; a group inside one domain never leaves it."""
    bandwidth_bytes_per_s: float
    efficiency: float
    """Plateau bus bandwidth of a large ring all-reduce over `bandwidth_bytes_per_s`; measured."""
    point_to_point_efficiency: float
    """Plateau of one large send over `bandwidth_bytes_per_s`."""
    base_latency_s: float
    """Start of any collective on this tier: launch, protocol set-up."""
    step_latency_s: float
    """One ring or tree step between neighbours."""
    half_bytes_per_rank: float
    """Ring chunk per rank and step at which a collective reaches half its plateau bandwidth."""
    in_network_reduction: float = 0.0
    """Plateau bus bandwidth of an in-switch all-reduce over `bandwidth_bytes_per_s`; 0 where the switches do not reduce."""
