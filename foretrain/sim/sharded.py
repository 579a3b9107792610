"""Exchanges of parameters that rest sharded: gathered around every pass, or once a step.

**Source:** Zhao et al., PyTorch FSDP, arXiv:2304.11277, sections 3 and 4.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from foretrain.sim.exchange import Exchange, Instructions, Pair
from foretrain.sim.passes import DIRECTIONS
from foretrain.sim.program import RESIZE, Instruction
from foretrain.sim.replicas import FirstDevice, SeldomMet, Server
from foretrain.sim.replicated import Replicated
from foretrain.sim.replication import ALL_REDUCE, FIRST_DEVICE, LOCAL
from foretrain.sim.schedules.base import BACKWARD, FORWARD, WEIGHT, unrolled
from foretrain.sim.stagework import StageWork
from foretrain.sim.state import Unit

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member


class Sharded(Exchange):
    """What both ways share: gradients are reduced to shards in every backward pass, unit by unit."""

    @property
    def last_apart(self) -> bool:
        """Whether the step ends with waiting for the last reduction."""
        return self.context.placement.exchanges

    def begin(self) -> tuple[Instruction, ...]:
        """Return nothing: the first gather belongs to the first pass."""
        return ()

    def end(self) -> tuple[Instruction, ...]:
        """Return the wait for the last reduction and the optimizer."""
        return (*self._reductions[-1:], *self._tied(), *self.host.waits, *self.work.optimizer())

    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        """Return a pass; backward, over the units that do not stand still."""
        if kind == FORWARD:
            return self._ahead(chunk, first=special)
        units = self.work.state.units[chunk]
        return self._back(kind, chunk, [unit for unit in reversed(range(len(units))) if not units[unit].block.still], last=special)

    @abstractmethod
    def _ahead(self, chunk: int, *, first: bool) -> Instructions: ...

    @abstractmethod
    def _back(self, kind: int, chunk: int, order: list[int], *, last: bool) -> Instructions: ...

    def _compute(self, kind: int, chunk: int, unit: int) -> Instructions:
        return self._run(kind, chunk, unit, unit + 1)

    def _reduce(self, kind: int, chunk: int, members: tuple[int, ...], *, last: bool) -> Instructions:
        """Return the reduction of the gradients of units that are reduced as one, where a pass completes them."""
        if kind not in (BACKWARD, WEIGHT):
            return []
        units = [self.work.state.units[chunk][number] for number in members]
        name = f"gradients {chunk}.{members[0] if len(members) == 1 else 'ends'}"
        trained = sum(unit.trained for unit in units)
        experts = sum(unit.experts_trained for unit in units)
        pairs, copied = self._reduction(name, trained, experts), self.host.gradients(name, trained, experts)
        if not pairs:
            return copied
        if last:
            self._reductions.append(pairs[-1][1])
        exposed = [] if self.context.software.overlap.gradient_reduce else [pairs[-1][1]]
        return [issue for issue, _ in pairs] + exposed + copied

    def _ended(self, kind: int, chunk: int, order: list[int], *, last: bool) -> Instructions:
        """Return what follows a backward pass: the ends of the model that are one unit are reduced and no longer whole."""
        if not self._ends(chunk):
            return []
        units, made = self.work.state.units[chunk], tuple(number for number in self._ends(chunk) if number in order)
        held = (0.0 if kind == WEIGHT else self._ends_bytes(chunk)) + sum(self._unreduced_bytes(kind, units[number]) for number in made)
        return [*(self._reduce(kind, chunk, made, last=last) if made else []), Instruction(RESIZE, -held)]

    @cached_property
    def _pipelined(self) -> bool:
        """Whether micro-batches are under way side by side, so that one's parameters are whole while another passes."""
        placement, plan = self.context.placement, self.context.placement.plan
        if plan.pp * plan.vpp > 1:
            return True
        order = plan.schedule.order(stage=0, stages=1, chunks=1, microbatches=min(2, placement.microbatches_each))
        batches = [batch for _, _, batch in unrolled(order)]
        return batches != sorted(batches)

    def _ends(self, chunk: int) -> tuple[int, ...]:
        """Return the ends of the model where the software makes them one unit; not where micro-batches would share it."""
        placement = self.context.placement
        if not self.context.software.ends_together or self._pipelined:
            return ()
        layers = {id(block) for block, _ in placement.model.layers}
        return tuple(number for number, unit in enumerate(self.work.state.units[chunk]) if id(unit.block) not in layers)

    def _gathered(self, kind: int, chunk: int, order: list[int], sizes: list[float]) -> list[Instructions]:
        """Return for each unit of `order` what comes before it: room and gather of those ahead, and the wait for its own.

        Ends of the model that are one unit come before all others forward, and are still there backward.
        """
        ends, name = self._ends(chunk), f"{DIRECTIONS[kind]} {chunk}"
        pairs = {unit: [] if unit in ends else self._brought(f"{name}.{unit}", chunk, (unit,)) for unit in order}
        ahead = 1 if self.context.software.overlap.parameter_gather else 0
        first = self._brought(f"{name}.ends", chunk, ends) if ends and kind == FORWARD else []
        result: list[Instructions] = []
        for position, unit in enumerate(order):
            before: Instructions = []
            if first and not position:
                before += [Instruction(RESIZE, self._ends_bytes(chunk)), *(issue for issue, _ in first)]
            for other in order[position + ahead : position + ahead + 1] if position else order[: ahead + 1]:
                if other not in ends:
                    before.append(Instruction(RESIZE, sizes[other]))
                before += [issue for issue, _ in pairs[other]]
            waits = [*(first if not position else ()), *pairs[unit]]
            result.append(before + [wait for _, wait in waits])
        return result

    def _brought(self, name: str, chunk: int, members: tuple[int, ...]) -> list[Pair]:
        """Return what brings the parameters of units that are gathered as one: a copy from the host, where they lie there, and gathers."""
        units = [self.work.state.units[chunk][number] for number in members]
        size, experts = sum(unit.gather_bytes for unit in units), sum(unit.experts_gather_bytes for unit in units)
        copied = self.host.parameters(name, self.context.placement.plan.shard_of(size, experts))
        gathered = self._gather(name, size, experts)
        return gathered if copied is None else [copied, *gathered]

    def _ends_bytes(self, chunk: int) -> float:
        units = self.work.state.units[chunk]
        return sum(self._whole_bytes(units[number]) for number in self._ends(chunk))

    def _whole_bytes(self, unit: Unit) -> float:
        """Return what the parameters of a unit take while it is whole; experts of which no other rank has a shard never are otherwise."""
        plan = self.context.placement.plan
        if plan.shards == 1:
            return 0.0
        return unit.gather_bytes - (unit.experts_gather_bytes if plan.expert_shards == 1 else 0.0)

    def _rooms(self, kind: int, units: Sequence[Unit], order: list[int]) -> dict[int, float]:
        """Return by unit what is free once its own gradients are there: its own where they are reduced at once.

        Reduced beside the next unit, they are freed after it.
        """
        made = {unit: self._unreduced_bytes(kind, units[unit]) for unit in order}
        if not self.context.software.overlap.gradient_reduce or not order:
            return made
        over = {unit: made[before] for before, unit in pairwise(order)}
        return {order[0]: 0.0, **over, order[-1]: over.get(order[-1], 0.0) + made[order[-1]]}

    def _unreduced_bytes(self, kind: int, unit: Unit) -> float:
        """Return what the gradients of a unit, which a pass completes, take until they are reduced."""
        plan = self.context.placement.plan
        if kind not in (BACKWARD, WEIGHT) or plan.shards == 1:
            return 0.0
        trained = unit.trained - (unit.experts_trained if plan.expert_shards == 1 else 0.0)
        return trained * self.context.numbers.state.reduce_bytes


