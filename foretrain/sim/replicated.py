"""Exchanges of parameters that stay replicated: gradients reduced once a step or in every backward pass, whole or to shards.

**Source:** Li et al., PyTorch Distributed, arXiv:2006.15704, section 3.2 (buckets, `no_sync`); Rajbhandari et al., ZeRO,
arXiv:1910.02054, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from foretrain.sim.compression import Bucket, compression_of
from foretrain.sim.exchange import Exchange, Instructions, Pair
from foretrain.sim.matrices import weights
from foretrain.sim.program import RESIZE, Instruction
from foretrain.sim.schedules.base import BACKWARD, FORWARD, WEIGHT
from foretrain.sim.stagework import StageWork
from foretrain.sim.state import Unit

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member


class Replicated(Exchange):
    """Every rank holds the parameters; the optimizer may be sharded (ZeRO-1) and the gradients too (ZeRO-2).

    Gradients are reduced once a step, or in every backward pass: where they are sharded, or where nothing asks to wait (DDP without
    `no_sync`). Sharded ones are whole, bucket by bucket, only until they are reduced.
    """

    def __init__(self, context: Context, work: StageWork, member: Member, classes: int) -> None:
        super().__init__(context, work, member, classes)
        self._postponed: list[tuple[str, tuple[Unit, ...]]] = []
        """Names and units of reductions whose gradients come at the end of the step."""

    @property
    def first_apart(self) -> bool:
        """Whether updated parameters are gathered behind the first forward passes."""
        return self.context.placement.plan.shards > 1 and self.context.software.overlap.parameter_gather

    @property
    def last_apart(self) -> bool:
        """Whether the last backward passes reduce what those before them do not, or end in a wait of their own."""
        return self.context.placement.exchanges and (self._every or self.context.software.overlap.gradient_reduce)

    @property
    def _every(self) -> bool:
        return self.context.placement.plan.syncs_every_microbatch

    def begin(self) -> tuple[Instruction, ...]:
        """Return the gathers of updated parameters that hide behind the first forward passes."""
        if not self.first_apart:
            return ()
        issued: Instructions = []
        gather = self.context.numbers.state.gather_bytes
        for chunk in range(len(self.work.state.units)):
            for first, last, parameters in self._buckets(chunk):
                experts = sum(unit.experts_trained for unit in self.work.state.units[chunk][first:last])
                pairs = self._gather(f"parameters {chunk}.{first}-{last}", parameters * gather, experts * gather)
                issued += [issue for issue, _ in pairs]
                self._gathers[chunk, first] = [wait for _, wait in pairs]
        return tuple(issued)

    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        if kind == FORWARD:
            return self._first(chunk) if special else self._run(kind, chunk)
        completes = kind in (BACKWARD, WEIGHT)
        return self._completed(kind, chunk, last=special) if completes and (special or self._every) else self._run(kind, chunk)

    def _first(self, chunk: int) -> Instructions:
        """Return a forward pass that waits for its parameters bucket by bucket."""
        result: Instructions = []
        for start, stop, _ in self._buckets(chunk):
            result += self._gathers.get((chunk, start), [])
            result += self._run(FORWARD, chunk, start, stop)
        return result

    def _completed(self, kind: int, chunk: int, *, last: bool) -> Instructions:
        """Return a pass that completes gradients of weights, and starts to reduce each bucket when it is whole."""
        result: Instructions = []
        for start, stop, _ in reversed(self._buckets(chunk)):
            passed = self._run(kind, chunk, start, stop)
            name, units = f"gradients {chunk}.{start}-{stop}", self.work.state.units[chunk][start:stop]
            if any(unit.deferred for unit in units):
                self._postponed.append((name, units))
                result += passed
            else:
                result += self._held(passed, self._reduced(name, units, last=last), units)
        return result

    def _reduced(self, name: str, units: tuple[Unit, ...], *, last: bool) -> Instructions:
        """Return the reduction of a bucket: waited for at once where nothing may hide it, at the end of the step after the last pass."""
        before, pairs, after = self._packed(name, units)
        copied = self.host.gradients(name, sum(unit.trained for unit in units), sum(unit.experts_trained for unit in units))
        issues, waits = [issue for issue, _ in pairs], [wait for _, wait in pairs]
        if not self.context.software.overlap.gradient_reduce:
            return [*before, *chain.from_iterable(pairs), *after, *copied]
        if last:
            self._reductions += [*waits, *after]
            return [*before, *issues, *copied]
        return [*before, *issues, *copied, *after]

    def _packed(self, name: str, units: tuple[Unit, ...]) -> tuple[Instructions, list[Pair], Instructions]:
        """Return what packs the gradients of some units, their collectives, and what unpacks them."""
        placement, stage = self.context.placement, self.member.stage
        parameters = sum(unit.trained for unit in units)
        compression = compression_of(placement.plan.gradient_compression)
        if compression is None or not placement.exchanges or not parameters:
            return [], self._reduction(name, parameters, sum(unit.experts_trained for unit in units)), []
        span = placement.data_span(stage)
        bucket = Bucket(
            parameters=parameters, element_bytes=self.context.numbers.state.reduce_bytes, ranks=span.ranks,
            weights=weights(((unit.block, unit.layer, 1) for unit in units), placement.plan.tp),
        )  # fmt: skip
        found = [self._across_copies(f"{kind.replace('_', '-')} {name}", kind, size, span) for kind, size in compression.wire(bucket)]
        before, after = compression.packing(bucket), compression.unpacking(bucket)
        pairs = [pair for pair in found if pair is not None]
        return list(self.work.beside("pack", before)), pairs, list(self.work.beside("unpack", after))

    def _held(self, passed: Iterable[Instruction], reduced: Instructions, units: tuple[Unit, ...]) -> Instructions:
        """Return a pass and its reduction, with the room of a bucket whose gradients are sharded once it is reduced.

        Those of experts of which no other rank has a shard never are otherwise than whole.
        """
        plan = self.context.placement.plan
        if plan.zero < 2 or plan.shards == 1:
            return [*passed, *reduced]
        whole = sum(unit.trained - (unit.experts_trained if plan.expert_shards == 1 else 0.0) for unit in units)
        size = whole * self.context.numbers.state.reduce_bytes
        return [Instruction(RESIZE, size), *passed, *reduced, Instruction(RESIZE, -size)]

    def end(self) -> tuple[Instruction, ...]:
        """Return the reductions that nothing hid, the optimizer, and the gather of parameters that nothing will hide."""
        result = self._deferred()
        result += [step for name, units in self._postponed for step in self._reduced(name, units, last=True)]
        result += self._reductions
        if not self._every and not self.context.software.overlap.gradient_reduce and self.context.placement.exchanges:
            before, pairs, after = self._packed("gradients", tuple(chain.from_iterable(self.work.state.units)))
            result += [*before, *chain.from_iterable(pairs), *after]
        result += self._tied()
        if not (self.last_apart or self._every):
            result += self.host.gradients("gradients", self.work.state.trained, self.work.state.experts_trained)
        result += self.host.waits
        result += self.work.optimizer()
        if self.context.placement.plan.shards > 1 and not self.context.software.overlap.parameter_gather:
            gather, state = self.context.numbers.state.gather_bytes, self.work.state
            result += chain.from_iterable(self._gather("parameters", state.trained * gather, state.experts_trained * gather))
        return tuple(result)

    def _buckets(self, chunk: int) -> list[tuple[int, int, float]]:
        """Return (first unit, last unit, trained parameters) of each gradient bucket of a chunk, in forward order."""
        limit = self.context.software.overlap.gradient_bucket_bytes
        size = self.context.numbers.state.reduce_bytes
        buckets: list[tuple[int, int, float]] = []
        units = self.work.state.units[chunk]
        first = self._first_bucket(chunk) if self.context.software.overlap.first_bucket_bytes else len(units)
        start, held = 0, 0.0
        for index, unit in enumerate(units[:first]):
            held += unit.trained
            if held * size >= limit:
                buckets.append((start, index + 1, held))
                start, held = index + 1, 0.0
        if start < first:
            buckets.append((start, first, held))
        if first < len(units):
            buckets.append((first, len(units), sum(unit.trained for unit in units[first:])))
        return buckets

    def _first_bucket(self, chunk: int) -> int:
        """Return the first unit of the bucket that backward fills first: the last units, up to its own limit, of the last chunk."""
        units, size = self.work.state.units[chunk], self.context.numbers.state.reduce_bytes
        index, held = len(units), 0.0
        if chunk < len(self.work.state.units) - 1:
            return index
        while index and held * size < self.context.software.overlap.first_bucket_bytes:
            index -= 1
            held += units[index].trained
        return index
