"""How data-parallel ranks exchange parameters and gradients around the passes of a step.

One final class per way: here parameters that stay replicated (DDP, optionally with a sharded optimizer and sharded gradients), in
`sharded` those that do not. Each turns a pass of a chunk into instructions, with what it gathers before and reduces after.

**Source:** Rajbhandari et al., ZeRO, arXiv:1910.02054, sections 5 and 7; Zhao et al., PyTorch FSDP, arXiv:2304.11277, sections 3 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from foretrain.sim.compression import Bucket, compression_of
from foretrain.sim.host_copies import HostCopies
from foretrain.sim.matrices import weights
from foretrain.sim.offload import copy_cost, sample_bytes
from foretrain.sim.placement import Span
from foretrain.sim.program import RECEIVE, RESIZE, SEND, SEND_AND_WAIT, Instruction
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
        self.host = HostCopies(context, work)
        self._cache: dict[tuple[str, int, bool], Instructions] = {}
        self._gathers: dict[tuple[int, int], Instruction] = {}
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
        """Whether the last backward pass of a chunk differs from the others."""

    @abstractmethod
    def _forward(self, chunk: int, *, first: bool) -> Instructions: ...

    @abstractmethod
    def _backward(self, chunk: int, *, last: bool) -> Instructions: ...

    def forward(self, chunk: int, *, first: bool, receive: int | None, to: int | None) -> Instructions:
        """Return one forward pass of a chunk, with its messages."""
        return self._between(receive, self._inputs(chunk) + self._once("F", chunk, first), to)

    def backward(self, chunk: int, *, last: bool, receive: int | None, to: int | None) -> Instructions:
        """Return one backward pass of a chunk, with its messages."""
        return self._between(receive, self._once("B", chunk, last), to)

    def _inputs(self, chunk: int) -> Instructions:
        """Return the wait for the samples of a micro-batch, where the software does not copy them ahead."""
        placement = self.context.placement
        if self.context.software.host.input_overlapped or chunk or self.member.stage:
            return []
        size = sample_bytes(placement.model) * placement.plan.micro_batch
        return list(self.work.waiting("inputs", copy_cost(size, placement.cluster).full_s))

    def _once(self, kind: str, chunk: int, special: bool) -> Instructions:  # noqa: FBT001 - part of a cache key
        key = (kind, chunk, special)
        if key not in self._cache:
            self._cache[key] = self._forward(chunk, first=special) if kind == "F" else self._backward(chunk, last=special)
        return self._cache[key]

    def _between(self, receive: int | None, passes: Instructions, to: int | None) -> Instructions:
        before = [] if receive is None else [Instruction(RECEIVE, receive)]
        if to is None:
            return before + passes
        return before + passes + [Instruction(SEND if self.context.software.overlap.pipeline else SEND_AND_WAIT, to)]

    def _run(self, direction: str, chunk: int, first: int = 0, last: int | None = None) -> Instructions:
        """Return the pass over some units of a chunk, with the copies of activations that lie in the host's memory."""
        return self.host.run(direction, chunk, first, last)

    def _collective(self, name: str, kind: str, size_bytes: float, span: Span) -> tuple[Instruction, Instruction] | None:
        """Return (issue, wait) of a data-parallel collective; None where it is free."""
        cost = self.context.cost(kind, size_bytes, span)
        if cost.total_s == 0.0:
            return None
        if kind != "all_gather":
            cost = replace(cost, latency_s=cost.latency_s + self.context.software.overlap.cycle_s)
        group = (self.member.stage * self.context.placement.plan.tp + self.member.tensor) * 1_000_003
        return self.context.start(name, DATA, cost, group=group, members=self.classes, stream=1)

    def _reduction(self, name: str, parameters: float) -> list[tuple[Instruction, Instruction]]:
        """Return the collectives that bring the gradients of `parameters` to where the optimizer needs them; none of no parameters."""
        if not parameters:
            return []
        placement, stage = self.context.placement, self.member.stage
        size = parameters * self.context.numbers.state.reduce_bytes
        shards = placement.plan.shards
        if shards == 1:
            found = [self._collective(f"all-reduce {name}", "all_reduce", size, placement.data_span(stage))]
        else:
            found = [
                self._collective(f"reduce-scatter {name}", "reduce_scatter", size, placement.shard_span(stage)),
                self._collective(f"all-reduce {name}", "all_reduce", size / shards, placement.replica_span(stage)),
            ]
        return [pair for pair in found if pair is not None]

    def _gather(self, name: str, size: float) -> tuple[Instruction, Instruction] | None:
        if not size:
            return None
        return self._collective(f"all-gather {name}", "all_gather", size, self.context.placement.shard_span(self.member.stage))

    def _tied(self) -> Instructions:
        """Return the all-reduce of the tied embedding's gradient between the first and last stage."""
        placement, plan = self.context.placement, self.context.placement.plan
        model = placement.model
        if plan.pp == 1 or not (model.tied_parameters and model.tied_trained) or self.member.stage not in (0, plan.pp - 1):
            return []
        size = placement.model.tied_parameters / plan.tp * self.context.numbers.state.reduce_bytes
        cost = self.context.cost("all_reduce", size, placement.tied_span(self.member.replica.replica))
        group = (self.member.replica.replica * plan.tp + self.member.tensor) * 1_000_003 + 1
        return list(self.context.start("all-reduce tied embedding", DATA, cost, group=group, members=2, stream=2))


