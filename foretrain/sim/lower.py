"""From profiles, model, plan and recipe to a job: one program per simulated rank."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from foretrain.errors import PlanError
from foretrain.models.ops import FP32_BYTES, Layout
from foretrain.sim.channels import boundary_bytes, channels_of
from foretrain.sim.clock import Governor, Operation
from foretrain.sim.collectives import TransferCost, collective
from foretrain.sim.context import MODES
from foretrain.sim.cost import Pricer
from foretrain.sim.disturbance import CALM
from foretrain.sim.expansion import Ends, Expansion
from foretrain.sim.inline import Spans
from foretrain.sim.loading import check_loader, next_step
from foretrain.sim.low_precision import in_few_bits
from foretrain.sim.offload import check_offload, copy_cost
from foretrain.sim.optimizer_exchange import check_clip
from foretrain.sim.passes import Passes
from foretrain.sim.placement import Placement, ReplicaClass, Span
from foretrain.sim.plan import Plan
from foretrain.sim.precision import ELEMENT_BYTES, Numbers, numbers
from foretrain.sim.program import ISSUE, WAIT, ChannelSpec, CollectiveSpec, Instruction, Job, Program, Repeat
from foretrain.sim.replication import check_meeting, one_process
from foretrain.sim.segment import HOST, SegmentBook
from foretrain.sim.sharded import exchange_for
from foretrain.sim.stagework import StageWork
from foretrain.sim.state import StageState, stage_states
from foretrain.software.profile import Software

STREAMS = ("compute", "data parallel", "other groups")
EXCHANGED_BYTES = 1e9
"""A tensor large enough that its exchange runs at full rate; its latency is left out anyway."""
COPIES = 10**15
"""Groups of one, numbered far from those that meet."""
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
        self.numbers = numbers(placement.recipe, accelerator, software, sharded=plan.zero >= 2)
        self.pricer = Pricer(accelerator, software, self.numbers.dtype, plan.ranks)
        self.book = SegmentBook()
        self.collectives: list[CollectiveSpec] = []
        self.channels: list[ChannelSpec] = []
        _check_compression(placement, self.numbers)
        check_clip(plan, placement.recipe)
        check_meeting(plan, placement.cluster)
        check_loader(software.host)
        check_offload(plan, placement.recipe, placement.cluster)
        self.states = stage_states(placement, self.numbers, software)
        self.layout = Layout(
            micro_batch=plan.micro_batch, tp=plan.tp, sequence_parallel=plan.sequence_parallel,
            element_bytes=self.numbers.element_bytes, flash=self.pricer.attention != "unfused", fused=software.fused,
            wide=software.wide if self.numbers.element_bytes < FP32_BYTES else frozenset(),
            logit_kept_bytes=software.loss.kept_bytes,
            logit_beside_bytes=software.loss.cut_beside_bytes if plan.tp > 1 else software.loss.beside_bytes,
            regathers=software.regathers, cp=plan.cp, ep=plan.ep, expert_load=plan.capacity_factor or plan.expert_imbalance,
        )  # fmt: skip
        _refuse_unfused(plan, software, self.layout)
        self.governor = Governor(accelerator.power)
        self._passes: dict[tuple[Spans, int | None, float], Passes] = {}
        self._exchange_w: dict[int, float] = {}
        self.operations: dict[tuple[object, ...], tuple[Operation, Passes]] = {}
        """How passes are run, by what they are made of."""
        self.work: dict[tuple[object, ...], StageWork] = {}
        self.slots = count()
        self.played: dict[tuple[object, ...], tuple[Instruction, ...]] = {}
        """Passes and optimizer steps already made, by what they are made of: stages that run the same layers share their segments."""

    def passes(self, span: Span, member: Member) -> Passes:
        """Return the priced passes of a member whose tensor-parallel group lies like `span`."""
        placement, plan = self.placement, self.placement.plan
        spans = Spans(tensor=span, data=placement.data_span(0), context=placement.context_span(), expert=placement.expert_span())
        rank = member.context if "cp" in plan.unfold else None
        key = (spans, rank, member.factor)
        if key not in self._passes:
            context = MODES[plan.cp_mode](contiguous=plan.cp_cut == "contiguous", rank=rank) if plan.cp > 1 else None
            pricer = self.pricer.slowed(member.factor)
            self._passes[key] = Passes(
                pricer, self.layout, placement.cluster, spans, plan.recompute, context=context, busy=1.0 / plan.expert_imbalance
            )
        return self._passes[key]

    def cost(self, kind: str, size_bytes: float, span: Span) -> TransferCost:
        """Return the cost of a collective under this software."""
        return collective(kind, size_bytes, span, self.placement.cluster, self.software.collective_scale)

    def message_j(self, part: int) -> float:
        """Return the joules of the larger message that a pass of a part of the model sends; none where the pipeline has one stage."""
        placement = self.placement
        if placement.plan.pp == 1:
            return 0.0
        edges = range(max(1, part), min(part + 2, len(placement.chunk_layers)))
        largest = max((placement.input_elements(edge) for edge in edges), default=0)
        return boundary_bytes(self, largest) * placement.cluster.accelerator.power.link_j_per_byte

    def exchange_w(self, stage: int) -> float:
        """Return the watts of an accelerator's links while data-parallel ranks of a stage exchange at full rate."""
        if stage not in self._exchange_w:
            self._exchange_w[stage] = self._exchanged_w(stage)
        return self._exchange_w[stage]

    def _exchanged_w(self, stage: int) -> float:
        placement = self.placement
        spans = (placement.shard_span(stage), placement.replica_span(stage)) if placement.plan.shards > 1 else (placement.data_span(stage),)
        costs = (self.cost("reduce_scatter", EXCHANGED_BYTES, span) for span in spans)
        rate = max((cost.wire_bytes / cost.full_s for cost in costs if cost.full_s), default=0.0)
        return rate * placement.cluster.accelerator.power.link_j_per_byte

    def copied(self, name: str, size_bytes: float) -> tuple[Instruction, Instruction]:
        """Return the start of a copy between a rank and its host, and the wait for it; each rank copies for itself."""
        slot = next(self.slots)
        return self.start(name, HOST, copy_cost(size_bytes, self.placement.cluster), group=-COPIES - slot, members=1, stream=len(STREAMS))

    def start(
        self, name: str, kind: str, cost: TransferCost, *, group: int, members: int, stream: int
    ) -> tuple[Instruction, Instruction]:
        """Register a collective and return the instructions that start it and wait for it."""
        slot = next(self.slots)
        self.collectives.append(
            CollectiveSpec(name=name, kind=kind, cost=cost, group=group, members=members, stream=stream, slot=slot)
        )
        return Instruction(ISSUE, len(self.collectives) - 1), Instruction(WAIT, slot)


