"""What one rank puts on the wire in one step: collectives and messages in the order of the program that the engine plays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foretrain.errors import UsageError
from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Model
from foretrain.sim.collectives import TransferCost
from foretrain.sim.lower import lower
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.program import COMPUTE, ISSUE, RECEIVE, SEND, SEND_AND_WAIT, Instruction, Job
from foretrain.sim.recipe import Recipe
from foretrain.sim.segment import PIPELINE
from foretrain.software.profile import Software


@dataclass(frozen=True, slots=True, kw_only=True)
class WireEntry:
    """One collective or message. `size_bytes` are those of the full tensor: what a gather makes, what a reduction takes in.

    `group` is the breakdown class of those who take part (`data_parallel`, `tensor_parallel`, …), `ranks` how many they are.
    """

    op: str
    size_bytes: float
    group: str
    ranks: int


def collectives(model: Model, cluster: Cluster, plan: Plan, recipe: Recipe, software: Software, *, stage: int = 0) -> tuple[WireEntry, ...]:
    """Return what a rank of a pipeline stage puts on the wire in one step, in order; collectives of one rank are none.

    Raises:
        PlanError, RecipeError, ModelError: as `simulate`.
        UsageError: where the pipeline has no such stage.
    """
    if not 0 <= stage < plan.pp:
        raise UsageError(f"stage={stage} is none of the pipeline's {plan.pp}; give 0 to {plan.pp - 1}")
    model = model.at_sequence(recipe.seq_len).at_image(recipe.image_size)
    job = lower(place(model, cluster, plan, recipe), software).job
    program = next(one for one in job.programs if one.stage == stage)
    steps = (step for repeat in program.repeats for _ in range(repeat.times) for step in repeat.body)
    return tuple(entry for step in steps for entry in _entries(step, job))


def _entries(step: Instruction, job: Job) -> Iterator[WireEntry]:
    if step.opcode == COMPUTE:
        for leg in step.operand.legs:
            yield from _entry(leg.transfer, leg.kind)
    elif step.opcode == ISSUE:
        spec = job.collectives[step.operand]
        yield from _entry(spec.cost, spec.kind)
    elif step.opcode in (SEND, SEND_AND_WAIT):
        yield from _entry(job.channels[step.operand].cost, PIPELINE)
    elif step.opcode == RECEIVE:
        yield from _entry(job.channels[step.operand].cost, PIPELINE, op="recv")


def _entry(cost: TransferCost | None, group: str, op: str = "") -> Iterator[WireEntry]:
    """Yield what a transfer carries; nothing of copies that go over no wire."""
    if cost is not None and cost.payload is not None:
        payload = cost.payload
        yield WireEntry(op=op or payload.op, size_bytes=payload.size_bytes, group=group, ranks=payload.ranks)
