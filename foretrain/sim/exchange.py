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
from foretrain.sim.program import RESIZE, Instruction
from foretrain.sim.schedules.base import BACKWARD, FORWARD, WEIGHT
from foretrain.sim.segment import DATA
from foretrain.sim.stagework import StageWork
from foretrain.sim.state import Unit

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member

Instructions = list[Instruction]


class Exchange(ABC):
    """Instructions of one rank around its passes."""

    def __init__(self, context: Context, work: StageWork, member: Member, classes: int) -> None:
        self.context = context
        self.work = work
        self.member = member
        self.classes = classes
        self._cache: dict[tuple[int, int, bool], Instructions] = {}
        self._gathers: dict[tuple[int, int], Instruction] = {}
        """Waits for parameters that were gathered ahead, by chunk and first unit."""
        self._postponed: list[tuple[str, float]] = []
        """Names and parameters of reductions whose gradients come at the end of the step."""
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

    def _reduction(self, name: str, parameters: float) -> list[tuple[Instruction, Instruction]]:
        """Return the collectives that bring the gradients of `parameters` to where the optimizer needs them; none of no parameters."""
        if not parameters:
            return []
        placement, stage = self.context.placement, self.member.stage
        size = parameters * self.context.numbers.state.reduce_bytes
        shards = placement.plan.shards
        if shards == 1:
            found = [self._across_copies(f"all-reduce {name}", size, placement.data_span(stage))]
        else:
            found = [
                self._collective(f"reduce-scatter {name}", "reduce_scatter", size, placement.shard_span(stage)),
                self._across_copies(f"all-reduce {name}", size / shards, placement.replica_span(stage)),
            ]
        return [pair for pair in found if pair is not None]

    def _gather(self, name: str, parameters: float) -> tuple[Instruction, Instruction] | None:
        if not parameters:
            return None
        size = parameters * self.context.numbers.state.gather_bytes
        return self._collective(f"all-gather {name}", "all_gather", size, self.context.placement.shard_span(self.member.stage))

    def _tied(self) -> Instructions:
        """Return the all-reduce of the tied embedding's gradient between the stages that hold the ends of the model, if two do."""
        placement, plan = self.context.placement, self.context.placement.plan
        model = placement.model
        if not (model.tied_parameters and model.tied_trained) or self.member.stage not in placement.tied_stages:
            return []
        size = placement.model.tied_parameters / plan.tp * self.context.numbers.state.reduce_bytes
        cost = self.context.cost("all_reduce", size, placement.tied_span(self.member.replica.replica))
        group = (self.member.replica.replica * plan.tp + self.member.tensor) * 1_000_003 + 1
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
            for first, last, parameters in self._buckets(chunk):
                pair = self._gather(f"parameters {chunk}.{first}-{last}", parameters)
                if pair is not None:
                    issued.append(pair[0])
                    self._gathers[chunk, first] = pair[1]
        return tuple(issued)

    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        if not special:
            return list(self.work.play(DIRECTIONS[kind], chunk))
        return self._first(chunk) if kind == FORWARD else self._last(DIRECTIONS[kind], chunk)

    def _first(self, chunk: int) -> Instructions:
        """Return a forward pass that waits for its parameters bucket by bucket."""
        result: Instructions = []
        for start, stop, _ in self._buckets(chunk):
            if (chunk, start) in self._gathers:
                result.append(self._gathers[chunk, start])
            result += self.work.play(DIRECTIONS[FORWARD], chunk, start, stop)
        return result

    def _last(self, direction: str, chunk: int) -> Instructions:
        """Return a pass that completes gradients of weights, and starts to reduce each bucket when it is whole."""
        result: Instructions = []
        for start, stop, parameters in reversed(self._buckets(chunk)):
            result += self.work.play(direction, chunk, start, stop)
            name = f"gradients {chunk}.{start}-{stop}"
            if any(unit.deferred for unit in self.work.state.units[chunk][start:stop]):
                self._postponed.append((name, parameters))
            else:
                result += self._reduced(name, parameters)
        return result

    def _reduced(self, name: str, parameters: float) -> Instructions:
        """Return what starts the reduction of a bucket; the end of the step waits for it."""
        pairs = self._reduction(name, parameters)
        self._reductions += [wait for _, wait in pairs]
        return [issue for issue, _ in pairs]

    def end(self) -> tuple[Instruction, ...]:
        """Return the reductions that nothing hid, the optimizer, and the gather of parameters that nothing will hide."""
        microbatches = self.context.placement.microbatches_each
        result: Instructions = [step for chunk in range(len(self.work.state.units)) for step in self.work.deferred(chunk, microbatches)]
        result += [issue for name, parameters in self._postponed for issue in self._reduced(name, parameters)]
        result += self._reductions
        if not self.context.software.overlap.gradient_reduce and self.context.placement.exchanges:
            for pair in self._reduction("gradients", self.work.state.trained):
                result += pair
        result += self._tied()
        result += self.work.optimizer()
        if self.context.placement.plan.shards > 1 and not self.context.software.overlap.parameter_gather:
            result += self._gather("parameters", self.work.state.trained) or ()
        return tuple(result)

    def _buckets(self, chunk: int) -> list[tuple[int, int, float]]:
        """Return (first unit, last unit, trained parameters) of each gradient bucket of a chunk, in forward order."""
        limit = self.context.software.overlap.gradient_bucket_bytes
        size = self.context.numbers.state.reduce_bytes
        buckets: list[tuple[int, int, float]] = []
        start, held = 0, 0.0
        for index, unit in enumerate(self.work.state.units[chunk]):
            held += unit.trained
            if held * size >= limit:
                buckets.append((start, index + 1, held))
                start, held = index + 1, 0.0
        if start < len(self.work.state.units[chunk]):
            buckets.append((start, len(self.work.state.units[chunk]), held))
        return buckets