def _refuse_unfused(plan: Plan, software: Software, layout: Layout) -> None:
    if plan.cp > 1 and plan.cp_mode != "ulysses" and not layout.flash:
        raise PlanError(
            f"cp_mode={plan.cp_mode} joins the blocks of a fused attention kernel, but {software.name} runs attention unfused on this "
            "accelerator; use cp_mode=ulysses, or software with fused attention"
        )


def lower(placement: Placement, software: Software) -> Lowered:
    """Return the job of one training step."""
    placement = in_few_bits(placement, software)
    software = one_process(software.cut(placement.plan.tp, sharded=placement.plan.zero >= 2), placement.plan)
    context = Context(placement, software)
    members = _members(placement)
    channels = channels_of(context, members)
    programs = tuple(_program(context, members, index, channels) for index in range(len(members)))
    cluster = placement.cluster
    job = Job(
        programs=programs,
        segments=tuple(context.book.segments),
        channels=tuple(context.channels),
        collectives=tuple(context.collectives),
        streams=STREAMS if placement.plan.offload is None else (*STREAMS, "host copies"),
        port_bytes_per_s=cluster.node.scale_up.bandwidth_bytes_per_s,
        network_bytes_per_s=cluster.node.network_bytes_per_s,
        overlap_loss=cluster.accelerator.overlap_loss,
        queue_depth_s=QUEUE_DEPTH * software.host.launch_s,
        slow_links=placement.disturbance.links,
    )
    return Lowered(job=job, placement=placement, numbers=context.numbers, states=context.states, pricer=context.pricer)