class Replicated(Exchange):
    """Every rank holds the parameters; the optimizer may be sharded (ZeRO-1) and the gradients too (ZeRO-2).

    Gradients are reduced once a step, or in every backward pass: where they are sharded, or where nothing asks to wait (DDP without
    `no_sync`). Sharded ones are whole, bucket by bucket, only until they are reduced.
    """

    @property
    def first_apart(self) -> bool:
        """Whether updated parameters are gathered behind the first forward passes."""
        return self.context.placement.plan.shards > 1 and self.context.software.overlap.parameter_gather

    @property
    def last_apart(self) -> bool:
        """Whether the last backward passes reduce what those before them do not, or end in a wait of their own."""
        return self.context.placement.plan.dp > 1 and (self._every or self.context.software.overlap.gradient_reduce)

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
                pair = self._gather(f"parameters {chunk}.{first}-{last}", parameters * gather)
                if pair is not None:
                    issued.append(pair[0])
                    self._gathers[chunk, first] = pair[1]
        return tuple(issued)

    def _forward(self, chunk: int, *, first: bool) -> Instructions:
        if not first:
            return self._run("forward", chunk)
        result: Instructions = []
        for start, stop, _ in self._buckets(chunk):
            if (chunk, start) in self._gathers:
                result.append(self._gathers[chunk, start])
            result += self._run("forward", chunk, start, stop)
        return result

    def _backward(self, chunk: int, *, last: bool) -> Instructions:
        if not last and not self._every:
            return self._run("backward", chunk)
        result: Instructions = []
        for start, stop, parameters in reversed(self._buckets(chunk)):
            passed = self._run("backward", chunk, start, stop)
            units = self.work.state.units[chunk][start:stop]
            result += self._held(passed, self._reduced(f"gradients {chunk}.{start}-{stop}", units, last=last), parameters)
        return result

    def _reduced(self, name: str, units: Sequence[Unit], *, last: bool) -> Instructions:
        """Return the reduction of a bucket: waited for at once where nothing may hide it, at the end of the step after the last pass."""
        before, pairs, after = self._packed(name, tuple(units))
        copied = self.host.gradients(name, sum(unit.trained for unit in units))
        issues, waits = [issue for issue, _ in pairs], [wait for _, wait in pairs]
        if not self.context.software.overlap.gradient_reduce:
            return [*before, *chain.from_iterable(pairs), *after, *copied]
        if last:
            self._reductions += [*waits, *after]
            return [*before, *issues, *copied]
        return [*before, *issues, *copied, *after]

    def _packed(self, name: str, units: tuple[Unit, ...]) -> tuple[Instructions, list[tuple[Instruction, Instruction]], Instructions]:
        """Return what packs the gradients of some units, their collectives, and what unpacks them."""
        placement, stage = self.context.placement, self.member.stage
        parameters = sum(unit.trained for unit in units)
        compression = compression_of(placement.plan.gradient_compression)
        if compression is None or placement.plan.dp == 1 or not parameters:
            return [], self._reduction(name, parameters), []
        bucket = Bucket(
            parameters=parameters, element_bytes=self.context.numbers.state.reduce_bytes, ranks=placement.plan.dp,
            weights=weights(((unit.block, unit.layer) for unit in units), placement.plan.tp),
        )  # fmt: skip
        span = placement.data_span(stage)
        found = [self._collective(f"{kind.replace('_', '-')} {name}", kind, size, span) for kind, size in compression.wire(bucket)]
        before, after = compression.packing(bucket), compression.unpacking(bucket)
        pairs = [pair for pair in found if pair is not None]
        return list(self.work.beside("pack", before)), pairs, list(self.work.beside("unpack", after))

    def _held(self, passed: Iterable[Instruction], reduced: Instructions, parameters: float) -> Instructions:
        """Return a pass and its reduction, with the room of a bucket whose gradients are sharded once it is reduced."""
        plan = self.context.placement.plan
        if plan.zero < 2 or plan.shards == 1:
            return [*passed, *reduced]
        size = parameters * self.context.numbers.state.reduce_bytes
        return [Instruction(RESIZE, size), *passed, *reduced, Instruction(RESIZE, -size)]

    def end(self) -> tuple[Instruction, ...]:
        """Return the reductions that nothing hid, the optimizer, and the gather of parameters that nothing will hide."""
        result: Instructions = list(self._reductions)
        if not self._every and not self.context.software.overlap.gradient_reduce and self.context.placement.plan.dp > 1:
            before, pairs, after = self._packed("gradients", tuple(chain.from_iterable(self.work.state.units)))
            result += [*before, *chain.from_iterable(pairs), *after]
        result += self._tied()
        if not self.last_apart:
            result += self.host.gradients("gradients", self.work.state.trained)
        result += self.host.waits
        result += self.work.optimizer()
        if self.context.placement.plan.shards > 1 and not self.context.software.overlap.parameter_gather:
            result += self._gather("parameters", self.work.state.trained * self.context.numbers.state.gather_bytes) or ()
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
