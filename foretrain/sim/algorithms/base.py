"""What an algorithm answers: latency and bandwidth of a collective among ranks that lie in a given way over two network tiers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from foretrain.hardware.fabric import Fabric
from foretrain.sim.placement import Span

PASSES = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0, "broadcast": 1.0}
"""Times that a ring goes round: an all-reduce is a reduce-scatter and an all-gather."""


def wire_share(kind: str, ranks: int) -> float:
    """Return the bytes that each rank sends over the bytes of the full tensor.

    **Source:** NVIDIA/nccl-tests, doc/PERFORMANCE.md (bus bandwidth is these bytes over time).
    """
    return 1.0 if kind == "broadcast" else PASSES[kind] * (ranks - 1) / ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A collective without its size: what is asked, of whom, over which tiers."""

    kind: str
    span: Span
    up: Fabric
    out: Fabric
    host: int
    """Accelerators of one host, which may be fewer than a scale-up domain joins."""
    scale: float
    """Factor on bandwidth: the software's own efficiency."""

    @property
    def crosses(self) -> bool:
        """Whether it leaves the scale-up domain."""
        return self.span.domains > 1

    @property
    def tiers(self) -> tuple[Fabric, ...]:
        """The tiers that carry it."""
        if not self.crosses:
            return (self.up,)
        return (self.up, self.out) if self.span.per_domain > 1 else (self.out,)

    @property
    def inside_bytes_per_s(self) -> float:
        """Plateau bus bandwidth of a ring through the ports of its ranks; infinite where no two ranks share a domain."""
        return _inside(self) * self.scale if self.span.per_domain > 1 else math.inf

    @property
    def outside_bytes_per_s(self) -> float:
        """Plateau bus bandwidth of a ring through the group's share of the NICs; infinite where it stays in a domain."""
        return self.span.network_bytes_per_s * self.out.efficiency * self.scale * _uplinks(self) if self.crosses else math.inf

    @property
    def pod_members(self) -> int:
        """Members of the group in one pod of the network, where its hosts stand side by side."""
        pod = self.out.pod
        return min(self.span.ranks, max(self.span.per_domain, pod * self.span.per_domain // self.host)) if pod else self.span.ranks

    def fill_bytes(self) -> float:
        """Return the bytes that fill one step of the pipeline, on the tier that sets the pace."""
        return (self.out if self.crosses else self.up).half_bytes_per_rank

    def pace(self) -> Iterator[Pace]:
        """Yield full rate and every quick protocol that all tiers speak."""
        yield Pace(
            base_s=max(tier.base_latency_s for tier in self.tiers),
            inside_s=self.up.step_latency_s, outside_s=self.out.step_latency_s, inside=1.0, outside=1.0, full=True,
        )  # fmt: skip
        for spoken in ([tier.ll for tier in self.tiers], [tier.ll128 for tier in self.tiers]):
            quick = [protocol for protocol in spoken if protocol is not None]
            if len(quick) == len(spoken):
                yield Pace(
                    base_s=max(protocol.base_latency_s for protocol in quick),
                    inside_s=quick[0].step_latency_s, outside_s=quick[-1].step_latency_s,
                    inside=quick[0].efficiency, outside=quick[-1].efficiency, full=False,
                )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A protocol over both tiers: start, one step inside a domain and between domains, share of either's bandwidth."""

    base_s: float
    inside_s: float
    outside_s: float
    inside: float
    outside: float
    full: bool
    """Whether it is the full-rate protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to run a collective: `latency_s` plus wire bytes over `bytes_per_s`.

    `port_share` and `network_share` are what it takes of a rank's port and of the group's share of the NICs while it runs.
    """

    algorithm: str
    latency_s: float
    bytes_per_s: float
    port_share: float
    network_share: float


class Algorithm(ABC):
    """A way to run collectives."""

    name: str

    @abstractmethod
    def options(self, group: Group) -> Iterator[Option]:
        """Yield this algorithm's ways to serve the group, one per protocol; none where it cannot."""

    def option(self, *, latency_s: float, inside: float, outside: float, pace: Pace | None = None) -> Option:
        """Return the option whose bus bandwidth the ports limit to `inside` and the NICs to `outside` at full rate."""
        rate = min(inside, outside) if pace is None else min(inside * pace.inside, outside * pace.outside)
        return Option(
            algorithm=self.name, latency_s=latency_s, bytes_per_s=rate,
            port_share=min(1.0, rate / inside), network_share=min(1.0, rate / outside),
        )  # fmt: skip


def _inside(group: Group) -> float:
    """Return the plateau bus bandwidth inside a domain: all links, those that join the members, or those beyond an island."""
    up, members = group.up, group.span.per_domain
    rate = up.bandwidth_bytes_per_s * up.efficiency
    if up.island and members > up.island:
        return min(rate, up.island_bytes_per_s)
    if up.topology in ("mesh", "cube-mesh") and not group.crosses:
        return rate * min(1.0, (members - 1) / max(1, up.domain - 1))
    return rate


def _uplinks(group: Group) -> float:
    """Return the share of injection bandwidth that a ring keeps between pods.

    Of each ring one member in a pod sends out of it; all rings of the pod share uplinks of a `1 / oversubscription` of its injection.
    """
    if group.kind == "all_to_all" or group.pod_members >= group.span.ranks:
        return 1.0
    return min(1.0, group.pod_members / group.out.oversubscription)