class FullySharded(Sharded):
    """Parameters are gathered unit by unit before each pass and freed after (ZeRO-3, FULL_SHARD): two units are whole at a time."""

    @property
    def first_apart(self) -> bool:
        """No: every pass gathers."""
        return False

    def _ahead(self, chunk: int, *, first: bool) -> Instructions:
        units, ends = self.work.state.units[chunk], self._ends(chunk)
        order, whole = list(range(len(units))), [self._whole_bytes(unit) for unit in units]
        result: Instructions = []
        for unit, gathered in zip(order, self._gathered(FORWARD, chunk, order, whole), strict=True):
            result += [*gathered, *self._compute(FORWARD, chunk, unit)]
            result += [] if unit in ends else [Instruction(RESIZE, -whole[unit])]
        return result

    def _back(self, kind: int, chunk: int, order: list[int], *, last: bool) -> Instructions:
        units, ends = self.work.state.units[chunk], self._ends(chunk)
        whole = [0.0 if kind == WEIGHT else self._whole_bytes(unit) for unit in units]
        befores: list[Instructions] = [[] for _ in order] if kind == WEIGHT else self._gathered(kind, chunk, order, whole)
        rooms = self._rooms(kind, units, [unit for unit in order if unit not in ends])
        result: Instructions = []
        for unit, gathered in zip(order, befores, strict=True):
            result += [*gathered, *self._compute(kind, chunk, unit), Instruction(RESIZE, self._unreduced_bytes(kind, units[unit]))]
            if unit not in ends:
                result += [*self._reduce(kind, chunk, (unit,), last=last), Instruction(RESIZE, -whole[unit] - rooms[unit])]
        return result + self._ended(kind, chunk, order, last=last)


