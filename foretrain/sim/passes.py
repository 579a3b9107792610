"""Forward and backward passes of a block on one rank, as legs: kernels priced, tensor-parallel collectives inline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foretrain.hardware.cluster import Cluster
from foretrain.models.attention import CoreAttention
from foretrain.models.model import Block, Step
from foretrain.models.ops import Boundary, Kernel, Layout, Op
from foretrain.models.still import Still
from foretrain.sim.clock import Point
from foretrain.sim.context import ContextMode
from foretrain.sim.cost import Pricer
from foretrain.sim.inline import Spans, Transfers, waiting
from foretrain.sim.recompute import NOTHING_AGAIN, Recomputation, recomputation
from foretrain.sim.segment import DATA, EXPERT, HOST, MATH, MEMORY, OVERHEAD, Leg, joined
from foretrain.sim.split import held_bytes

FORWARD, BACKWARD, INPUT, WEIGHT = DIRECTIONS = ("forward", "backward", "backward input", "backward weight")
"""Passes of a block: the last two are the halves of a backward pass that is split."""
OF_ALL, OF_INPUTS, OF_WEIGHTS = (False, True), (False,), (True,)
"""Kernels of a backward pass, by whether they make gradients of weights."""
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
    """Prices the passes of blocks for one layout, groups and recompute policy; each block once.

    `context` attends across context-parallel ranks; `busy` is the share of the experts' work that a rank has which stands for all.
    """

    def __init__(  # noqa: PLR0913 - what a pass depends on
        self, pricer: Pricer, layout: Layout, cluster: Cluster, spans: Spans, recompute: str, *, context: ContextMode | None, busy: float
    ) -> None:
        self.pricer = pricer
        self.layout = layout
        self.cluster = cluster
        self.spans = spans
        self.transfers = Transfers(pricer, cluster, spans)
        self.context = context
        self.busy = busy
        self.recompute = recompute
        self._known: dict[tuple[str, int, bool], BlockPass] = {}

    def at(self, point: Point) -> Passes:
        """Return the same passes at another operating point."""
        return Passes(
            self.pricer.at(point), self.layout, self.cluster, self.spans, self.recompute, context=self.context, busy=self.busy
        )  # fmt: skip

    def like(self, other: Passes) -> bool:
        """Tell whether these are the same passes at another operating point."""
        own, others = (self.spans, self.context, self.pricer.slowest), (other.spans, other.context, other.pricer.slowest)
        return own == others

    def of(self, direction: str, block: Block, *, layer: bool) -> BlockPass:
        """Return a pass in one of `DIRECTIONS`; `layer` says that the recompute policy applies (it spares the ends of the model)."""
        key = (direction, id(block), layer)
        if key not in self._known:
            make = {FORWARD: self._forward, BACKWARD: self._backward, INPUT: self._input, WEIGHT: self._weight}[direction]
            self._known[key] = make(block, self._policy(layer))
        return self._known[key]

    def _forward(self, block: Block, policy: Recomputation) -> BlockPass:
        kept = policy.kept_bytes(block, self.layout)
        peak = kept + self._buffers(block, backward=False)
        return BlockPass(legs=tuple(self._forward_legs(block.steps)), peak_bytes=peak, delta_bytes=kept)

    def _backward(self, block: Block, policy: Recomputation) -> BlockPass:
        """Return the backward pass, with what it recomputes before."""
        legs = (*self._forward_legs(_again(block, policy)), *self._backward_legs(block.steps))
        kept, full = policy.kept_bytes(block, self.layout), self._full_bytes(block)
        return BlockPass(legs=legs, peak_bytes=max(kept, full) - kept + self._buffers(block, backward=True), delta_bytes=-kept)

    def _input(self, block: Block, policy: Recomputation) -> BlockPass:
        """Return the gradient of the input alone; what it recomputes for the gradients of weights stays until they have run."""
        legs = (*self._forward_legs(_again(block, policy)), *self._input_legs(block.steps))
        kept, held = policy.kept_bytes(block, self.layout), held_bytes(block, self.layout)
        peak = max(kept, self._full_bytes(block), held) - kept + self._buffers(block, backward=True)
        return BlockPass(legs=legs, peak_bytes=peak, delta_bytes=held - kept)

    def _weight(self, block: Block, _policy: Recomputation) -> BlockPass:
        return BlockPass(legs=tuple(self._weight_legs(block.steps)), peak_bytes=0.0, delta_bytes=-held_bytes(block, self.layout))

    def _full_bytes(self, block: Block) -> float:
        return sum(op.saved_bytes(self.layout) for op in block.ops)

    def compute_leg(self, kernel: Kernel, name: str | None = None) -> Leg:
        """Return one kernel as a leg; the device waits for launches of a host that issues nothing ahead."""
        work = self.pricer.work(kernel)
        waited_s, issued_s = (work.host_s, 0.0) if self.pricer.software.host.blocking else (0.0, work.host_s)
        device_s = work.device_s + waited_s
        classes = ((MATH, work.math_s), (MEMORY, work.memory_s), (OVERHEAD, work.overhead_s), (HOST, waited_s))
        return Leg(
            name=name or kernel.name, device_s=device_s, lead_s=issued_s + device_s, launch_s=issued_s,
            class_s={key: seconds for key, seconds in classes if seconds},
            joules={"math": work.math_j, "memory": work.memory_j, "busy": work.busy_j}, flop=work.flop,
            launches=kernel.launches, work=kernel.kind.name.lower(),
        )  # fmt: skip

    # ── one direction ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _forward_legs(self, steps: Iterable[Step]) -> list[Leg]:
        legs: list[Leg] = []
        feeding: Boundary | None = None
        steps = tuple(steps)
        for step in steps:
            if isinstance(step, Boundary) and step.kind == "exchange":
                legs += self._exchange(step, steps, None)
                feeding = None
                continue
            if isinstance(step, Boundary):
                feeding = step if self._pipelined and step.kind == "enter" else None
                if feeding is None:
                    beside = legs[-1] if self._pipelined and legs else None
                    legs += self._boundary(step, backward=False, beside=beside, most=self._chunked)
                continue
            kernels = self._op_legs(step, None)
            legs += [*self._fed(feeding, kernels, backward=False), *kernels]
            feeding = None
        return legs

    def _backward_legs(self, steps: Sequence[Step]) -> list[Leg]:
        legs: list[Leg] = []
        feeding: Boundary | None = None
        for step in reversed(steps):
            if isinstance(step, Boundary) and step.kind == "exchange":
                legs += self._exchange(step, steps, OF_ALL)
                feeding = None
                continue
            if isinstance(step, Boundary):
                feeding = step if self._pipelined and step.kind == "leave" else None
                if feeding is None:
                    beside = legs[-1] if self.pricer.software.overlap.tensor_backward and len(legs) > 1 else None
                    legs += self._boundary(step, backward=True, beside=beside, before=legs[-2] if beside is not None else None)
                continue
            kernels = self._op_legs(step, OF_ALL)
            legs += [*self._fed(feeding, kernels, backward=True), *kernels]
            feeding = None
        return legs

    def _op_legs(self, op: Op, kinds: tuple[bool, ...] | None) -> list[Leg]:
        """Return an op's legs forward (None), or backward those of its kernels that are, or are not, gradients of weights."""
        core = op.op if isinstance(op, Still) and kinds is None else op
        if self.context is not None and isinstance(core, CoreAttention):
            if kinds is None:
                return self.context.forward(core, self)
            return self.context.backward(core, self) if False in kinds else []
        kernels = op.forward(self.layout) if kinds is None else [one for one in op.backward(self.layout) if one.weight_grad in kinds]
        legs = [self.compute_leg(kernel) for kernel in kernels]
        return [waiting(leg, self.busy, EXPERT) for leg in legs] if op.experts else legs

    def _buffers(self, block: Block, *, backward: bool) -> float:
        """Return the largest bytes beside what is saved that one op of the block holds at a time.

        Other ranks' keys and values in attention, copies and gradients of the logits in the loss.
        """
        beside = max((op.beside_bytes(self.layout) for op in block.ops), default=0.0) if backward else 0.0
        if self.context is None:
            return beside
        cores = (op for op in block.ops if isinstance(op, CoreAttention))
        return max((self.context.buffer_bytes(op, self.layout, backward=backward) for op in cores), default=beside)

    def _input_legs(self, steps: Sequence[Step]) -> list[Leg]:
        """Return the backward pass without gradients of weights, beside which its collectives cannot hide."""
        legs: list[Leg] = []
        feeding: Boundary | None = None
        for step in reversed(steps):
            if isinstance(step, Boundary) and step.kind == "exchange":
                legs += self._exchange(step, steps, OF_INPUTS)
                feeding = None
                continue
            if isinstance(step, Boundary):
                feeding = step if self._pipelined and step.kind == "leave" else None
                if feeding is None:
                    legs += self._boundary(step, backward=True, beside=None, gathers=False)
                continue
            kernels = self._op_legs(step, OF_INPUTS)
            legs += [*self._fed(feeding, kernels, backward=True), *kernels]
            feeding = None
        return legs

    def _weight_legs(self, steps: Sequence[Step]) -> list[Leg]:
        """Return the gradients of weights; with sequence parallelism, inputs that rest shared are gathered beside the products."""
        legs: list[Leg] = []
        for step in reversed(steps):
            if isinstance(step, Boundary):
                if step.kind == "enter" and self.layout.sequence_parallel and self.layout.regathers:
                    beside = legs[-1] if self.pricer.software.overlap.tensor_backward and legs else None
                    legs += self.transfers.tensor(f"{step.name} backward input", "all_gather", self._boundary_bytes(step), beside)
                continue
            legs += self._op_legs(step, OF_WEIGHTS)
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
        return 1.0 - 1.0 / self.spans.tensor.ranks

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
        size, name = self._boundary_bytes(step), _directed(step, backward=backward)
        if self.layout.tp == 1 or (backward and not step.gradient):
            return ()
        if step.kind == "loss":
            small = step.elements * self.layout.micro_batch * 4.0 / self.layout.cp
            return () if backward else self.transfers.tensor(name, "all_reduce", small) * SMALL_REDUCES
        if (step.kind == "enter") is backward:
            again = gathers and backward and self.layout.sequence_parallel and self.layout.regathers
            gather = self.transfers.tensor(f"{name} input", "all_gather", size, before) if again else ()
            kind = "reduce_scatter" if self.layout.sequence_parallel else "all_reduce"
            return (*gather, *self.transfers.tensor(name, kind, size, beside, most))
        return self.transfers.tensor(name, "all_gather", size, beside, most) if self.layout.sequence_parallel else ()

    def _boundary_bytes(self, step: Boundary) -> float:
        """Return the bytes of a boundary's tensor that one micro-batch has on one context-parallel rank."""
        return step.elements * self.layout.micro_batch * self.layout.element_bytes / self.layout.cp

    def _exchange(self, step: Boundary, steps: Sequence[Step], kinds: tuple[bool, ...] | None) -> tuple[Leg, ...]:
        """Return an all-to-all among the replicas, or among the ranks that share the experts.

        Tensor-parallel ranks hold the same rows: each sends its share to the experts' ranks, and they gather what came among themselves;
        on the way back they reduce it first.
        Source: Singh et al., DeepSpeed-TED, arXiv:2303.06318, section 5.1 (duplicate tokens are dropped).
        """
        backward = kinds is not None
        if backward and not step.gradient:
            return ()
        size, name = self._boundary_bytes(step), _directed(step, backward=backward)
        if step.among == "replicas":
            beside = self._beside(step, steps, kinds) if self.pricer.software.overlap.table_exchange else None
            return self.transfers.leg(name, self.transfers.collective("all_to_all", size, self.spans.data), DATA, beside)
        if self.layout.ep == 1:
            return ()
        size *= self.layout.expert_load
        swap = self.transfers.collective("all_to_all", size / self.layout.tp, self.spans.expert)
        beside = self._beside(step, steps, kinds) if self.pricer.software.overlap.expert_exchange else None
        legs = self.transfers.leg(name, swap, EXPERT, beside)
        away = step.name.endswith("dispatch") is not backward
        if away:
            return (*legs, *self.transfers.tensor(f"{name} tensor", "all_gather", size))
        return (*self.transfers.tensor(f"{name} tensor", "reduce_scatter", size), *legs)

    def _beside(self, step: Boundary, steps: Sequence[Step], kinds: tuple[bool, ...] | None) -> Leg | None:
        """Return the ops that an exchange can run beside, as one leg; None where there are none."""
        if not step.beside:
            return None
        legs = [leg for op in steps if isinstance(op, Op) and op.name.startswith(step.beside) for leg in self._op_legs(op, kinds)]
        return joined(legs, step.beside) if legs else None

    def _policy(self, layer: bool) -> Recomputation:  # noqa: FBT001 - a key, as in forward and backward
        return recomputation(self.recompute, self.pricer.software.selective) if layer else NOTHING_AGAIN


def _directed(step: Boundary, *, backward: bool) -> str:
    return f"{step.name} {'backward' if backward else 'forward'}"


def _again(block: Block, policy: Recomputation) -> tuple[Step, ...]:
    """Return the steps that a backward pass runs again: none of a block that nothing of it trains."""
    return () if block.still else policy.again(block.steps)
