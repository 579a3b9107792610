"""From profiles, model, plan and recipe to a job: one program per simulated rank."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from foretrain.models.ops import Layout
from foretrain.sim.collectives import TransferCost, collective, send
from foretrain.sim.cost import Pricer
from foretrain.sim.exchange import Exchange, exchange_for
from foretrain.sim.passes import Passes
from foretrain.sim.placement import Placement, ReplicaClass, Span
from foretrain.sim.precision import Numbers, numbers
from foretrain.sim.program import ISSUE, WAIT, ChannelSpec, CollectiveSpec, Instruction, Job, Program, Repeat
from foretrain.sim.schedules.base import BACKWARD, FORWARD, Action, Order
from foretrain.sim.segment import DATA, SegmentBook
from foretrain.sim.stagework import StageWork
from foretrain.sim.state import StageState, stage_state
from foretrain.software.profile import Software

STREAMS = ("compute", "data parallel", "other groups")
QUEUE_DEPTH = 1024
"""Launches that the host can have in flight (the CUDA driver's launch queue)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A job and what the prediction needs beside it."""

    job: Job
    placement: Placement
    numbers: Numbers
    states: tuple[StageState, ...]
    pricer: Pricer


class Context:
    """What lowering shares between ranks: pricer, passes per tensor span, segment book, collective and channel tables."""

    def __init__(self, placement: Placement, software: Software) -> None:
        plan, accelerator = placement.plan, placement.cluster.accelerator
        self.placement = placement
        self.software = software
        self.numbers = numbers(placement.recipe, accelerator, software, sharded=plan.zero == 3)
        self.pricer = Pricer(accelerator, software, self.numbers.dtype, plan.ranks)
        self.book = SegmentBook()
        self.collectives: list[CollectiveSpec] = []
        self.channels: list[ChannelSpec] = []
        self.states = tuple(stage_state(placement, self.numbers, stage) for stage in range(plan.pp))
        self.layout = Layout(
            micro_batch=plan.micro_batch, tp=plan.tp, sequence_parallel=plan.sequence_parallel,
            element_bytes=self.numbers.element_bytes, flash=self.pricer.attention != "unfused", fused=software.fused,
        )  # fmt: skip
        self._passes: dict[Span, Passes] = {}
        self.work: dict[tuple[Span, int, int, int], StageWork] = {}
        self.slots = count()
        self.played: dict[tuple[object, ...], tuple[Instruction, ...]] = {}
        """Passes of units already made, by what they are made of: stages that run the same layers share their segments."""

    def passes(self, span: Span) -> Passes:
        """Return the priced passes for tensor-parallel groups that lie like `span`."""
        if span not in self._passes:
            placement = self.placement
            self._passes[span] = Passes(self.pricer, self.layout, placement.cluster, span, placement.plan.recompute)
        return self._passes[span]

    def cost(self, kind: str, size_bytes: float, span: Span) -> TransferCost:
        """Return the cost of a collective under this software."""
        return collective(kind, size_bytes, span, self.placement.cluster, self.software.collective_scale)

    def start(self, name: str, kind: str, cost: TransferCost, *, group: int, members: int, stream: int) -> tuple[Instruction, Instruction]:
        """Register a collective and return the instructions that start it and wait for it."""
        slot = next(self.slots)
        self.collectives.append(
            CollectiveSpec(name=name, kind=kind, cost=cost, group=group, members=members, stream=stream, slot=slot)
        )
        return Instruction(ISSUE, len(self.collectives) - 1), Instruction(WAIT, slot)


def lower(placement: Placement, software: Software) -> Lowered:
    """Return the job of one training step."""
    context = Context(placement, software)
    members = _members(placement)
    channels = _channels(context, members)
    programs = tuple(_program(context, members, index, channels) for index in range(len(members)))
    cluster = placement.cluster
    job = Job(
        programs=programs,
        segments=tuple(context.book.segments),
        channels=tuple(context.channels),
        collectives=tuple(context.collectives),
        streams=STREAMS,
        port_bytes_per_s=cluster.node.scale_up.bandwidth_bytes_per_s,
        network_bytes_per_s=cluster.node.network_bytes_per_s,
        overlap_loss=cluster.accelerator.overlap_loss,
        queue_depth_s=QUEUE_DEPTH * software.host.launch_s,
    )
    return Lowered(job=job, placement=placement, numbers=context.numbers, states=context.states, pricer=context.pricer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A simulated rank before it has a program."""

    stage: int
    replica: ReplicaClass
    tensor: int


def _members(placement: Placement) -> list[Member]:
    tensor = range(placement.plan.tp) if "tp" in placement.plan.unfold else range(1)
    return [
        Member(stage=stage, replica=replica, tensor=t)
        for replica in placement.classes
        for stage in range(placement.plan.pp)
        for t in tensor
    ]


def _channels(context: Context, members: list[Member]) -> dict[tuple[int, int, int], tuple[int | None, int | None]]:
    """Return for every (member, kind, chunk) the channels it receives from and sends to; None at the ends of the pipeline."""
    placement, plan = context.placement, context.placement.plan
    number = {(m.replica.replica, m.stage, m.tensor): index for index, m in enumerate(members)}
    total = plan.pp * plan.vpp
    table: dict[tuple[int, int, int], tuple[int | None, int | None]] = {}
    costs: dict[tuple[bool, int], TransferCost] = {}
    into: dict[tuple[int, int, int], int] = {}
    out: dict[tuple[int, int, int], int] = {}
    for index, member in enumerate(members):
        for chunk in range(plan.vpp):
            position = chunk * plan.pp + member.stage
            for kind, following in ((FORWARD, position + 1), (BACKWARD, position - 1)):
                if not 0 <= following < total:
                    continue
                stage, next_chunk = following % plan.pp, following // plan.pp
                target = number[member.replica.replica, stage, member.tensor]
                crosses = placement.domain(member.stage, member.replica.replica) != placement.domain(stage, member.replica.replica)
                flows = placement.flows(member.stage, member.replica)
                if (crosses, flows) not in costs:
                    costs[crosses, flows] = _message(context, member, crosses=crosses, flows=flows)
                context.channels.append(ChannelSpec(source=index, target=target, cost=costs[crosses, flows]))
                out[index, kind, chunk] = into[target, kind, next_chunk] = len(context.channels) - 1
    for index in range(len(members)):
        for kind in (FORWARD, BACKWARD):
            for chunk in range(plan.vpp):
                key = (index, kind, chunk)
                table[key] = (into.get(key), out.get(key))
    return table


def _message(context: Context, member: Member, *, crosses: bool, flows: int) -> TransferCost:
    """Return the cost of one micro-batch's boundary tensor from stage to stage."""
    placement, plan = context.placement, context.placement.plan
    size = placement.model.boundary_elements * plan.micro_batch * context.numbers.element_bytes
    cut = plan.tp if plan.sequence_parallel or context.software.scatter_gather else 1
    cost = send(size / cut, placement.cluster, crosses=crosses, flows=flows)
    if not context.software.scatter_gather or plan.sequence_parallel or plan.tp == 1:
        return cost
    gather = context.cost("all_gather", size, placement.tensor_span(member.stage, member.replica.replica))
    return TransferCost(
        latency_s=cost.latency_s + gather.total_s, full_s=cost.full_s, port_bytes_per_s=cost.port_bytes_per_s,
        network_bytes_per_s=cost.network_bytes_per_s, wire_bytes=cost.wire_bytes,
    )  # fmt: skip


def _program(
    context: Context, members: list[Member], index: int, channels: dict[tuple[int, int, int], tuple[int | None, int | None]]
) -> Program:
    placement, plan, member = context.placement, context.placement.plan, members[index]
    span = placement.tensor_span(member.stage, member.replica.replica)
    key = (span, member.stage, member.tensor, member.replica.replica if "tp" in plan.unfold else 0)
    if key not in context.work:
        context.work[key] = StageWork(context, member.stage, span, unfold_tensor="tp" in plan.unfold, replica=member.replica.replica)
    work = context.work[key]
    exchange = exchange_for(context, work, member, len(placement.classes))
    order = plan.schedule.order(stage=member.stage, stages=plan.pp, chunks=plan.vpp, microbatches=placement.microbatches)
    repeats = (
        Repeat(exchange.begin(), 1),
        *_expanded(order, exchange, placement.microbatches, index, channels),
        Repeat(exchange.end(), 1),
    )
    folded = 1 if "tp" in plan.unfold else plan.tp
    return Program(
        stage=member.stage,
        replica=member.replica.replica,
        multiplicity=member.replica.multiplicity * folded,
        node=placement.node(member.stage, member.replica.replica),
        flows=placement.flows(member.stage, member.replica),
        label=_label(plan.pp, placement, member),
        repeats=repeats,
    )


def _label(stages: int, placement: Placement, member: Member) -> str:
    parts = [f"stage {member.stage}" if stages > 1 else "rank"]
    if len(placement.classes) > 1:
        parts.append(f"replica {member.replica.replica}")
    if "tp" in placement.plan.unfold:
        parts.append(f"tensor {member.tensor}")
    return " ".join(parts)


def _expanded(
    order: Order, exchange: Exchange, microbatches: int, index: int, channels: dict[tuple[int, int, int], tuple[int | None, int | None]]
) -> list[Repeat]:
    """Return an order as instructions; iterations that hold a first forward or a last backward stand apart."""
    seen: dict[Action, int] = {}
    known: dict[tuple[Action, bool], list[Instruction]] = {}
    result: list[Repeat] = []

    def passed(action: Action, *, special: bool) -> list[Instruction]:
        receive, to = channels[index, action.kind, action.chunk]
        if action.kind == FORWARD:
            return exchange.forward(action.chunk, first=special, receive=receive, to=to)
        return exchange.backward(action.chunk, last=special, receive=receive, to=to)

    def body(actions: tuple[Action, ...]) -> tuple[Instruction, ...]:
        instructions: list[Instruction] = []
        for action in actions:
            done = seen[action] = seen.get(action, 0) + 1
            special = done == (1 if action.kind == FORWARD else microbatches)
            if (action, special) not in known:
                known[action, special] = passed(action, special=special)
            instructions += known[action, special]
        return tuple(instructions)

    for run in order:
        per_body = {action: run.body.count(action) for action in set(run.body)}
        left = run.repeat
        if left and any(action.kind == FORWARD and action not in seen for action in per_body):
            result.append(Repeat(body(run.body), 1))
            left -= 1
        closing = any(a.kind == BACKWARD and seen.get(a, 0) + left * n == microbatches for a, n in per_body.items())
        middle = left - 1 if closing else left
        if middle > 0:
            before = dict(seen)
            result.append(Repeat(body(run.body), middle))
            for action, times in per_body.items():
                seen[action] = before.get(action, 0) + times * middle
        if closing and left > 0:
            result.append(Repeat(body(run.body), 1))
    return result


__all__ = ["DATA", "Context", "Lowered", "Member", "lower"]
