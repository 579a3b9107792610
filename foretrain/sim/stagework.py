"""Segments of one pipeline stage: forward and backward of its chunks, whole or unit by unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from foretrain.models.ops import Kernel
from foretrain.sim.accumulation import added_gradients
from foretrain.sim.clock import Draw, Operation
from foretrain.sim.collectives import TransferCost
from foretrain.sim.inline import host_leg, issue_leg
from foretrain.sim.offload import host_update
from foretrain.sim.offload_parts import offloaded
from foretrain.sim.optimizer import bookkeeping_s, optimizer_kernels
from foretrain.sim.optimizer_exchange import optimizer_exchanges
from foretrain.sim.passes import BACKWARD, FORWARD, INPUT, WEIGHT, BlockPass, Passes
from foretrain.sim.placement import Span
from foretrain.sim.plan import Plan
from foretrain.sim.program import COMPUTE, Instruction
from foretrain.sim.replication import SERVER
from foretrain.sim.segment import CONTEXT, OPTIMIZER, TENSOR, Leg, Segment, joined, merged
from foretrain.sim.state import Unit

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member

Parts = Sequence[tuple[Leg, ...]]
"""Legs of one segment, block by block."""


class StageWork:
    """Makes and keeps the compute instructions of a stage."""

    def __init__(self, context: Context, member: Member, span: Span) -> None:
        self.context = context
        self.stage = member.stage
        self.state = context.states[member.stage]
        self.passes = context.passes(span, member)
        self.apart = apart(context.placement.plan, member)

    def play(self, direction: str, chunk: int, first: int = 0, last: int | None = None) -> tuple[Instruction, ...]:
        """Return a pass over the units `first` to `last` (exclusive) of a chunk; all but forward run the last unit first."""
        units = self.state.units[chunk][first:last]
        own = (self.stage, id(self)) if self.apart else None
        ran = operation, passes = self._operation(direction, chunk, apart=last is not None)
        held = self._held_bytes(chunk) if last is None or last == len(self.state.units[chunk]) else 0.0
        key = (id(passes), operation.share, direction, chunk, first == 0, _made_of(units), own, held)
        known = self.context.played
        if key not in known:
            known[key] = self._made(direction, chunk, units, ran, opens=first == 0, held=held)
        return known[key]

    def _held_bytes(self, chunk: int) -> float:
        """Return the bytes that this rank holds of a chunk's result for the next stage until the chunk has run backward."""
        context = self.context
        placement, plan = context.placement, context.placement.plan
        following = placement.part(self.stage, chunk) + 1
        here = any(placement.part(self.stage, other) == following for other in range(placement.chunks))
        if here or not context.software.outputs_held or following == len(placement.chunk_layers):
            return 0.0
        whole = placement.input_elements(following) * plan.micro_batch * context.numbers.element_bytes / plan.cp
        return whole / context.layout.sequence_cut

    def deferred(self, chunk: int, microbatches: int) -> tuple[Instruction, ...]:
        """Return the gradients of weights that all micro-batches have left to the end of the step."""
        late = [number for number, unit in enumerate(self.state.units[chunk]) if unit.deferred]
        return self.play(WEIGHT, chunk, late[0], late[-1] + 1) * microbatches if late else ()

    def optimizer(self) -> tuple[Instruction, ...]:
        """Return the optimizer step, and what the host adds once per step."""
        context = self.context
        placement = context.placement
        if "optimizer" in offloaded(placement.plan.offload) or placement.plan.replication == SERVER:
            return self._on_the_host()
        kernels = optimizer_kernels(self.state, context.numbers, placement.recipe, context.software, placement.plan.shards)
        apart = placement.recipe.needs_exchange or placement.plan.sequence_parallel
        key = (id(self.passes), self.stage if apart else None, kernels)
        if key not in context.played:
            context.played[key] = (Instruction(COMPUTE, self._step(kernels)),)
        return context.played[key]

    def _on_the_host(self) -> tuple[Instruction, ...]:
        """Return the optimizer step on the CPUs, and the parameters coming back."""
        context, placement = self.context, self.context.placement
        update = host_update(self.state.updated, context.numbers, placement.plan, placement.cluster)
        key = (id(self.passes), update)
        if key not in context.played:
            operation = context.governor.operation(lambda _point: drawn(()))
            seconds = {
                "optimizer on the host": update.update_s, "parameters from the host": update.return_s,
                "step overhead": context.software.host.step_s,
            }  # fmt: skip
            legs = [host_leg(name, value) for name, value in seconds.items()]
            exchanged = optimizer_exchanges(placement, self.stage, self.state, self.passes, context.numbers)
            context.played[key] = (Instruction(COMPUTE, self._segment("optimizer", ((*exchanged, *legs),), operation)),)
        return context.played[key]

    def waiting(self, name: str, seconds: float) -> tuple[Instruction, ...]:
        """Return time that the device waits for the host as an instruction."""
        context = self.context
        key = (id(self.passes), name, seconds)
        if key not in context.played:
            operation = context.governor.operation(lambda _point: drawn(()))
            context.played[key] = (Instruction(COMPUTE, self._segment(name, ((host_leg(name, seconds),),), operation)),)
        return context.played[key]

    def beside(self, name: str, kernels: tuple[Kernel, ...]) -> tuple[Instruction, ...]:
        """Return kernels that belong to no pass as an instruction; nothing where there are none."""
        context = self.context
        if not kernels:
            return ()
        key = (id(self.passes), name, kernels)
        if key not in context.played:
            operation = context.governor.operation(lambda point: drawn(map(self.passes.at(point).compute_leg, kernels)))
            legs = tuple(map(self.passes.at(operation.point).compute_leg, kernels))
            context.played[key] = (Instruction(COMPUTE, self._segment(name, (legs,), operation)),)
        return context.played[key]

    def _step(self, kernels: tuple[Kernel, ...]) -> Segment:
        context = self.context
        operation = context.governor.operation(lambda point: drawn(map(self.passes.at(point).compute_leg, kernels)))
        kept_s = bookkeeping_s(self.state, context.placement.recipe, context.software)
        lists = (issue_leg("tensors of the optimizer", kept_s),) if kept_s else ()
        leg = joined([*lists, *(self.passes.at(operation.point).compute_leg(kernel) for kernel in kernels)], "optimizer")
        leg = replace(leg, class_s={OPTIMIZER: leg.device_s})
        step = host_leg("step overhead", context.software.host.step_s)
        exchanged = optimizer_exchanges(context.placement, self.stage, self.state, self.passes, context.numbers)
        return self._segment("optimizer", ((*exchanged, leg, step),), operation)

    def _operation(self, direction: str, chunk: int, *, apart: bool) -> tuple[Operation, Passes]:
        """Return how the passes of a chunk in one direction are run; averaged with the others where the controller's window holds all.

        Passes that are played unit by unit (`apart`) have the data-parallel exchange beside them.
        """
        units = self.state.units[chunk]
        message_j = self.context.message_j(self.context.placement.part(self.stage, chunk))
        beside_w = self.context.exchange_w(self.stage) if apart else 0.0
        known = self.context.operations
        key = (id(self.passes), direction, message_j, beside_w, _made_of(units))
        if key not in known:
            governor = self.context.governor
            round_trip = (FORWARD, BACKWARD) if direction in (FORWARD, BACKWARD) else (FORWARD, INPUT, WEIGHT)
            together = sum(_draw(self.passes, one, units).seconds for one in round_trip) < governor.window_s
            directions = round_trip if together else (direction,)
            messages = sum(one != WEIGHT for one in directions)
            operation = governor.operation(
                lambda point: _total((_draw(self.passes.at(point), one, units) for one in directions), messages * message_j),
                beside_w,
            )
            known[key] = operation, self._passes_at(operation)
        return known[key]

    def _passes_at(self, operation: Operation) -> Passes:
        """Return the passes at an operating point, the same object where it is the same point."""
        if operation.point == self.context.governor.reference:
            return self.passes
        same = (passes for other, passes in self.context.operations.values() if other.point == operation.point)
        return next((passes for passes in same if passes.like(self.passes)), None) or self.passes.at(operation.point)

    def _made(
        self, direction: str, chunk: int, units: tuple[Unit, ...], ran: tuple[Operation, Passes], *, opens: bool, held: float
    ) -> tuple[Instruction, ...]:
        operation, priced = ran
        name = f"{direction} {chunk}" if len(self.state.units) > 1 else direction
        passes = _passes(priced, direction, units)
        parts = [each.legs for each in passes]
        overhead = self.context.software.host.microbatch_s / 2
        if overhead and opens and direction != WEIGHT:
            parts.append((host_leg("schedule", overhead),))
        hooks = self.context.software.host.unit_s * len(units)
        if hooks and self.context.placement.plan.zero >= 2 and direction != WEIGHT:
            parts.append((host_leg("hooks of units", hooks),))
        if direction in (BACKWARD, WEIGHT) and (added := added_gradients(self.context, units)) is not None:
            parts.append((priced.compute_leg(added),))
        sent = {FORWARD: held, WEIGHT: 0.0}.get(direction, -held)
        delta = sum(each.delta_bytes for each in passes) + sent
        if not any(parts) and not delta:
            return ()  # layers that stand still have no backward pass
        return self._instructions(name, parts, operation, max(_peak(passes), delta), delta)

    def _instructions(self, name: str, parts: Parts, operation: Operation, peak: float, delta: float) -> tuple[Instruction, ...]:
        if not self.apart:
            return (Instruction(COMPUTE, self._segment(name, parts, operation, peak=peak, delta=delta)),)
        return self._apart(name, parts, operation, peak, delta)

    def _apart(self, name: str, legs: Parts, operation: Operation, peak: float, delta: float) -> tuple[Instruction, ...]:
        """Return a segment with the collectives of groups whose members are simulated apart as instructions of their own."""
        context = self.context
        result: list[Instruction] = []
        parts = merged(chain.from_iterable(legs), name)
        for number, leg in enumerate(parts):
            first, final = number == 0, number == len(parts) - 1
            group = self.apart.get(leg.kind) if leg.transfer is not None else None
            played = leg if leg.transfer is None or group is None else self._issue(leg, leg.transfer)
            memory = {"peak": peak if first else 0.0, "delta": delta if final else 0.0}
            result.append(Instruction(COMPUTE, self._segment(leg.name, ((played,),), operation, **memory)))
            if leg.transfer is not None and group is not None and leg.transfer.total_s:
                result += context.start(leg.name, leg.kind, leg.transfer, group=group.number, members=group.members, stream=2)
        return tuple(result)

    def _issue(self, leg: Leg, transfer: TransferCost) -> Leg:
        """Return the start of a collective that is played apart: its launch, and all its joules but those of the bytes still to come."""
        link_j = self.context.placement.cluster.accelerator.power.link_j_per_byte
        joules = {**leg.joules, "links": max(0.0, leg.joules["links"] - transfer.wire_bytes * link_j)}
        return Leg(
            name=leg.name, device_s=0.0, lead_s=leg.launch_s, launch_s=leg.launch_s, class_s={}, joules=joules, hidden_s=leg.hidden_s,
            kind=leg.kind,
        )

    def _segment(self, name: str, parts: Parts, operation: Operation, peak: float = 0.0, delta: float = 0.0) -> Segment:
        """Return a segment of parts, each of which is held to the power limit and merged once, however often it comes."""
        held = {id(part): _within_limit(part, operation.share) for part in parts}
        joint = {key: merged(part, name) for key, part in held.items()}
        legs = tuple(chain.from_iterable(joint[id(part)] for part in parts))
        ops = tuple(chain.from_iterable(held[id(part)] for part in parts))
        return self.context.book.add(name, legs, ops, peak_bytes=peak, delta_bytes=delta, clock_hz=operation.point.hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """A group whose members are simulated one by one: its number, and how many they are."""

    number: int
    members: int


def apart(plan: Plan, member: Member) -> dict[str, Apart]:
    """Return the groups of a member inside its passes that are simulated member by member, by breakdown class."""
    tensor, context = "tp" in plan.unfold and plan.tp > 1, "cp" in plan.unfold and plan.cp > 1
    home = ((member.replica.replica * plan.pp + member.stage) * plan.cp + member.context) * plan.tp + member.tensor
    groups = {}
    if tensor:
        groups[TENSOR] = Apart(number=-1 - 2 * (home - member.tensor), members=plan.tp)
    if context:
        groups[CONTEXT] = Apart(number=-2 - 2 * (home - member.context * plan.tp), members=plan.cp)
    return groups


def _made_of(units: tuple[Unit, ...]) -> tuple[tuple[int, bool], ...]:
    return tuple([(id(unit.block), unit.layer) for unit in units])


def drawn(legs: Iterable[Leg]) -> Draw:
    """Return the seconds and joules of legs."""
    seconds = joules = link_j = 0.0
    for leg in legs:
        links = leg.joules.get("links", 0.0)
        seconds += leg.device_s
        joules += sum(leg.joules.values()) - links
        link_j += links
    return Draw(seconds=seconds, joules=joules, link_j=link_j)


def _passes(priced: Passes, direction: str, units: tuple[Unit, ...]) -> list[BlockPass]:
    ordered = units if direction == FORWARD else reversed(units)
    return [priced.of(INPUT if direction == BACKWARD and unit.deferred else direction, unit.block, layer=unit.layer) for unit in ordered]


def _draw(priced: Passes, direction: str, units: tuple[Unit, ...]) -> Draw:
    """Return what the pass of some units takes; equal units are reckoned once."""
    passes = _passes(priced, direction, units)
    distinct = {id(each): each for each in passes}
    times = Counter(map(id, passes))
    draws = {key: drawn(each.legs) for key, each in distinct.items()}
    return Draw(
        seconds=sum(count * draws[key].seconds for key, count in times.items()),
        joules=sum(count * draws[key].joules for key, count in times.items()),
        link_j=sum(count * draws[key].link_j for key, count in times.items()),
    )


def _total(draws: Iterable[Draw], messages_j: float) -> Draw:
    """Return several passes and their messages to other stages as one."""
    each = tuple(draws)
    return Draw(
        seconds=sum(draw.seconds for draw in each), joules=sum(draw.joules for draw in each),
        link_j=sum(draw.link_j for draw in each) + messages_j,
    )  # fmt: skip


def _within_limit(legs: tuple[Leg, ...], share: float) -> tuple[Leg, ...]:
    """Return legs with their dynamic energy, links apart, scaled to what the power limit lets them draw."""
    if share >= 1.0:
        return legs
    return tuple(
        replace(leg, joules={part: joules if part == "links" else joules * share for part, joules in leg.joules.items()}) for leg in legs
    )


def _peak(passes: list[BlockPass]) -> float:
    """Return the highest activation memory while units run one after another, relative to the start."""
    grown = highest = 0.0
    for each in passes:
        highest = max(highest, grown + each.peak_bytes)
        grown += each.delta_bytes
    return highest
