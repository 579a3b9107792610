"""Exchanges of parameters that rest sharded: gathered around every pass, or once a step.

**Source:** Zhao et al., PyTorch FSDP, arXiv:2304.11277, sections 3 and 4.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from foretrain.sim.exchange import Exchange, Instructions, Pair
from foretrain.sim.passes import DIRECTIONS
from foretrain.sim.program import RESIZE, Instruction
from foretrain.sim.replicas import FirstDevice, SeldomMet, Server
from foretrain.sim.replicated import Replicated
from foretrain.sim.replication import ALL_REDUCE, FIRST_DEVICE, LOCAL
from foretrain.sim.schedules.base import BACKWARD, FORWARD, WEIGHT
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

    def _reduce(self, kind: int, chunk: int, unit: int, *, last: bool) -> Instructions:
        """Return the reduction of a unit's gradients, where a pass completes them."""
        if kind not in (BACKWARD, WEIGHT):
            return []
        name = f"gradients {chunk}.{unit}"
        made = self.work.state.units[chunk][unit]
        pairs = self._reduction(name, made.trained, made.experts_trained)
        copied = self.host.gradients(name, made.trained, made.experts_trained)
        if not pairs:
            return copied
        if last:
            self._reductions.append(pairs[-1][1])
        exposed = [] if self.context.software.overlap.gradient_reduce else [pairs[-1][1]]
        return [issue for issue, _ in pairs] + exposed + copied

    def _gathered(self, kind: int, chunk: int, order: list[int], sizes: list[float]) -> list[Instructions]:
        """Return for each unit of `order` what comes before it: room and gather of those ahead, and the wait for its own."""
        units, direction = self.work.state.units[chunk], DIRECTIONS[kind]
        gathers = {
            unit: self._gather(f"{direction} {chunk}.{unit}", units[unit].gather_bytes, units[unit].experts_gather_bytes) for unit in order
        }
        rest = self.context.placement.plan.shard_of
        rests = {unit: rest(units[unit].gather_bytes, units[unit].experts_gather_bytes) for unit in order}
        copies = {unit: self.host.parameters(f"{direction} {chunk}.{unit}", rests[unit]) for unit in order}
        ahead = 1 if self.context.software.overlap.parameter_gather else 0
        result: list[Instructions] = []
        for position, unit in enumerate(order):
            before: Instructions = []
            for other in order[position + ahead : position + ahead + 1] if position else order[: ahead + 1]:
                before.append(Instruction(RESIZE, sizes[other]))
                before += [issue for issue, _ in _pairs(copies[other], gathers[other])]
            result.append(before + [wait for _, wait in _pairs(copies[unit], gathers[unit])])
        return result

    def _whole_bytes(self, unit: Unit) -> float:
        """Return what the parameters of a unit take while it is whole; experts of which no other rank has a shard never are otherwise."""
        plan = self.context.placement.plan
        if plan.shards == 1:
            return 0.0
        return unit.gather_bytes - (unit.experts_gather_bytes if plan.expert_shards == 1 else 0.0)

    def _rooms(self, kind: int, units: list[Unit]) -> list[tuple[float, float]]:
        """Return what the gradients of each unit take that its pass has made, and of those whose reduction is over by then.

        Reduced beside the next unit, they are freed after it.
        """
        made = [self._unreduced_bytes(kind, unit) for unit in units]
        if not self.context.software.overlap.gradient_reduce:
            return list(zip(made, made, strict=True))
        over = [0.0, *made[:-1]]
        over[-1] += made[-1]
        return list(zip(made, over, strict=True))

    def _unreduced_bytes(self, kind: int, unit: Unit) -> float:
        """Return what the gradients of a unit, which a pass completes, take until they are reduced."""
        plan = self.context.placement.plan
        if kind not in (BACKWARD, WEIGHT) or plan.shards == 1:
            return 0.0
        trained = unit.trained - (unit.experts_trained if plan.expert_shards == 1 else 0.0)
        return trained * self.context.numbers.state.reduce_bytes


def _pairs(copied: Pair | None, gathered: list[Pair]) -> list[Pair]:
    """Return what brings the parameters of a unit: a copy from the host, where they lie there, and their gathers."""
    return gathered if copied is None else [copied, *gathered]


class FullySharded(Sharded):
    """Parameters are gathered unit by unit before each pass and freed after (ZeRO-3, FULL_SHARD): two units are whole at a time."""

    @property
    def first_apart(self) -> bool:
        """No: every pass gathers."""
        return False

    def _ahead(self, chunk: int, *, first: bool) -> Instructions:
        units = self.work.state.units[chunk]
        order, whole = list(range(len(units))), [self._whole_bytes(unit) for unit in units]
        result: Instructions = []
        for unit, gathered in zip(order, self._gathered(FORWARD, chunk, order, whole), strict=True):
            result += [*gathered, *self._compute(FORWARD, chunk, unit), Instruction(RESIZE, -whole[unit])]
        return result

    def _back(self, kind: int, chunk: int, order: list[int], *, last: bool) -> Instructions:
        units = self.work.state.units[chunk]
        whole = [0.0 if kind == WEIGHT else self._whole_bytes(unit) for unit in units]
        befores: list[Instructions] = [[] for _ in order] if kind == WEIGHT else self._gathered(kind, chunk, order, whole)
        result: Instructions = []
        for unit, gathered, room in zip(order, befores, self._rooms(kind, [units[unit] for unit in order]), strict=True):
            made, reduced = room
            result += [*gathered, *self._compute(kind, chunk, unit), Instruction(RESIZE, made)]
            result += self._reduce(kind, chunk, unit, last=last)
            result.append(Instruction(RESIZE, -whole[unit] - reduced))
        return result


class GatheredOnce(Sharded):
    """Parameters are gathered before the first forward pass and freed after the last backward pass (ZeRO-2 as SHARD_GRAD_OP).

    **Source:** Zhao et al., arXiv:2304.11277, section 3.2.1 (RAF and NRAF: no reshard after forward).
    """

    @property
    def first_apart(self) -> bool:
        """Whether the first forward pass gathers."""
        return self.context.placement.plan.shards > 1

    def _ahead(self, chunk: int, *, first: bool) -> Instructions:
        if not first:
            return self._run(FORWARD, chunk)
        units = self.work.state.units[chunk]
        order = list(range(len(units)))
        result: Instructions = []
        for unit, gathered in zip(order, self._gathered(FORWARD, chunk, order, [self._whole_bytes(unit) for unit in units]), strict=True):
            result += [*gathered, *self._compute(FORWARD, chunk, unit)]
        return result

    def _back(self, kind: int, chunk: int, order: list[int], *, last: bool) -> Instructions:
        units = self.work.state.units[chunk]
        still = sum(self._whole_bytes(unit) for number, unit in enumerate(units) if number not in order)
        result: Instructions = [Instruction(RESIZE, -still)] if last and still else []
        for unit, (made, reduced) in zip(order, self._rooms(kind, [units[unit] for unit in order]), strict=True):
            whole = self._whole_bytes(units[unit]) if last else 0.0
            result += [*self._compute(kind, chunk, unit), Instruction(RESIZE, made)]
            result += [*self._reduce(kind, chunk, unit, last=last), Instruction(RESIZE, -reduced - whole)]
        return result


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
