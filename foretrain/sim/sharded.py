"""Exchanges of parameters that rest sharded: gathered around every pass, or once a step.

**Source:** Zhao et al., PyTorch FSDP, arXiv:2304.11277, sections 3 and 4.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from foretrain.sim.exchange import Exchange, Instructions, Replicated
from foretrain.sim.program import RESIZE, Instruction
from foretrain.sim.replicas import FirstDevice, SeldomMet, Server
from foretrain.sim.replication import ALL_REDUCE, FIRST_DEVICE, LOCAL
from foretrain.sim.stagework import StageWork
from foretrain.sim.state import Unit

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member


class Sharded(Exchange):
    """What both ways share: gradients are reduced to shards in every backward pass, unit by unit."""

    @property
    def last_apart(self) -> bool:
        """Whether the step ends with waiting for the last reduction."""
        return self.context.placement.plan.dp > 1

    def begin(self) -> tuple[Instruction, ...]:
        """Return nothing: the first gather belongs to the first pass."""
        return ()

    def end(self) -> tuple[Instruction, ...]:
        """Return the wait for the last reduction and the optimizer."""
        return (*self._reductions[-1:], *self._tied(), *self.host.waits, *self.work.optimizer())

    def _backward(self, chunk: int, *, last: bool) -> Instructions:
        """Return the pass over the units that do not stand still."""
        units = self.work.state.units[chunk]
        return self._back(chunk, [unit for unit in reversed(range(len(units))) if not units[unit].block.still], last=last)

    @abstractmethod
    def _back(self, chunk: int, order: list[int], *, last: bool) -> Instructions: ...

    def _compute(self, direction: str, chunk: int, unit: int) -> Instructions:
        return self._run(direction, chunk, unit, unit + 1)

    def _reduce(self, chunk: int, unit: int, parameters: float, *, last: bool) -> Instructions:
        name = f"gradients {chunk}.{unit}"
        pairs, copied = self._reduction(name, parameters), self.host.gradients(name, parameters)
        if not pairs:
            return copied
        if last:
            self._reductions.append(pairs[-1][1])
        exposed = [] if self.context.software.overlap.gradient_reduce else [pairs[-1][1]]
        return [issue for issue, _ in pairs] + exposed + copied

    def _gathered(self, chunk: int, order: list[int], direction: str, sizes: list[float]) -> list[Instructions]:
        """Return for each unit of `order` what comes before it: room and gather of those ahead, and the wait for its own."""
        units = self.work.state.units[chunk]
        gathers = {unit: self._gather(f"{direction} {chunk}.{unit}", units[unit].gather_bytes) for unit in order}
        shards = self.context.placement.plan.shards
        copies = {unit: self.host.parameters(f"{direction} {chunk}.{unit}", units[unit].gather_bytes / shards) for unit in order}
        ahead = 1 if self.context.software.overlap.parameter_gather else 0
        result: list[Instructions] = []
        for position, unit in enumerate(order):
            before: Instructions = []
            for other in order[position + ahead : position + ahead + 1] if position else order[: ahead + 1]:
                before.append(Instruction(RESIZE, sizes[other]))
                pair = gathers[other]
                before += [each[0] for each in (copies[other], pair) if each is not None]
            result.append(before + [each[1] for each in (copies[unit], gathers[unit]) if each is not None])
        return result

    def _whole_bytes(self, unit: Unit) -> float:
        """Return what the parameters of a unit take while it is whole."""
        return unit.gather_bytes if self.context.placement.plan.shards > 1 else 0.0

    def _unreduced_bytes(self, unit: Unit) -> float:
        """Return what the gradients of a unit take until they are reduced."""
        return unit.trained * self.context.numbers.state.reduce_bytes if self.context.placement.plan.shards > 1 else 0.0


class FullySharded(Sharded):
    """Parameters are gathered unit by unit before each pass and freed after (ZeRO-3, FULL_SHARD): two units are whole at a time."""

    @property
    def first_apart(self) -> bool:
        """No: every pass gathers."""
        return False

    def _forward(self, chunk: int, *, first: bool) -> Instructions:
        units = self.work.state.units[chunk]
        order, whole = list(range(len(units))), [self._whole_bytes(unit) for unit in units]
        result: Instructions = []
        for unit, gathered in zip(order, self._gathered(chunk, order, "forward", whole), strict=True):
            result += [*gathered, *self._compute("forward", chunk, unit), Instruction(RESIZE, -whole[unit])]
        return result

    def _back(self, chunk: int, order: list[int], *, last: bool) -> Instructions:
        units = self.work.state.units[chunk]
        whole = [self._whole_bytes(unit) + self._unreduced_bytes(unit) for unit in units]
        result: Instructions = []
        for unit, gathered in zip(order, self._gathered(chunk, order, "backward", whole), strict=True):
            result += [*gathered, *self._compute("backward", chunk, unit)]
            result += [*self._reduce(chunk, unit, units[unit].trained, last=last), Instruction(RESIZE, -whole[unit])]
        return result


class GatheredOnce(Sharded):
    """Parameters are gathered before the first forward pass and freed after the last backward pass (ZeRO-2 as SHARD_GRAD_OP).

    **Source:** Zhao et al., arXiv:2304.11277, section 3.2.1 (RAF and NRAF: no reshard after forward).
    """

    @property
    def first_apart(self) -> bool:
        """Whether the first forward pass gathers."""
        return self.context.placement.plan.shards > 1

    def _forward(self, chunk: int, *, first: bool) -> Instructions:
        if not first:
            return self._run("forward", chunk)
        units = self.work.state.units[chunk]
        order = list(range(len(units)))
        result: Instructions = []
        for unit, gathered in zip(order, self._gathered(chunk, order, "forward", [self._whole_bytes(unit) for unit in units]), strict=True):
            result += [*gathered, *self._compute("forward", chunk, unit)]
        return result

    def _back(self, chunk: int, order: list[int], *, last: bool) -> Instructions:
        units = self.work.state.units[chunk]
        still = sum(self._whole_bytes(unit) for number, unit in enumerate(units) if number not in order)
        result: Instructions = [Instruction(RESIZE, -still)] if last and still else []
        for unit in order:
            held, whole = self._unreduced_bytes(units[unit]), self._whole_bytes(units[unit]) if last else 0.0
            result += [Instruction(RESIZE, held), *self._compute("backward", chunk, unit)]
            result += [*self._reduce(chunk, unit, units[unit].trained, last=last), Instruction(RESIZE, -held - whole)]
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
