"""One network tier: how many accelerators it joins, how fast, and how it reduces."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import ProfileError


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A quick way to send small messages: less start and less per step than full-rate transfers, for less bandwidth.

    NCCL's LL sends 8 bytes of data with 8 of flags, LL128 120 with 8, and neither waits for memory fences.
    """

    base_latency_s: float
    """Start of a collective."""
    step_latency_s: float
    """One step between neighbours."""
    efficiency: float
    """Bandwidth over that of full-rate transfers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """One network tier, in SI units, per direction.

    `bandwidth_bytes_per_s` is the data sheet's injection bandwidth of one accelerator (scale-up) or of one node (scale-out).
    """

    name: str
    topology: str
    """How its members are joined.

    `switch` all to all; `mesh` fixed links between all pairs, `cube-mesh` between some; `pcie` switches and root complexes; `torus-1d`
    to `torus-3d` rings along axes; `fat-tree` and `rail` Clos networks, plain and with the n-th NICs of all nodes under one switch;
    `dragonfly` groups joined all to all; `none`.
    """
    domain: int
    """Accelerators that this tier joins; a group inside one domain never leaves it."""
    bandwidth_bytes_per_s: float
    efficiency: float
    """Plateau bus bandwidth of a large ring all-reduce over `bandwidth_bytes_per_s`; measured."""
    point_to_point_efficiency: float
    """Plateau of one large send over `bandwidth_bytes_per_s`."""
    base_latency_s: float
    """Start of any collective on this tier at full rate: launch, protocol set-up, filling of its pipeline."""
    step_latency_s: float
    """One ring or tree step between neighbours at full rate."""
    half_bytes_per_rank: float
    """Ring chunk per rank and step at which a collective reaches half its plateau bandwidth, beside the latencies."""
    library: str = "nccl"
    """The communication library: nccl, rccl, xla or gloo. It says which algorithms there are."""
    ll: Protocol | None = None
    """The quickest protocol for small messages; NCCL calls it LL."""
    ll128: Protocol | None = None
    """The protocol for middling messages; NCCL calls it LL128."""
    in_network_reduction: float = 0.0
    """Share of `bandwidth_bytes_per_s` that an in-switch all-reduce fills; 0 where the switches do not reduce or it is switched off."""
    in_network_latency_s: float = 0.0
    """Start of an in-switch all-reduce, beyond `base_latency_s`."""
    point_to_point_latency_s: float = 0.0
    """Start and flight of one send; 0 stands for one step."""
    island: int = 0
    """Accelerators that the fast links of this tier join directly (a bridged pair, a socket); 0 stands for the domain."""
    island_bytes_per_s: float = 0.0
    """Plateau bus bandwidth of a group that goes beyond its island."""
    pod: int = 0
    """Accelerators under full bisection (a pod of a Clos network, a group of a dragonfly); 0 stands for all of them."""
    oversubscription: float = 1.0
    """Injection bandwidth of a pod over that of its links to other pods."""
    wraparound: int = 0
    """Shortest axis of a torus whose ends are joined."""
    measured: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...] = ()
    """Collectives and sends that were measured inside a domain, by their kind: rows of ranks, bytes of the full tensor, seconds."""

    def rows(self, kind: str) -> tuple[tuple[float, ...], ...]:
        """Return what was measured of a kind of collective, or of sends."""
        return next((rows for name, rows in self.measured if name == kind), ())

    def __post_init__(self) -> None:
        """Refuse an island that nothing leads out of."""
        if self.island and self.island_bytes_per_s <= 0.0:
            raise ProfileError(f"island of {self.island} has no island_bytes_per_s; give what a group gets beyond its island")
