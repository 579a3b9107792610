"""Copies between one rank and its host, beside its passes: gradients out, parameters in, activations out and in again.

Activations of all units of a chunk but the last leave after their forward pass and come back one unit ahead of backward, so that those
of two units are resident at a time. What a split backward pass keeps for the gradients of weights stays on the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretrain.sim.offload import WIRE_BYTES
from foretrain.sim.offload_parts import offloaded
from foretrain.sim.passes import FORWARD, WEIGHT
from foretrain.sim.program import RESIZE, Instruction

if TYPE_CHECKING:
    from foretrain.sim.lower import Context
    from foretrain.sim.stagework import StageWork

Pair = tuple[Instruction, Instruction]


class HostCopies:
    """Makes the copies of one rank; nothing where a part is not offloaded."""

    def __init__(self, context: Context, work: StageWork) -> None:
        self.context = context
        self.work = work
        self.parts = offloaded(context.placement.plan.offload)
        self.waits: list[Instruction] = []
        """For gradients on their way to the host."""
        self._activations: dict[tuple[str, int, int], Pair] = {}

    def gradients(self, name: str, parameters: float, experts: float) -> list[Instruction]:
        """Return the start of the copy of the gradients that this rank updates, of some parameters, `experts` among them.

        It begins with the reduction that it follows, whose chunks it takes as they come.
        """
        if "optimizer" not in self.parts or not parameters:
            return []
        issue, wait = self.context.copied(f"{name} to host", self.context.placement.plan.shard_of(parameters, experts) * WIRE_BYTES)
        self.waits.append(wait)
        return [issue]

    def parameters(self, name: str, size_bytes: float) -> Pair | None:
        """Return the copy of a shard of parameters from the host; None where they lie on the device."""
        return self.context.copied(f"{name} from host", size_bytes) if "parameters" in self.parts and size_bytes else None

    def run(self, direction: str, chunk: int, first: int, last: int | None) -> list[Instruction]:
        """Return the pass over the units `first` to `last` (exclusive) of a chunk."""
        play = self.work.play
        if "activations" not in self.parts or direction == WEIGHT:
            return list(play(direction, chunk, first, last))
        units = range(first, len(self.work.state.units[chunk]) if last is None else last)
        if direction == FORWARD:
            return [step for unit in units for step in (*play(direction, chunk, unit, unit + 1), *self._leaves(chunk, unit))]
        return [step for unit in reversed(units) for step in (*self._returns(chunk, unit), *play(direction, chunk, unit, unit + 1))]

    def _leaves(self, chunk: int, unit: int) -> list[Instruction]:
        """Return what follows a unit's forward pass: its copy out, and the room of the one before, which has left by then."""
        result = [self._copy("out", chunk, unit)[0]] if self._moves(chunk, unit) else []
        if unit and self._moves(chunk, unit - 1):
            result += [self._copy("out", chunk, unit - 1)[1], Instruction(RESIZE, -self._bytes(chunk, unit - 1))]
        return result

    def _returns(self, chunk: int, unit: int) -> list[Instruction]:
        """Return what precedes a unit's backward pass: the copy in of the one that comes next, and the wait for its own."""
        result: list[Instruction] = []
        if unit and self._moves(chunk, unit - 1):
            result += [Instruction(RESIZE, self._bytes(chunk, unit - 1)), self._copy("in", chunk, unit - 1)[0]]
        return [*result, self._copy("in", chunk, unit)[1]] if self._moves(chunk, unit) else result

    def _moves(self, chunk: int, unit: int) -> bool:
        return unit < len(self.work.state.units[chunk]) - 1 and self._bytes(chunk, unit) > 0.0

    def _bytes(self, chunk: int, unit: int) -> float:
        one = self.work.state.units[chunk][unit]
        return self.work.passes.of(FORWARD, one.block, layer=one.layer).delta_bytes

    def _copy(self, way: str, chunk: int, unit: int) -> Pair:
        key = (way, chunk, unit)
        if key not in self._activations:
            self._activations[key] = self.context.copied(f"activations {chunk}.{unit} {way}", self._bytes(chunk, unit))
        return self._activations[key]