class GatheredOnce(Sharded):
    """Parameters are gathered before a forward pass and freed after its backward pass (ZeRO-2 as SHARD_GRAD_OP).

    A pipeline, which has several passes under way, gathers them before the first and frees them after the last.

    **Source:** Zhao et al., arXiv:2304.11277, section 3.2.1 (RAF and NRAF: no reshard after forward).
    """

    @property
    def first_apart(self) -> bool:
        """Whether only the first forward pass gathers."""
        return self.context.placement.plan.shards > 1 and self._pipelined

    def _ahead(self, chunk: int, *, first: bool) -> Instructions:
        if self._pipelined and not first:
            return self._run(FORWARD, chunk)
        units = self.work.state.units[chunk]
        order = list(range(len(units)))
        result: Instructions = []
        for unit, gathered in zip(order, self._gathered(FORWARD, chunk, order, [self._whole_bytes(unit) for unit in units]), strict=True):
            result += [*gathered, *self._compute(FORWARD, chunk, unit)]
        return result

    def _back(self, kind: int, chunk: int, order: list[int], *, last: bool) -> Instructions:
        units, ends = self.work.state.units[chunk], self._ends(chunk)
        frees = last if self._pipelined else kind in (BACKWARD, WEIGHT)
        still = sum(self._whole_bytes(unit) for number, unit in enumerate(units) if number not in {*order, *ends})
        result: Instructions = [Instruction(RESIZE, -still)] if frees and still else []
        rooms = self._rooms(kind, units, [unit for unit in order if unit not in ends])
        for unit in order:
            whole = self._whole_bytes(units[unit]) if frees else 0.0
            result += [*self._compute(kind, chunk, unit), Instruction(RESIZE, self._unreduced_bytes(kind, units[unit]))]
            if unit not in ends:
                result += [*self._reduce(kind, chunk, (unit,), last=last), Instruction(RESIZE, -rooms[unit] - whole)]
        return result + self._ended(kind, chunk, order, last=last)


def exchange_for(context: Context, work: StageWork, member: Member, classes: int) -> Exchange:
    """Return the exchange that the plan asks for; a framework without a whole copy of the parameters gathers them."""
    way = context.placement.plan.replication
    if way in LOCAL:
        return SeldomMet(context, work, member, classes)
    if way != ALL_REDUCE:
        return FirstDevice(context, work, member, classes) if way == FIRST_DEVICE else Server(context, work, member, classes)
    zero, rests = context.placement.plan.zero, not context.numbers.state.parameter_bytes
    kind = FullySharded if zero == 3 else GatheredOnce if zero == 2 and rests else Replicated
    return kind(context, work, member, classes)
