"""What ranks tell each other around an optimizer step: gradients of their own rows, the norm that clips, matrices cut or sharded."""

from __future__ import annotations

from foretrain.errors import PlanError
from foretrain.models.matmul import Linear
from foretrain.models.ops import Op
from foretrain.sim.matrices import hidden_elements, is_norm, tensors_of
from foretrain.sim.optimizer_rules import FP32_BYTES, RULES
from foretrain.sim.passes import Passes
from foretrain.sim.placement import Placement, Span, span
from foretrain.sim.plan import Plan
from foretrain.sim.precision import Numbers
from foretrain.sim.recipe import Recipe
from foretrain.sim.segment import DATA, Leg
from foretrain.sim.state import StageState, blocks_of


def optimizer_exchanges(placement: Placement, stage: int, state: StageState, passes: Passes, numbers: Numbers) -> tuple[Leg, ...]:
    """Return the collectives before the update, each waited for."""
    return (
        *_partial_gradients(placement, state, passes, numbers), *_norm(placement, stage, passes),
        *_whole_matrices(placement, stage, state, passes, numbers),
    )  # fmt: skip


def check_clip(plan: Plan, recipe: Recipe) -> None:
    """Refuse the exchange of a norm that every rank knows.

    Raises:
        PlanError: names what would make it needed.
    """
    if recipe.clip == "global" and plan.shards * plan.tp * plan.pp == 1:
        raise PlanError(
            "clip=global exchanges the norm of gradients that are cut, but every rank has them whole (zero, tp and pp); "
            "leave it out, or use clip none to do without the norm"
        )


def _partial_gradients(placement: Placement, state: StageState, passes: Passes, numbers: Numbers) -> tuple[Leg, ...]:
    """Return the all-reduces of gradients that each tensor-parallel rank has from its rows alone, where sequence parallelism cuts them.

    **Source:** Megatron-LM, `finalize_model_grads.py` (gradients of `sequence_parallel` parameters, side by side in one buffer); PyTorch,
    `torch.distributed.tensor` (partial tensors become whole for each operator that reads them; a row-parallel layer adds its bias before
    the reduction, so that its gradient is whole).
    """
    if not placement.plan.sequence_parallel:
        return ()
    # What comes before the layers, such as tables of positions, works on whole rows, which are cut after it.
    before = {id(block) for block in placement.model.prologue}
    blocks = [(block, copies) for block, copies in blocks_of(state) if id(block) not in before]
    if passes.pricer.software.reduced_on_use:
        norms = [(op, copies) for block, copies in blocks for op in block.ops if _by_rows(op) and is_norm(op)]
        sizes = [size for op, copies in norms for size in tensors_of(op, op.parameters) * copies]
        reads = RULES[placement.recipe.optimizer].gradient_reads
        name, each_bytes = "all-reduce gradient of rows", numbers.state.reduce_bytes
        return tuple(leg for size in sizes for leg in passes.transfers.tensor(name, "all_reduce", size * each_bytes) * reads)
    elements = sum(copies * sum(map(_of_own_rows, block.ops)) for block, copies in blocks)
    return passes.transfers.tensor("all-reduce gradients of rows", "all_reduce", elements * numbers.state.reduce_bytes)


def _of_own_rows(op: Op) -> int:
    """Return the trained parameters of an op that see the rows of one rank only: those of norms, and biases after a reduction."""
    if not op.trained or op.experts:
        return 0
    if isinstance(op, Linear):
        return {"none": op.parameters, "row": op.out_features * (op.bias and not op.shared), "column": 0}[op.cut]
    return op.parameters if _by_rows(op) else 0


def _by_rows(op: Op) -> bool:
    """Return whether an op has parameters for each feature that see the rows of one rank only."""
    return op.trained and op.parameters > 0 and getattr(op, "split", "") == "sequence"


def _norm(placement: Placement, stage: int, passes: Passes) -> tuple[Leg, ...]:
    """Return the all-reduces of the squared norm: over the ranks that hold different gradients, dimension by dimension.

    **Source:** Megatron-LM, `clip_grads.py` (model-parallel group); PyTorch, `FSDP.clip_grad_norm_` (shards).
    """
    if placement.recipe.clip != "global":
        return ()
    plan = placement.plan
    spans: list[Span] = [placement.shard_span(stage)] if plan.shards > 1 else []
    spans += [passes.transfers.spans.tensor] if plan.tp > 1 else []
    if plan.pp > 1:
        stride = placement.strides["pp"]
        spans.append(span(placement.cluster, start=placement.rank(0, 0), stride=stride, ranks=plan.pp, occupied=plan.ranks))
    return tuple(leg for over in spans for leg in _over(passes, "all-reduce norm", "all_reduce", FP32_BYTES, over))


def _over(passes: Passes, name: str, kind: str, size_bytes: float, span: Span) -> tuple[Leg, ...]:
    """Return a collective over a group, as data-parallel communication."""
    return passes.transfers.leg(name, passes.transfers.collective(kind, size_bytes, span), DATA)


def _whole_matrices(placement: Placement, stage: int, state: StageState, passes: Passes, numbers: Numbers) -> tuple[Leg, ...]:
    """Return the gathers that make the layers' matrices whole where an optimizer needs them so.

    **Source:** Liu et al., arXiv:2502.16982, algorithm 1 (gather over data-parallel shards and tensor-parallel cuts, in 16 bits).
    """
    if not RULES[placement.recipe.optimizer].orthogonal:
        return ()
    size = hidden_elements(state.weights) * numbers.element_bytes
    plan = placement.plan
    shards = _over(passes, "all-gather momenta", "all_gather", size, placement.shard_span(stage)) if plan.shards > 1 else ()
    return (*shards, *passes.transfers.tensor("all-gather cut momenta", "all_gather", size * plan.tp))
