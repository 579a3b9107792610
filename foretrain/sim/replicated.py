"""Exchanges of parameters that stay replicated: gradients reduced once a step or in every backward pass, whole or to shards.

**Source:** Li et al., PyTorch Distributed, arXiv:2006.15704, section 3.2 (buckets, `no_sync`); Rajbhandari et al., ZeRO,
arXiv:1910.02054, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

from foretrain.models.stream import stream_kernel
from foretrain.sim.buckets import GradientBucket, buckets
from foretrain.sim.compression import Bucket, compression_of
from foretrain.sim.exchange import Exchange, Instructions, Pair
from foretrain.sim.matrices import weights
from foretrain.sim.program import RESIZE, Instruction
from foretrain.sim.schedules.base import BACKWARD, FORWARD, WEIGHT
from foretrain.sim.stagework import StageWork

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member


COPIED_PASSES = 2
"""A gradient is read, and written into its bucket, divided by the number of replicas (PyTorch, `Reducer::mark_variable_ready_dense`)."""


class Replicated(Exchange):
    """Every rank holds the parameters; the optimizer may be sharded (ZeRO-1) and the gradients too (ZeRO-2).

    Gradients are reduced once a step, or in every backward pass: where they are sharded, or where nothing asks to wait (DDP without
    `no_sync`). Sharded ones are whole, bucket by bucket, only until they are reduced.
    """

    def __init__(self, context: Context, work: StageWork, member: Member, classes: int) -> None:
        super().__init__(context, work, member, classes)
        self._postponed: list[tuple[str, GradientBucket]] = []
        """Names and buckets of reductions whose gradients come at the end of the step."""
        self._filled: dict[int, tuple[GradientBucket, ...]] = {}

    @property
    def first_apart(self) -> bool:
        """Whether updated parameters are gathered behind the first forward passes, or buffers are sent before them."""
        return self._gathers_ahead or self._sends_buffers

    @property
    def _gathers_ahead(self) -> bool:
        return self.context.placement.plan.shards > 1 and self.context.software.overlap.parameter_gather

    @cached_property
    def _sends_buffers(self) -> bool:
        """Whether replicas take over the first one's buffers: before each forward pass that follows one whose gradients were reduced."""
        units = (unit for chunk in self.work.state.units for unit in chunk)
        plan = self.context.placement.plan
        return self.context.software.buffers_sent and plan.dp > 1 and plan.zero < 2 and any(unit.block.buffer_bytes for unit in units)

    @property
    def last_apart(self) -> bool:
        """Whether the last backward passes reduce what those before them do not, or end in a wait of their own."""
        return self.context.placement.exchanges and (self._every or self.context.software.overlap.gradient_reduce)

    @property
    def _every(self) -> bool:
        return self.context.placement.plan.syncs_every_microbatch

    def begin(self) -> tuple[Instruction, ...]:
        """Return the gathers of updated parameters that hide behind the first forward passes."""
        if not self._gathers_ahead:
            return ()
        issued: Instructions = []
        gather = self.context.numbers.state.gather_bytes
        for chunk in range(len(self.work.state.units)):
            for bucket in reversed(self._buckets(chunk)):
                pairs = self._gather(f"parameters {_named(chunk, bucket)}", bucket.parameters * gather, bucket.experts * gather)
                issued += [issue for issue, _ in pairs]
                self._gathers.setdefault((chunk, bucket.first), []).extend(wait for _, wait in pairs)
        return tuple(issued)

    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        if kind == FORWARD:
            sent = self._buffers_sent(chunk) if self._sends_buffers and (special or self._every) else []
            return [*sent, *(self._first(chunk) if special and self._gathers_ahead else self._run(kind, chunk))]
        completes = kind in (BACKWARD, WEIGHT)
        return self._completed(kind, chunk, last=special) if completes and (special or self._every) else self._run(kind, chunk)

    def _buffers_sent(self, chunk: int) -> Instructions:
        """Return the broadcasts of the buffers of a chunk, those of each dtype as one, that a forward pass waits for."""
        sizes: dict[str, float] = {}
        for unit in self.work.state.units[chunk]:
            for dtype, size in unit.block.buffer_bytes:
                sizes[dtype] = sizes.get(dtype, 0.0) + size
        span = self.context.placement.data_span(self.member.stage)
        pairs = [self._collective(f"broadcast {dtype} buffers {chunk}", "broadcast", size, span) for dtype, size in sizes.items()]
        return [step for pair in pairs if pair is not None for step in pair]

    def _first(self, chunk: int) -> Instructions:
        """Return a forward pass that waits for its parameters bucket by bucket."""
        result: Instructions = []
        position, total = 0, len(self.work.state.units[chunk])
        for first in sorted({bucket.first for bucket in self._buckets(chunk)}):
            result += self._part(FORWARD, chunk, position, first)
            result += self._gathers.get((chunk, first), [])
            position = first
        return result + self._part(FORWARD, chunk, position, total)

    def _completed(self, kind: int, chunk: int, *, last: bool) -> Instructions:
        """Return a pass that completes gradients of weights, and starts to reduce each bucket when it is whole."""
        result: Instructions = []
        position = len(self.work.state.units[chunk])
        for bucket in self._buckets(chunk):
            passed = self._part(kind, chunk, bucket.first, position)
            position = bucket.first
            if any(unit.deferred for unit in self.work.state.units[chunk][bucket.first : bucket.last]):
                self._postponed.append((f"gradients {_named(chunk, bucket)}", bucket))
                result += passed
            else:
                reduced = self._reduced(f"gradients {_named(chunk, bucket)}", bucket, last=last)
                result += self._held(passed, reduced, bucket)
        return result + self._part(kind, chunk, 0, position)

    def _part(self, kind: int, chunk: int, first: int, last: int) -> Instructions:
        """Return the pass over the units of a part of a chunk; nothing where there are none."""
        return self._run(kind, chunk, first, last) if first < last else []

    def _reduced(self, name: str, bucket: GradientBucket, *, last: bool) -> Instructions:
        """Return the reduction of a bucket: waited for at once where nothing may hide it, at the end of the step after the last pass."""
        before, pairs, after = self._packed(name, bucket)
        copied = self.host.gradients(name, bucket.parameters, bucket.experts)
        issues, waits = [issue for issue, _ in pairs], [wait for _, wait in pairs]
        if not self.context.software.overlap.gradient_reduce:
            return [*before, *chain.from_iterable(pairs), *after, *copied]
        if last:
            self._reductions += [*waits, *after]
            return [*before, *issues, *copied]
        return [*before, *issues, *copied, *after]

    def _packed(self, name: str, bucket: GradientBucket) -> tuple[Instructions, list[Pair], Instructions]:
        """Return what packs the gradients of a bucket, their collectives, and what unpacks them."""
        placement, stage = self.context.placement, self.member.stage
        compression = compression_of(placement.plan.gradient_compression)
        if compression is None or not placement.exchanges or not bucket.parameters:
            return self._copied(bucket), self._reduction(name, bucket.parameters, bucket.experts), []
        span = placement.data_span(stage)
        sent = Bucket(
            parameters=bucket.parameters, element_bytes=self.context.numbers.state.reduce_bytes, ranks=span.ranks,
            weights=weights((((one.op,), True, 1) for one in bucket.gradients if not one.bias), placement.plan.tp),
        )  # fmt: skip
        found = [self._across_copies(f"{kind.replace('_', '-')} {name}", kind, size, span) for kind, size in compression.wire(sent)]
        before, after = compression.packing(sent), compression.unpacking(sent)
        pairs = [pair for pair in found if pair is not None]
        return list(self.work.beside("pack", before)), pairs, list(self.work.beside("unpack", after))

    def _copied(self, bucket: GradientBucket) -> Instructions:
        """Return the copy of the gradients of a bucket into it, where the software makes one."""
        plan, size = self.context.placement.plan, COPIED_PASSES * bucket.parameters * self.context.numbers.state.reduce_bytes
        if not self.context.software.buckets_copied or plan.dp == 1 or plan.zero or not size:
            return []
        return list(self.work.beside("copy to bucket", (stream_kernel("copy to bucket", size, len(bucket.gradients)),)))

    def _held(self, passed: Iterable[Instruction], reduced: Instructions, bucket: GradientBucket) -> Instructions:
        """Return a pass and its reduction, with the room of a bucket whose gradients are sharded once it is reduced.

        Those of experts of which no other rank has a shard never are otherwise than whole.
        """
        plan = self.context.placement.plan
        if plan.zero < 2 or plan.shards == 1:
            return [*passed, *reduced]
        whole = bucket.parameters - (bucket.experts if plan.expert_shards == 1 else 0.0)
        size = whole * self.context.numbers.state.reduce_bytes
        return [Instruction(RESIZE, size), *passed, *reduced, Instruction(RESIZE, -size)]

    def end(self) -> tuple[Instruction, ...]:
        """Return the reductions that nothing hid, the optimizer, and the gather of parameters that nothing will hide."""
        result = self._deferred()
        result += [step for name, bucket in self._postponed for step in self._reduced(name, bucket, last=True)]
        result += self._reductions
        if not self._every and not self.context.software.overlap.gradient_reduce and self.context.placement.exchanges:
            units = tuple(chain.from_iterable(self.work.state.units))
            whole = buckets(units, self.context.placement.plan, (inf,))
            before, pairs, after = self._packed("gradients", whole[0]) if whole else ([], [], [])
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

    def _buckets(self, chunk: int) -> tuple[GradientBucket, ...]:
        """Return the gradient buckets of a chunk in the order in which backward fills them; the last chunk's first may be a small one."""
        if chunk not in self._filled:
            overlap, size = self.context.software.overlap, self.context.numbers.state.reduce_bytes
            small = overlap.first_bucket_bytes and chunk == len(self.work.state.units) - 1
            limits = (*((overlap.first_bucket_bytes,) if small else ()), overlap.gradient_bucket_bytes)
            self._filled[chunk] = buckets(self.work.state.units[chunk], self.context.placement.plan, [limit / size for limit in limits])
        return self._filled[chunk]


def _named(chunk: int, bucket: GradientBucket) -> str:
    return f"{chunk}.{bucket.first}-{bucket.last}"
