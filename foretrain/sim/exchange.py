"""How data-parallel ranks exchange parameters and gradients around the passes of a step.

One final class per way: replicated state (DDP, optionally with a sharded optimizer), and fully sharded state (ZeRO-3, FSDP).
Each turns a pass of a chunk into instructions, with what it gathers before and reduces after.

**Source:** Rajbhandari et al., ZeRO, arXiv:1910.02054, sections 5 and 7; Zhao et al., PyTorch FSDP, arXiv:2304.11277, sections 3 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

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
        self._cache: dict[tuple[int, int, bool], Instructions] = {}
        self._gathers: dict[tuple[int, int], Instructions] = {}
        """Waits for parameters that were gathered ahead, by chunk and first unit."""
        self._postponed: list[tuple[str, float, float]] = []
        """Names, parameters and experts' among them of reductions whose gradients come at the end of the step."""
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
            self._cache[key] = self._passed(kind, chunk, special=special)
        return self._cache[key]

    def _collective(self, name: str, kind: str, size_bytes: float, span: Span) -> tuple[Instruction, Instruction] | None:
        """Return (issue, wait) of a data-parallel collective; None where it is free."""
        cost = self.context.cost(kind, size_bytes, span)
        if cost.total_s == 0.0:
            return None
        return self.context.start(name, DATA, cost, group=self._group(self.member.stage), members=self.classes, stream=1)

    def _across_copies(self, name: str, size_bytes: float, span: Span) -> tuple[Instruction, Instruction] | None:
        """Return (issue, wait) of an all-reduce in which the stage takes part that holds the other copy of the same parts, if one does."""
        twin = self.context.placement.twin(self.member.stage)
        if twin is None:
            return self._collective(name, "all_reduce", size_bytes, span)
        cost = self.context.cost("all_reduce", size_bytes, span)
        if cost.total_s == 0.0:
            return None
        group = self._group(min(twin, self.member.stage)) + 2
        return self.context.start(name, DATA, cost, group=group, members=2 * self.classes, stream=1)

    def _group(self, stage: int) -> int:
        return (stage * self.context.placement.plan.tp + self.member.tensor) * 1_000_003

    def _reduction(self, name: str, parameters: float, experts: float = 0.0) -> list[tuple[Instruction, Instruction]]:
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
            return [self._across_copies(f"all-reduce {name}", size, replica)]
        return [
            self._collective(f"reduce-scatter {name}", "reduce_scatter", size, shard),
            self._across_copies(f"all-reduce {name}", size / shards, replica),
        ]

    def _gather(self, name: str, parameters: float, experts: float = 0.0) -> list[tuple[Instruction, Instruction]]:
        """Return the gathers of `parameters`, those of `experts` among them over the ranks that share a copy of the same experts."""
        placement, stage = self.context.placement, self.member.stage
        size = self.context.numbers.state.gather_bytes
        found = [self._collective(f"all-gather {name}", "all_gather", (parameters - experts) * size, placement.shard_span(stage))]
        if experts:
            span = placement.expert_shard_span(stage)
            found.append(self._collective(f"all-gather experts' {name}", "all_gather", experts * size, span))
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


class Replicated(Exchange):
    """Every rank holds the parameters; gradients are reduced once a step, and the optimizer may be sharded (ZeRO-1)."""

    @property
    def first_apart(self) -> bool:
        """Whether updated parameters are gathered behind the first forward passes."""
        return self.context.placement.plan.shards > 1 and self.context.software.overlap.parameter_gather

    @property
    def last_apart(self) -> bool:
        """Whether gradients are reduced behind the last backward passes."""
        return self.context.placement.exchanges and self.context.software.overlap.gradient_reduce

    def begin(self) -> tuple[Instruction, ...]:
        """Return the gathers of updated parameters that hide behind the first forward passes."""
        if not self.first_apart:
            return ()
        issued: Instructions = []
        for chunk in range(len(self.work.state.units)):
            for first, last, parameters, experts in self._buckets(chunk):
                pairs = self._gather(f"parameters {chunk}.{first}-{last}", parameters, experts)
                issued += [issue for issue, _ in pairs]
                self._gathers[chunk, first] = [wait for _, wait in pairs]
        return tuple(issued)

    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        if not special:
            return list(self.work.play(DIRECTIONS[kind], chunk))
        return self._first(chunk) if kind == FORWARD else self._last(DIRECTIONS[kind], chunk)

    def _first(self, chunk: int) -> Instructions:
        """Return a forward pass that waits for its parameters bucket by bucket."""
        result: Instructions = []
        for start, stop, _, _ in self._buckets(chunk):
            result += self._gathers.get((chunk, start), [])
            result += self.work.play(DIRECTIONS[FORWARD], chunk, start, stop)
        return result

    def _last(self, direction: str, chunk: int) -> Instructions:
        """Return a pass that completes gradients of weights, and starts to reduce each bucket when it is whole."""
        result: Instructions = []
        for start, stop, parameters, experts in reversed(self._buckets(chunk)):
            result += self.work.play(direction, chunk, start, stop)
            name = f"gradients {chunk}.{start}-{stop}"
            if any(unit.deferred for unit in self.work.state.units[chunk][start:stop]):
                self._postponed.append((name, parameters, experts))
            else:
                result += self._reduced(name, parameters, experts)
        return result

    def _reduced(self, name: str, parameters: float, experts: float) -> Instructions:
        """Return what starts the reduction of a bucket; the end of the step waits for it."""
        pairs = self._reduction(name, parameters, experts)
        self._reductions += [wait for _, wait in pairs]
        return [issue for issue, _ in pairs]

    def end(self) -> tuple[Instruction, ...]:
        """Return the reductions that nothing hid, the optimizer, and the gather of parameters that nothing will hide."""
        microbatches = self.context.placement.microbatches_each
        result: Instructions = [step for chunk in range(len(self.work.state.units)) for step in self.work.deferred(chunk, microbatches)]
        result += [issue for late in self._postponed for issue in self._reduced(*late)]
        result += self._reductions
        if not self.context.software.overlap.gradient_reduce and self.context.placement.exchanges:
            for pair in self._reduction("gradients", self.work.state.trained, self.work.state.experts_trained):
                result += pair
        result += self._tied()
        result += self.work.optimizer()
        if self.context.placement.plan.shards > 1 and not self.context.software.overlap.parameter_gather:
            for pair in self._gather("parameters", self.work.state.trained, self.work.state.experts_trained):
                result += pair
        return tuple(result)

    def _buckets(self, chunk: int) -> list[tuple[int, int, float, float]]:
        """Return (first unit, last unit, trained parameters, experts' among them) of each gradient bucket, in forward order."""
        limit = self.context.software.overlap.gradient_bucket_bytes
        size = self.context.numbers.state.reduce_bytes
        buckets: list[tuple[int, int, float, float]] = []
        start, held, experts = 0, 0.0, 0.0
        for index, unit in enumerate(self.work.state.units[chunk]):
            held += unit.trained
            experts += unit.experts_trained
            if held * size >= limit:
                buckets.append((start, index + 1, held, experts))
                start, held, experts = index + 1, 0.0, 0.0
        if start < len(self.work.state.units[chunk]):
            buckets.append((start, len(self.work.state.units[chunk]), held, experts))
        return buckets
