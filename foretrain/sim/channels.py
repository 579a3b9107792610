"""Channels between the stages of a pipeline: who sends to whom, and what a micro-batch's boundary tensor costs on the way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from foretrain.sim.collectives import TransferCost, send
from foretrain.sim.expansion import Ends
from foretrain.sim.program import ChannelSpec
from foretrain.sim.schedules.seats import Seat

if TYPE_CHECKING:
    from foretrain.sim.lower import Context, Member


def channels_of(context: Context, members: list[Member]) -> dict[tuple[int, bool, int], Ends]:
    """Return for every (member, forward, chunk) the channels that it receives from and sends to; neighbours on one stage need none."""
    number = {(m.replica.replica, m.stage, m.context, m.tensor): index for index, m in enumerate(members)}
    seats = context.placement.seats
    into: dict[tuple[int, bool, int], int] = {}
    out: dict[tuple[int, bool, int], int] = {}
    costs: dict[tuple[bool, int, int], TransferCost] = {}
    neighbours = {
        (seat, step): after
        for line in context.placement.lines
        for before, behind in pairwise(line)
        for seat, after, step in ((before, behind, True), (behind, before, False))
    }
    passes = [(forward, chunk) for chunk in range(context.placement.chunks) for forward in (True, False)]
    for index, member in enumerate(members):
        for forward, chunk in passes:
            seat = neighbours.get((Seat(member.stage, chunk), forward))
            if seat is None or seat.stage == member.stage:
                continue
            target = number[member.replica.replica, seat.stage, member.context, member.tensor]
            elements = context.placement.message_elements(seats[Seat(member.stage, chunk)], seats[seat])
            cost = _message(context, member, seat.stage, elements, costs)
            context.channels.append(ChannelSpec(source=index, target=target, cost=cost))
            out[index, forward, chunk] = into[target, forward, seat.chunk] = len(context.channels) - 1
    keys = [(index, forward, chunk) for index in range(len(members)) for forward, chunk in passes]
    return {key: (into.get(key), out.get(key)) for key in keys}


def _message(
    context: Context, member: Member, to_stage: int, elements: int, known: dict[tuple[bool, int, int], TransferCost]
) -> TransferCost:
    """Return the cost of a micro-batch's boundary tensor, `elements` a sample, from a member's stage to another of its replica."""
    placement, replica = context.placement, member.replica.replica
    crosses = placement.domain(member.stage, replica) != placement.domain(to_stage, replica)
    if (crosses, member.flows, elements) not in known:
        known[crosses, member.flows, elements] = _boundary_cost(context, member, elements, crosses=crosses)
    return known[crosses, member.flows, elements]


def boundary_bytes(context: Context, elements: int) -> float:
    """Return the bytes that one rank sends of a tensor of so many elements per sample between two stages."""
    plan = context.placement.plan
    size = elements * plan.micro_batch * context.numbers.element_bytes / plan.cp
    return size / (plan.tp if plan.sequence_parallel or context.software.scatter_gather else 1)


def _boundary_cost(context: Context, member: Member, elements: int, *, crosses: bool) -> TransferCost:
    placement, plan = context.placement, context.placement.plan
    size = elements * plan.micro_batch * context.numbers.element_bytes / plan.cp
    cost = send(boundary_bytes(context, elements), placement.cluster, crosses=crosses, flows=member.flows)
    if not context.software.scatter_gather or plan.sequence_parallel or plan.tp == 1:
        return cost
    gather = context.cost("all_gather", size, placement.tensor_span(member.stage, member.replica.replica))
    return replace(cost, latency_s=cost.latency_s + gather.total_s)
