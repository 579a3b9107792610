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
from foretrain.sim.split import held_bytes

FORWARD, BACKWARD, INPUT, WEIGHT = DIRECTIONS = ("forward", "backward", "backward input", "backward weight")
"""Passes of a block: the last two are the halves of a backward pass that is split."""
SMALL_REDUCES = 3
"""All-reduces of the vocabulary-parallel loss: maximum, target logit, sum of exponentials (Megatron-LM cross_entropy.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPass:
    """Legs of one pass of one block, kernel by kernel.

    `peak_bytes` and `delta_bytes` are activation memory relative to the start: the highest point, and what is left at the end.
    """

    legs: tuple[Leg, ...]
    peak_bytes: float
    delta_bytes: float


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
        self._known: dict[tuple[str, int, bool], BlockPass] = {}

    def at(self, point: Point) -> Passes:
        """Return the same passes at another operating point."""
        return Passes(self.pricer.at(point), self.layout, self.cluster, self.tensor, self.recompute, self.data)

    def of(self, direction: str, block: Block, *, layer: bool) -> BlockPass:
        """Return a pass in one of `DIRECTIONS`; `layer` says that the recompute policy applies (it spares the ends of the model)."""
        key = (direction, id(block), layer)
        if key not in self._known:
            make = {FORWARD: self._forward, BACKWARD: self._backward, INPUT: self._input, WEIGHT: self._weight}[direction]
            self._known[key] = make(block, self._policy(layer))
        return self._known[key]

    def _forward(self, block: Block, policy: Recomputation) -> BlockPass:
        kept = policy.kept_bytes(block, self.layout)
        return BlockPass(legs=tuple(self._forward_legs(block.steps)), peak_bytes=kept, delta_bytes=kept)

    def _backward(self, block: Block, policy: Recomputation) -> BlockPass:
        """Return the backward pass, with what it recomputes before."""
        legs = (*self._forward_legs(_again(block, policy)), *self._backward_legs(block.steps))
        kept, full = policy.kept_bytes(block, self.layout), self._full_bytes(block)
        return BlockPass(legs=legs, peak_bytes=max(kept, full) - kept, delta_bytes=-kept)

    def _input(self, block: Block, policy: Recomputation) -> BlockPass:
        """Return the gradient of the input alone; what it recomputes for the gradients of weights stays until they have run."""
        legs = (*self._forward_legs(_again(block, policy)), *self._input_legs(block.steps))
        kept, held = policy.kept_bytes(block, self.layout), held_bytes(block, self.layout)
        return BlockPass(legs=legs, peak_bytes=max(kept, self._full_bytes(block), held) - kept, delta_bytes=held - kept)

    def _weight(self, block: Block, _policy: Recomputation) -> BlockPass:
        return BlockPass(legs=tuple(self._weight_legs(block.steps)), peak_bytes=0.0, delta_bytes=-held_bytes(block, self.layout))

    def _full_bytes(self, block: Block) -> float:
        return sum(op.saved_bytes(self.layout) for op in block.ops)

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

    def _input_legs(self, steps: Sequence[Step]) -> list[Leg]:
        """Return the backward pass without gradients of weights, beside which its collectives cannot hide."""
        legs: list[Leg] = []
        feeding: Boundary | None = None
        for step in reversed(steps):
            if isinstance(step, Boundary):
                feeding = step if self._pipelined and step.kind == "leave" else None
                if feeding is None:
                    legs += self._boundary(step, backward=True, beside=None, gathers=False)
                continue
            kernels = [self.compute_leg(kernel) for kernel in step.backward(self.layout) if not kernel.weight_grad]
            legs += [*self._fed(feeding, kernels, backward=True), *kernels]
            feeding = None
        return legs

    def _weight_legs(self, steps: Sequence[Step]) -> list[Leg]:
        """Return the gradients of weights; with sequence parallelism the saved inputs are gathered beside the products."""
        legs: list[Leg] = []
        for step in reversed(steps):
            if isinstance(step, Boundary):
                if step.kind == "enter" and self.layout.sequence_parallel:
                    beside = legs[-1] if self.pricer.software.overlap.tensor_backward and legs else None
                    legs += self.comm_leg(f"{step.name} backward input", "all_gather", self._boundary_bytes(step), beside)
                continue
            legs += [self.compute_leg(kernel) for kernel in step.backward(self.layout) if kernel.weight_grad]
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
        self, step: Boundary, *, backward: bool, beside: Leg | None, before: Leg | None = None, most: float = 1.0, gathers: bool = True
    ) -> tuple[Leg, ...]:
        """Return the collectives of a boundary; see `models.ops.Boundary`.

        In backward, the reduction of the data gradient can run beside the weight-gradient product (`beside`), and with sequence
        parallelism the gather of the saved input beside the data-gradient product (`before`), unless the weights' turn comes later
        (`gathers` is then off).
        Source: Korthikanti et al., arXiv:2205.05198, section 4.2.2.
        """
        size = self._boundary_bytes(step)
        name = f"{step.name} {'backward' if backward else 'forward'}"
        if step.kind == "exchange":
            return () if backward and not step.gradient else self.comm_leg(name, "all_to_all", size, over=self.data)
        if self.layout.tp == 1 or (backward and not step.gradient):
            return ()
        if step.kind == "loss":
            small = step.elements * self.layout.micro_batch * 4.0
            return () if backward else self.comm_leg(name, "all_reduce", small) * SMALL_REDUCES
        if (step.kind == "enter") is backward:
            again = gathers and backward and self.layout.sequence_parallel
            gather = self.comm_leg(f"{name} input", "all_gather", size, before) if again else ()
            kind = "reduce_scatter" if self.layout.sequence_parallel else "all_reduce"
            return (*gather, *self.comm_leg(name, kind, size, beside, most))
        return self.comm_leg(name, "all_gather", size, beside, most) if self.layout.sequence_parallel else ()

    def _boundary_bytes(self, step: Boundary) -> float:
        return step.elements * self.layout.micro_batch * self.layout.element_bytes

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


def _again(block: Block, policy: Recomputation) -> tuple[Step, ...]:
    """Return the steps that a backward pass runs again: none of a block that nothing of it trains."""
    return () if block.still else policy.again(block.steps)


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
