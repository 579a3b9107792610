"""Transfers inside a pass as legs: which group they run over, and what of them hides behind compute."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.hardware.cluster import Cluster
from foretrain.sim.collectives import NOTHING, TransferCost, collective, ring_send
from foretrain.sim.cost import Pricer
from foretrain.sim.placement import Span
from foretrain.sim.segment import CONTEXT, HOST, MATH, TENSOR, Leg


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """How the groups lie that one rank communicates with inside its passes; `data` are all replicas, None where nothing is swapped."""

    tensor: Span
    data: Span | None = None
    context: Span | None = None
    expert: Span | None = None


class Transfers:
    """Prices the transfers of one rank inside its passes."""

    def __init__(self, pricer: Pricer, cluster: Cluster, spans: Spans) -> None:
        self.pricer = pricer
        self.cluster = cluster
        self.spans = spans

    def tensor(
        self, name: str, kind: str, size_bytes: float, hidden_by: Leg | None = None, most: float = 1.0
    ) -> tuple[Leg, ...]:
        """Return a collective of the tensor-parallel group, less what (of `most` of it) runs beside `hidden_by`."""
        return self.leg(name, self.collective(kind, size_bytes, self.spans.tensor), TENSOR, hidden_by, most)

    def context(self, name: str, kind: str, size_bytes: float) -> tuple[Leg, ...]:
        """Return a collective of the context-parallel group."""
        return self.leg(name, self.collective(kind, size_bytes, self.spans.context), CONTEXT)

    def ring(self, name: str, size_bytes: float, hidden_by: Leg | None) -> tuple[Leg, ...]:
        """Return one step of a ring of context-parallel ranks, less what runs beside `hidden_by`."""
        span = self.spans.context
        cost = NOTHING if span is None else ring_send(size_bytes, span, self.cluster, self.pricer.software.collective_scale)
        return self.leg(name, cost, CONTEXT, hidden_by)

    def collective(self, kind: str, size_bytes: float, span: Span | None) -> TransferCost:
        """Return the cost of a collective over a group under this software; nothing where there is no group."""
        return NOTHING if span is None else collective(kind, size_bytes, span, self.cluster, self.pricer.software.collective_scale)

    def leg(
        self, name: str, cost: TransferCost, kind: str, hidden_by: Leg | None = None, most: float = 1.0
    ) -> tuple[Leg, ...]:
        """Return an inline transfer of class `kind`, less what (of `most` of it) runs beside `hidden_by`; nothing where it is free."""
        if cost.total_s == 0.0:
            return ()
        hidden = min(cost.total_s * most, hidden_by.device_s) if hidden_by is not None else 0.0
        launch = self.pricer.software.host.collective_s
        rest = cost.total_s - hidden
        power = self.pricer.accelerator.power
        # The kernel of the collective keeps the compute units awake while nothing else runs.
        joules = {"links": cost.wire_bytes * power.link_j_per_byte, "busy": power.busy_w * self.pricer.point.busy_power * rest}
        leg = Leg(
            name=name, device_s=rest, lead_s=launch + rest, launch_s=launch, class_s={kind: rest} if rest else {},
            joules=joules, transfer=_shortened(cost, rest), kind=kind,
            hidden_s={kind: hidden} if hidden else {},
        )  # fmt: skip
        slowed = self._slowed(hidden)
        if not self.pricer.software.host.blocking:
            return (*slowed, leg)
        return (*slowed, host_leg("launch", launch), replace(leg, lead_s=rest, launch_s=0.0))

    def _slowed(self, hidden_s: float) -> tuple[Leg, ...]:
        """Return what compute loses to a collective that runs beside it for `hidden_s`."""
        loss = self.pricer.accelerator.overlap_loss
        slowed = hidden_s * loss / (1.0 - loss)
        if slowed == 0.0:
            return ()
        return (Leg(name="slowed by overlap", device_s=slowed, lead_s=slowed, launch_s=0.0, class_s={MATH: slowed}, joules={}),)


def host_leg(name: str, seconds: float) -> Leg:
    """Return time that the device spends waiting for the host."""
    return Leg(name=name, device_s=seconds, lead_s=seconds, launch_s=0.0, class_s={HOST: seconds}, joules={})


def issue_leg(name: str, seconds: float) -> Leg:
    """Return work of the host that the device need not wait for, while it has some of its own left."""
    return Leg(name=name, device_s=0.0, lead_s=seconds, launch_s=seconds, class_s={}, joules={})


def waiting(leg: Leg, busy: float, kind: str) -> Leg:
    """Return a leg that works a share `busy` of its time and waits for other ranks in the rest, which is of class `kind`."""
    if busy == 1.0:
        return leg
    waited = leg.device_s * (1.0 - busy)
    return replace(
        leg, flop=leg.flop * busy, joules={part: joules * busy for part, joules in leg.joules.items()},
        class_s={**{name: seconds * busy for name, seconds in leg.class_s.items()}, kind: waited},
    )  # fmt: skip


def _shortened(cost: TransferCost, rest_s: float) -> TransferCost:
    """Return what is left to wait for of a transfer that was partly hidden."""
    if rest_s >= cost.total_s:
        return cost
    if rest_s <= 0.0:
        return replace(NOTHING, payload=cost.payload)
    share = rest_s / cost.total_s
    return TransferCost(
        latency_s=cost.latency_s * share, full_s=cost.full_s * share, port_bytes_per_s=cost.port_bytes_per_s,
        network_bytes_per_s=cost.network_bytes_per_s, wire_bytes=cost.wire_bytes * share, payload=cost.payload,
    )  # fmt: skip
