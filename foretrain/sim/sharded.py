"""Fully sharded state (ZeRO-3, FSDP): parameters are gathered unit by unit around each pass.

**Source:** Rajbhandari et al., ZeRO, arXiv:1910.02054, section 7; Zhao et al., PyTorch FSDP, arXiv:2304.11277, sections 3 and 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretrain.sim.exchange import Exchange, Instructions, Pair, Replicated
from foretrain.sim.passes import DIRECTIONS
from foretrain.sim.program import RESIZE, Instruction
from foretrain.sim.schedules.base import BACKWARD, FORWARD, WEIGHT
from foretrain.sim.stagework import StageWork
from foretrain.sim.state import Unit

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member


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
        gathers = {unit: self._gathered(kind, f"{direction} {chunk}.{unit}", units[unit]) for unit in order}
        result: Instructions = []
        ahead = 1 if self.context.software.overlap.parameter_gather and kind != WEIGHT else 0
        for position, unit in enumerate(order):
            coming = order[position + ahead : position + ahead + 1] if position else order[: ahead + 1]
            for other in coming:
                result.append(Instruction(RESIZE, whole[other]))
                result += [issue for issue, _ in gathers[other]]
            result += [wait for _, wait in gathers[unit]]
            result += self.work.play(direction, chunk, unit, unit + 1)
            if kind in (BACKWARD, WEIGHT):
                result += self._reduce(chunk, unit, last=last)
            result.append(Instruction(RESIZE, -whole[unit]))
        return result

    def _gathered(self, kind: int, name: str, unit: Unit) -> list[Pair]:
        return [] if kind == WEIGHT else self._gather(name, unit.parameters, unit.experts)

    def _reduce(self, chunk: int, unit: int, *, last: bool) -> Instructions:
        made = self.work.state.units[chunk][unit]
        pairs = self._reduction(f"gradients {chunk}.{unit}", made.trained, made.experts_trained)
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
        whole = self.context.placement.plan.expert_shards == 1  # experts that no other rank has a shard of are never gathered
        parameters, trained = (
            (unit.parameters - unit.experts, unit.trained - unit.experts_trained) if whole else (unit.parameters, unit.trained)
        )
        return parameters * read + (trained * state.reduce_bytes if kind in (BACKWARD, WEIGHT) else 0.0)


def exchange_for(context: Context, work: StageWork, member: Member, classes: int) -> Exchange:
    """Return the exchange that the plan asks for."""
    kind = FullySharded if context.placement.plan.zero == 3 else Replicated
    return kind(context, work, member, classes)
