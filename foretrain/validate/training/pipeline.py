"""Pipelines of a layered network through torch.distributed.pipelining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage, schedules

from foretrain.sim.plan import Plan
from foretrain.validate.training.layered import Layered
from foretrain.validate.training.ranks import Ranks

SCHEDULES: Mapping[str, Any] = {
    "gpipe": schedules.ScheduleGPipe,
    "1f1b": schedules.Schedule1F1B,
    "interleaved-1f1b": schedules.ScheduleInterleaved1F1B,
    "looped-bfs": schedules.ScheduleLoopedBFS,
    "zb-h1": schedules.ScheduleInterleavedZeroBubble,  # with one chunk a stage, as torch's own comment says
    "interleaved-zb": schedules.ScheduleInterleavedZeroBubble,
    "zb-v": schedules.ScheduleZBVZeroBubble,
    "dualpipe-v": schedules.ScheduleDualPipeV,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One process's place in a pipeline. `step()` runs forward and backward of all micro-batches and returns the losses it knows."""

    schedule: Any
    inputs: torch.Tensor | None
    targets: torch.Tensor | None

    def step(self) -> list[torch.Tensor]:
        """Return the losses of the micro-batches where the model ends, none elsewhere."""
        losses: list[torch.Tensor] = []
        rows = () if self.inputs is None else (self.inputs,)
        self.schedule.step(*rows, target=self.targets, losses=losses, return_outputs=False)
        return [one.detach() for one in losses]


def parts_here(plan: Plan, stage: int) -> list[int]:
    """Return the numbers of the model's parts that a stage holds, as the schedule seats them."""
    line = plan.schedule.seats.lines(stages=plan.pp, chunks=plan.vpp)[0]
    return [part for part, seat in enumerate(line) if seat.stage == stage]


def chunk(net: Layered, plan: Plan, part: int) -> Layered:
    """Return one part of a network: its blocks, as the plan counts them or evenly, and the ends where they sit."""
    parts = plan.pp * plan.vpp
    counts = plan.layers_per_stage or (len(net.blocks) // parts,) * parts
    first = sum(counts[:part])
    blocks = net.blocks[first : first + counts[part]]
    return Layered(net.stem if part == 0 else None, blocks, net.head if part == parts - 1 else None)


def pipeline(
    chunks: Sequence[nn.Module], ranks: Ranks, batch: tuple[torch.Tensor, torch.Tensor], loss: Callable[..., Any], microbatches: int
) -> Pipeline:
    """Return the pipeline of the chunks that this process holds; `batch` is that of its replica, in whole."""
    plan, device = ranks.plan, batch[0].device
    mesh = ranks.group("pp")
    assert mesh is not None
    numbers, parts = parts_here(plan, ranks.at("pp")), plan.pp * plan.vpp
    stages = [
        PipelineStage(one, number, parts, device, group=mesh.get_group()) for one, number in zip(chunks, numbers, strict=True)
    ]
    make = SCHEDULES[plan.schedule.name]
    several = issubclass(make, schedules.PipelineScheduleMulti)
    schedule = make(stages if several else stages[0], microbatches, loss_fn=loss)
    inputs, targets = (batch[0] if 0 in numbers else None), (batch[1] if parts - 1 in numbers else None)
    return Pipeline(schedule=schedule, inputs=inputs, targets=targets)
