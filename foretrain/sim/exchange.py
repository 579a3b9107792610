"""How data-parallel ranks exchange parameters and gradients around the passes of a step.

What all ways share is here. One final class per way: in `replicated` parameters that stay so (DDP, optionally with a sharded optimizer
and sharded gradients), in `sharded` those that do not, in `replicas` what does without an all-reduce of gradients in every step. Each
turns a pass of a chunk into instructions, with what it gathers before and reduces after.

**Source:** Rajbhandari et al., ZeRO, arXiv:1910.02054, sections 5 and 7; Zhao et al., PyTorch FSDP, arXiv:2304.11277, sections 3 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from foretrain.sim.collectives import TransferCost
from foretrain.sim.host_copies import HostCopies
from foretrain.sim.loading import loading_s
from foretrain.sim.offload import copy_cost, sample_bytes
from foretrain.sim.passes import DIRECTIONS
from foretrain.sim.placement import Span
from foretrain.sim.program import Instruction
from foretrain.sim.schedules.base import FORWARD
from foretrain.sim.segment import DATA
from foretrain.sim.stagework import StageWork

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member

Instructions = list[Instruction]
Pair = tuple[Instruction, Instruction]
"""The start of a collective, and the wait for it."""


class Exchange(ABC):
    """Instructions of one rank around its passes."""

    def __init__(self, context: Context, work: StageWork, member: Member, classes: int) -> None:
        self.context = context
        self.work = work
        self.member = member
        self.classes = classes
        self.host = HostCopies(context, work)
        self._cache: dict[tuple[int, int, bool], Instructions] = {}
        self._gathers: dict[tuple[int, int], Instructions] = {}
        """Waits for parameters that were gathered ahead, by chunk and first unit."""
        self._reductions: Instructions = []
        """Waits for reductions that run behind the last backward passes."""

    @abstractmethod
    def begin(self) -> tuple[Instruction, ...]:
        """Return what comes before the first pass."""

    @abstractmethod
    def end(self) -> tuple[Instruction, ...]:
        """Return what comes after the last pass: remaining reductions, the optimizer, parameters gathered again."""

    @property
    @abstractmethod
    def first_apart(self) -> bool:
        """Whether the first forward pass of a chunk differs from the others."""

    @property
    @abstractmethod
    def last_apart(self) -> bool:
        """Whether the last gradient of a chunk's weights differs from the others."""

    @abstractmethod
    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions: ...

    def passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        """Return one pass of a chunk; `special` where it is the first forward or the last gradient of weights and stands apart."""
        key = (kind, chunk, special)
        if key not in self._cache:
            inputs = self._inputs(chunk) if kind == FORWARD else []
            self._cache[key] = inputs + self._passed(kind, chunk, special=special)
        return self._cache[key]

    def _inputs(self, chunk: int) -> Instructions:
        """Return the wait for the samples of a micro-batch, where the software does not make them ready or copy them ahead."""
        placement, host = self.context.placement, self.context.software.host
        if placement.part(self.member.stage, chunk):
            return []
        waits: Instructions = []
        if not host.loader_overlapped:
            seconds = loading_s(placement, host, stage=self.member.stage, replica=self.member.replica.replica, microbatches=1)
            waits += self.work.waiting("loading", seconds)
        if not host.input_overlapped:
            size = sample_bytes(placement.model) * placement.plan.micro_batch
            waits += self.work.waiting("inputs", copy_cost(size, placement.cluster).full_s)
        return waits

    def _run(self, kind: int, chunk: int, first: int = 0, last: int | None = None) -> Instructions:
        """Return the pass over some units of a chunk, with the copies of activations that lie in the host's memory."""
        return self.host.run(DIRECTIONS[kind], chunk, first, last)

    def _deferred(self) -> Instructions:
        """Return the gradients of weights that all micro-batches have left to the end of the step."""
        microbatches = self.context.placement.microbatches_each
        return [step for chunk in range(len(self.work.state.units)) for step in self.work.deferred(chunk, microbatches)]

    def _collective(self, name: str, kind: str, size_bytes: float, span: Span) -> Pair | None:
        """Return (issue, wait) of a data-parallel collective; None where it is free."""
        cost = self._cost(kind, size_bytes, span)
        if cost.total_s == 0.0:
            return None
        return self.context.start(name, DATA, cost, group=self._group(self.member.stage), members=self.classes, stream=1)

    def _across_copies(self, name: str, kind: str, size_bytes: float, span: Span) -> Pair | None:
        """Return (issue, wait) of a collective in which the stage takes part that holds the other copy of the same parts, if one does."""
        twin = self.context.placement.twin(self.member.stage)
        if twin is None:
            return self._collective(name, kind, size_bytes, span)
        cost = self._cost(kind, size_bytes, span)
        if cost.total_s == 0.0:
            return None
        group = self._group(min(twin, self.member.stage)) + 2
        return self.context.start(name, DATA, cost, group=group, members=2 * self.classes, stream=1)

    def _cost(self, kind: str, size_bytes: float, span: Span) -> TransferCost:
        """Return the cost of a collective; all but gathers wait for the next cycle of a software that starts them by the clock."""
        cost = self.context.cost(kind, size_bytes, span)
        if cost.total_s == 0.0 or kind == "all_gather":
            return cost
        return replace(cost, latency_s=cost.latency_s + self.context.software.overlap.cycle_s)

    def _group(self, stage: int) -> int:
        return (stage * self.context.placement.plan.tp + self.member.tensor) * 1_000_003

    def _reduction(self, name: str, parameters: float, experts: float = 0.0) -> list[Pair]:
        """Return the collectives that bring the gradients of `parameters` to where the optimizer needs them; none of no parameters.

        Those of `experts` among them are reduced over the ranks that hold the same experts.
        """
        placement, stage = self.context.placement, self.member.stage
        dense, plan = parameters - experts, placement.plan
        found = self._over(name, dense, plan.shards, placement.shard_span(stage), placement.replica_span(stage)) if dense else []
        if experts:
            spans = placement.expert_shard_span(stage), placement.expert_replica_span(stage)
            found += self._over(f"experts' {name}", experts, plan.expert_shards, *spans)
        return [pair for pair in found if pair is not None]

    def _over(self, name: str, parameters: float, shards: int, shard: Span, replica: Span) -> list[Pair | None]:
        """Return the reduction over the ranks that share one copy, and over those that hold the same shard."""
        size = parameters * self.context.numbers.state.reduce_bytes
        if shards == 1:
            return [self._across_copies(f"all-reduce {name}", "all_reduce", size, replica)]
        return [
            self._collective(f"reduce-scatter {name}", "reduce_scatter", size, shard),
            self._across_copies(f"all-reduce {name}", "all_reduce", size / shards, replica),
        ]

    def _gather(self, name: str, size: float, experts: float = 0.0) -> list[Pair]:
        """Return the gathers of `size` bytes, those of `experts` among them over the ranks that share a copy of the same experts."""
        placement, stage = self.context.placement, self.member.stage
        found: list[Pair | None] = []
        if size > experts:
            found.append(self._collective(f"all-gather {name}", "all_gather", size - experts, placement.shard_span(stage)))
        if experts:
            span = placement.expert_shard_span(stage)
            found.append(self._collective(f"all-gather experts' {name}", "all_gather", experts, span))
        return [pair for pair in found if pair is not None]

    def _tied(self) -> Instructions:
        """Return the all-reduce of the tied embedding's gradient between the stages that hold the ends of the model, if two do."""
        placement, plan = self.context.placement, self.context.placement.plan
        model = placement.model
        if not (model.tied_parameters and model.tied_trained) or self.member.stage not in placement.tied_stages:
            return []
        size = placement.model.tied_parameters / plan.tp * self.context.numbers.state.reduce_bytes
        cost = self.context.cost("all_reduce", size, placement.tied_span(self.member.replica.replica))
        group = ((self.member.replica.replica * plan.cp + self.member.context) * plan.tp + self.member.tensor) * 1_000_003 + 1
        return list(self.context.start("all-reduce tied embedding", DATA, cost, group=group, members=2, stream=2))