class FullySharded(Exchange):
    """Parameters are gathered unit by unit before each pass and freed after; gradients are reduced to shards as they come."""

    @property
    def first_apart(self) -> bool:
        """No: every pass gathers."""
        return False

    @property
    def last_apart(self) -> bool:
        """Whether the step ends with waiting for the last reduction."""
        return self.context.placement.exchanges

    def begin(self) -> tuple[Instruction, ...]:
        """Return nothing: the first gather belongs to the first pass."""
        return ()

    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        units = list(range(len(self.work.state.units[chunk])))
        return self._pass(kind, chunk, units if kind == FORWARD else units[::-1], last=special)

    def end(self) -> tuple[Instruction, ...]:
        """Return the wait for the last reduction and the optimizer."""
        return (*self._reductions[-1:], *self._tied(), *self.work.optimizer())

    def _pass(self, kind: int, chunk: int, order: list[int], *, last: bool) -> Instructions:
        """Gather one unit ahead, play, free, reduce: two units are whole at a time.

        Backward, units that stand still are left out; gradients of weights need no weights.
        """
        units, direction = self.work.state.units[chunk], DIRECTIONS[kind]
        if kind != FORWARD:
            order = [unit for unit in order if not units[unit].block.still]
        whole = [self._whole_bytes(unit, kind) for unit in units]
        gathers = {unit: self._gathered(kind, f"{direction} {chunk}.{unit}", units[unit].parameters) for unit in order}
        result: Instructions = []
        ahead = 1 if self.context.software.overlap.parameter_gather and kind != WEIGHT else 0
        for position, unit in enumerate(order):
            coming = order[position + ahead : position + ahead + 1] if position else order[: ahead + 1]
            for other in coming:
                result.append(Instruction(RESIZE, whole[other]))
                pair = gathers[other]
                if pair is not None:
                    result.append(pair[0])
            own = gathers[unit]
            if own is not None:
                result.append(own[1])
            result += self.work.play(direction, chunk, unit, unit + 1)
            if kind in (BACKWARD, WEIGHT):
                result += self._reduce(chunk, unit, units[unit].trained, last=last)
            result.append(Instruction(RESIZE, -whole[unit]))
        return result

    def _gathered(self, kind: int, name: str, parameters: float) -> tuple[Instruction, Instruction] | None:
        return None if kind == WEIGHT else self._gather(name, parameters)

    def _reduce(self, chunk: int, unit: int, parameters: float, *, last: bool) -> Instructions:
        pairs = self._reduction(f"gradients {chunk}.{unit}", parameters)
        if not pairs:
            return []
        if last:
            self._reductions.append(pairs[-1][1])
        exposed = [] if self.context.software.overlap.gradient_reduce else [pairs[-1][1]]
        return [issue for issue, _ in pairs] + exposed

    def _whole_bytes(self, unit: Unit, kind: int) -> float:
        """Return what a unit takes while it is whole: its parameters where they are read, its gradient until it is reduced."""
        state = self.context.numbers.state
        if self.context.placement.plan.shards == 1:
            return 0.0
        read = state.gather_bytes if kind != WEIGHT else 0.0
        return unit.parameters * read + (unit.trained * state.reduce_bytes if kind in (BACKWARD, WEIGHT) else 0.0)


def exchange_for(context: Context, work: StageWork, member: Member, classes: int) -> Exchange:
    """Return the exchange that the plan asks for."""
    kind = FullySharded if context.placement.plan.zero == 3 else Replicated
    return kind(context, work, member, classes)
