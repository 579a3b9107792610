"""Forward and backward passes of a block on one rank, as legs: kernels priced, tensor-parallel collectives inline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Block, Step
from foretrain.models.ops import Boundary, Kernel, Layout
from foretrain.sim.clock import Point
from foretrain.sim.collectives import NOTHING, TransferCost, collective
from foretrain.sim.cost import Pricer, Work
from foretrain.sim.placement import Span
from foretrain.sim.recompute import NOTHING_AGAIN, Recomputation, recomputation
from foretrain.sim.segment import DATA, HOST, MATH, MEMORY, OVERHEAD, TENSOR, Leg, blocking

SMALL_REDUCES = 3
"""All-reduces of the vocabulary-parallel loss: maximum, target logit, sum of exponentials (Megatron-LM cross_entropy.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPass:
    """Legs of one pass of one block, kernel by kernel, and the activation bytes it keeps or needs at its peak."""

    legs: tuple[Leg, ...]
    saved_bytes: float
    peak_bytes: float


class Passes:
    """Prices the passes of blocks for one layout, tensor span and recompute policy; each block once."""

    def __init__(self, pricer: Pricer, layout: Layout, cluster: Cluster, tensor: Span, recompute: str, data: Span | None = None) -> None:
        self.data = data
        """The data-parallel replicas, over which exchanges run."""
        self.pricer = pricer
        self.layout = layout
        self.cluster = cluster
        self.tensor = tensor
        self.recompute = recompute
        self._forward: dict[tuple[int, bool], BlockPass] = {}
        self._backward: dict[tuple[int, bool], BlockPass] = {}

    def at(self, point: Point) -> Passes:
        """Return the same passes at another operating point."""
        return Passes(self.pricer.at(point), self.layout, self.cluster, self.tensor, self.recompute, self.data)

    def forward(self, block: Block, *, layer: bool) -> BlockPass:
        """Return the forward pass; `layer` says that the recompute policy applies (it spares the ends of the model)."""
        key = (id(block), layer)
        if key not in self._forward:
            kept = self._policy(layer).kept_bytes(block, self.layout)
            legs = tuple(self._forward_legs(block.steps))
            self._forward[key] = BlockPass(legs=legs, saved_bytes=kept, peak_bytes=kept)
        return self._forward[key]

    def backward(self, block: Block, *, layer: bool) -> BlockPass:
        """Return the backward pass, with what it recomputes before."""
        key = (id(block), layer)
        if key not in self._backward:
            policy = self._policy(layer)
            again = () if block.still else policy.again(block.steps)
            legs = (*self._forward_legs(again), *self._backward_legs(block.steps))
            full = sum(op.saved_bytes(self.layout) for op in block.ops)
            kept = policy.kept_bytes(block, self.layout)
            self._backward[key] = BlockPass(legs=legs, saved_bytes=kept, peak_bytes=max(kept, full))
        return self._backward[key]

    def compute_leg(self, kernel: Kernel, name: str | None = None) -> Leg:
        """Return one kernel as a leg."""
        return self._leg(name or kernel.name, self.pricer.work(kernel))

    def host_leg(self, name: str, seconds: float) -> Leg:
        """Return time that the device spends waiting for the host."""
        return Leg(name=name, device_s=seconds, lead_s=seconds, launch_s=0.0, class_s={HOST: seconds}, joules={})

    def comm_leg(
        self, name: str, kind: str, size_bytes: float, hidden_by: Leg | None = None, most: float = 1.0, over: Span | None = None
    ) -> tuple[Leg, ...]:
        """Return an inline collective, less what (of `most` of it) runs beside `hidden_by`; nothing where it is free.

        It runs over the tensor-parallel group, or `over` another.
        """
        cost = collective(kind, size_bytes, over or self.tensor, self.cluster, self.pricer.software.collective_scale)
        if cost.total_s == 0.0:
            return ()
        hidden = min(cost.total_s * most, hidden_by.device_s) if hidden_by is not None else 0.0
        launch = self.pricer.software.host.collective_s
        rest = cost.total_s - hidden
        kind_of = TENSOR if over is None else DATA
        power = self.pricer.accelerator.power
        # The kernel of the collective keeps the compute units awake while nothing else runs.
        joules = {"links": cost.wire_bytes * power.link_j_per_byte, "busy": power.busy_w * self.pricer.point.busy_power * rest}
        leg = Leg(
            name=name, device_s=rest, lead_s=launch + rest, launch_s=launch, class_s={kind_of: rest} if rest else {},
            joules=joules, transfer=_shortened(cost, rest), hidden_s=hidden,
        )  # fmt: skip
        slowed = self.slowed_leg(hidden)
        if not self.pricer.software.host.blocking:
            return (*slowed, leg)
        return (*slowed, self.host_leg("launch", launch), replace(leg, lead_s=rest, launch_s=0.0))

    def slowed_leg(self, hidden_s: float) -> tuple[Leg, ...]:
        """Return what compute loses to a collective that runs beside it for `hidden_s`."""
        loss = self.pricer.accelerator.overlap_loss
        slowed = hidden_s * loss / (1.0 - loss)
        if slowed == 0.0:
            return ()
        return (Leg(name="slowed by overlap", device_s=slowed, lead_s=slowed, launch_s=0.0, class_s={MATH: slowed}, joules={}),)

    # ── one direction ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _forward_legs(self, steps: Iterable[Step]) -> list[Leg]:
        legs: list[Leg] = []
        feeding: Boundary | None = None
        for step in steps:
            if isinstance(step, Boundary):
                feeding = step if self._pipelined and step.kind == "enter" else None
                if feeding is None:
                    beside = legs[-1] if self._pipelined and legs else None
                    legs += self._boundary(step, backward=False, beside=beside, most=self._chunked)
                continue
            kernels = [self.compute_leg(kernel) for kernel in step.forward(self.layout)]
            legs += [*self._fed(feeding, kernels, backward=False), *kernels]
            feeding = None
        return legs

    def _backward_legs(self, steps: Sequence[Step]) -> list[Leg]:
        legs: list[Leg] = []
        feeding: Boundary | None = None
        for step in reversed(steps):
            if isinstance(step, Boundary):
                feeding = step if self._pipelined and step.kind == "leave" else None
                if feeding is None:
                    beside = legs[-1] if self.pricer.software.overlap.tensor_backward and len(legs) > 1 else None
                    legs += self._boundary(step, backward=True, beside=beside, before=legs[-2] if beside is not None else None)
                continue
            kernels = [self.compute_leg(kernel) for kernel in step.backward(self.layout)]
            legs += [*self._fed(feeding, kernels, backward=True), *kernels]
            feeding = None
        return legs

    @property
    def _pipelined(self) -> bool:
        """Whether collectives run chunk by chunk beside the product that they feed or drain.

        Source: Wang et al., ASPLOS 2023, section 4 (decomposed collectives beside matrix products).
        """
        return self.pricer.software.overlap.tensor_pipelined and self.layout.sequence_parallel

    @property
    def _chunked(self) -> float:
        """The share of a pipelined collective that can hide: one of its tp chunks has nothing to run beside."""
        return 1.0 - 1.0 / self.tensor.ranks

    def _fed(self, boundary: Boundary | None, kernels: Sequence[Leg], *, backward: bool) -> tuple[Leg, ...]:
        """Return the gather that feeds the product among `kernels`, less what runs beside it."""
        if boundary is None:
            return ()
        product = max(kernels, key=lambda leg: leg.class_s.get(MATH, 0.0), default=None)
        return self._boundary(boundary, backward=backward, beside=product, most=self._chunked)

    def _boundary(
        self, step: Boundary, *, backward: bool, beside: Leg | None, before: Leg | None = None, most: float = 1.0
    ) -> tuple[Leg, ...]:
        """Return the collectives of a boundary; see `models.ops.Boundary`.

        In backward, the reduction of the data gradient can run beside the weight-gradient product (`beside`), and with sequence
        parallelism the gather of the saved input beside the data-gradient product (`before`).
        Source: Korthikanti et al., arXiv:2205.05198, section 4.2.2.
        """
        size = step.elements * self.layout.micro_batch * self.layout.element_bytes
        name = f"{step.name} {'backward' if backward else 'forward'}"
        if step.kind == "exchange":
            return () if backward and not step.gradient else self.comm_leg(name, "all_to_all", size, over=self.data)
        if self.layout.tp == 1 or (backward and not step.gradient):
            return ()
        if step.kind == "loss":
            small = step.elements * self.layout.micro_batch * 4.0
            return () if backward else self.comm_leg(name, "all_reduce", small) * SMALL_REDUCES
        if (step.kind == "enter") is backward:
            gather = self.comm_leg(f"{name} input", "all_gather", size, before) if backward and self.layout.sequence_parallel else ()
            kind = "reduce_scatter" if self.layout.sequence_parallel else "all_reduce"
            return (*gather, *self.comm_leg(name, kind, size, beside, most))
        return self.comm_leg(name, "all_gather", size, beside, most) if self.layout.sequence_parallel else ()

    def _leg(self, name: str, work: Work) -> Leg:
        classes = {MATH: work.math_s, MEMORY: work.memory_s, OVERHEAD: work.overhead_s}
        leg = Leg(
            name=name, device_s=work.device_s, lead_s=work.host_s + work.device_s, launch_s=work.host_s,
            class_s={key: value for key, value in classes.items() if value},
            joules={"math": work.math_j, "memory": work.memory_j, "busy": work.busy_j}, flop=work.flop,
        )  # fmt: skip
        return blocking(leg) if self.pricer.software.host.blocking else leg

    def _policy(self, layer: bool) -> Recomputation:  # noqa: FBT001 - a key, as in forward and backward
        return recomputation(self.recompute, self.pricer.software.selective) if layer else NOTHING_AGAIN


def _shortened(cost: TransferCost, rest_s: float) -> TransferCost:
    """Return what is left to wait for of a transfer that was partly hidden."""
    if rest_s >= cost.total_s:
        return cost
    if rest_s <= 0.0:
        return NOTHING
    share = rest_s / cost.total_s
    return TransferCost(
        latency_s=cost.latency_s * share, full_s=cost.full_s * share, port_bytes_per_s=cost.port_bytes_per_s,
        network_bytes_per_s=cost.network_bytes_per_s, wire_bytes=cost.wire_bytes * share,
    )  # fmt: skip