def _check_compression(placement: Placement, used: Numbers) -> None:
    """Refuse compression that would change nothing."""
    plan = placement.plan
    if plan.gradient_compression is None:
        return
    if not placement.exchanges:
        raise PlanError(f"gradient_compression={plan.gradient_compression}, but dp=1 reduces no gradients; raise dp or leave it out")
    if plan.gradient_compression in ("fp16", "bf16") and used.state.reduce_bytes <= ELEMENT_BYTES[plan.gradient_compression]:
        raise PlanError(
            f"gradient_compression={plan.gradient_compression}, but gradients go over the wire in {used.state.reduce_bytes:g} bytes "
            "already; leave it out, or give --grad-dtype fp32"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A simulated rank before it has a program; `flows` counts the ranks on its node that it stands for.

    Its kernels take `factor` times as long as the profile says.
    """

    stage: int
    replica: ReplicaClass
    tensor: int
    context: int
    flows: int
    node: int
    factor: float = 1.0


def _members(placement: Placement) -> list[Member]:
    plan = placement.plan
    tensor = range(plan.tp) if "tp" in plan.unfold else range(1)
    context = range(plan.cp) if "cp" in plan.unfold else range(1)
    def member(stage: int, replica: ReplicaClass, t: int, c: int) -> Member:
        folded = (t,) if "tp" in plan.unfold else range(plan.tp), (c,) if "cp" in plan.unfold else range(plan.cp)
        calm = placement.disturbance is CALM
        return Member(
            stage=stage, replica=replica, tensor=t, context=c, flows=placement.flows(stage, replica, t, c),
            node=placement.node(stage, replica.replica, t, c) if calm else placement.slowest_node(stage, replica.replica, *folded),
            factor=1.0 if calm else placement.slowest_factor(stage, replica.replica, *folded),
        )  # fmt: skip

    return [
        member(stage, replica, t, c)
        for replica in placement.classes
        for stage in range(placement.plan.pp)
        for c in context
        for t in tensor
    ]


def _program(context: Context, members: list[Member], index: int, channels: dict[tuple[int, bool, int], Ends]) -> Program:
    placement, plan, member = context.placement, context.placement.plan, members[index]
    span = placement.tensor_span(member.stage, member.replica.replica)
    single = not plan.unfold.isdisjoint(("tp", "cp"))
    key = (span, member.stage, member.tensor, member.context, member.factor, member.replica.replica if single else 0)
    if key not in context.work:
        context.work[key] = StageWork(context, member, span)
    simulated = len(placement.classes) * (plan.cp if "cp" in plan.unfold else 1)
    exchange = exchange_for(context, context.work[key], member, simulated)
    order = plan.schedule.order(stage=member.stage, stages=plan.pp, chunks=plan.vpp, microbatches=placement.microbatches)
    ends = {(forward, chunk): channels[index, forward, chunk] for forward in (True, False) for chunk in range(placement.chunks)}
    begin = Repeat(exchange.begin(), 1)
    loaded = next_step(placement, context.software.host, stage=member.stage, replica=member.replica.replica)
    passes = Expansion(exchange, placement.microbatches_each, ends).expanded(order)
    return Program(
        stage=member.stage,
        replica=member.replica.replica,
        multiplicity=member.replica.multiplicity * (1 if "tp" in plan.unfold else plan.tp) * (1 if "cp" in plan.unfold else plan.cp),
        node=member.node,
        flows=member.flows,
        label=_label(plan.pp, placement, member),
        repeats=(begin, *passes, Repeat((*exchange.end(), *loaded), 1)),
    )


def _label(stages: int, placement: Placement, member: Member) -> str:
    parts = [f"stage {member.stage}" if stages > 1 else "rank"]
    if len(placement.classes) > 1:
        parts.append(f"replica {member.replica.replica}")
    if "cp" in placement.plan.unfold:
        parts.append(f"context {member.context}")
    if "tp" in placement.plan.unfold:
        parts.append(f"tensor {member.tensor}")
    return " ".join(parts)
