"""Parameters of a stage and the bytes of training state that one rank keeps for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from foretrain.errors import PlanError
from foretrain.models.model import Block
from foretrain.sim.compression import compression_of
from foretrain.sim.low_precision import cast_parameters, casts_of
from foretrain.sim.matrices import Weight, state_difference, weights
from foretrain.sim.offload_parts import offloaded
from foretrain.sim.optimizer_rules import RULES
from foretrain.sim.placement import Placement
from foretrain.sim.plan import Plan
from foretrain.sim.precision import Numbers
from foretrain.sim.recompute import recomputation
from foretrain.sim.recompute_share import CLASSES, recompute_share
from foretrain.sim.replication import DILOCO, SERVER
from foretrain.software.profile import Software

FP32_BYTES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Blocks whose parameters are gathered and reduced together: one layer, or the ends of the model."""

    block: Block
    layer: bool
    """Whether the recompute policy applies: to layers, and of them to those that the plan names."""
    parameters: float
    """Held by one tensor-parallel rank."""
    trained: float
    """Those of them that are not frozen: they have gradients and optimizer state."""
    gather_bytes: float
    """On the wire when its parameters are gathered, and resident while they are whole."""
    experts: float = 0.0
    """Those of `parameters` that expert parallelism spreads: fewer ranks hold the same ones."""
    experts_trained: float = 0.0
    experts_gather_bytes: float = 0.0
    """Of `gather_bytes`."""
    deferred: bool = False
    """The gradients of its weights run at the end of the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """What one rank of a stage holds. Bytes per rank."""

    units: tuple[tuple[Unit, ...], ...]
    """Per model chunk, in forward order."""
    parameters: float
    trained: float
    parameter_bytes: float
    gradient_bytes: float
    residual_bytes: float
    """Of gradients that compression has not sent."""
    optimizer_bytes: float
    buffer_bytes: float
    """Of communication, which nothing else shares."""
    experts_trained: float
    """Those of `trained` that expert parallelism spreads."""
    updated: float
    """Parameters that this rank's optimizer updates."""
    weights: Counter[Weight]
    """Its trained matrices, as tensor parallelism cuts them."""
    state_difference: float
    """Bytes of the optimizer's state that matrices keep beside what loose parameters would."""
    tp: int
    """Tensor-parallel ranks that share its layers."""
    cast_bytes: float
    """Moved once a step to cast the weights that are kept in few bits for all its micro-batches."""


def block_parameters(block: Block, tp: int, ep: int = 1) -> float:
    """Return the parameters of a block that one rank holds, but for those that are spread over all replicas."""
    return sum(op.parameters_per_rank(tp, ep) for op in block.ops if not op.sharded)


def trained_parameters(block: Block, tp: int, ep: int = 1) -> float:
    """Return those of them that are not frozen."""
    return sum(op.parameters_per_rank(tp, ep) for op in block.ops if op.trained and not op.sharded)


def expert_parameters(block: Block, tp: int, ep: int) -> tuple[float, float]:
    """Return the parameters of experts that one rank holds, and those of them that are not frozen; none where each rank has all experts."""
    if ep == 1:
        return 0.0, 0.0
    ops = [op for op in block.ops if op.experts]
    return sum(op.parameters_per_rank(tp, ep) for op in ops), sum(op.parameters_per_rank(tp, ep) for op in ops if op.trained)


def sharded_bytes(block: Block, ranks: int) -> float:
    """Return the bytes that each of `ranks` data-parallel ranks holds of parameters that are spread over them, in fp32."""
    return sum(op.parameters for op in block.ops if op.sharded) * FP32_BYTES / ranks


def stage_states(placement: Placement, numbers: Numbers, software: Software) -> tuple[StageState, ...]:
    """Return the units and the resident bytes of one rank of every stage."""
    _check_recomputed(placement)
    layers = {
        (id(block), again): _unit(block, placement.plan, numbers, layer=again)
        for block, _ in placement.model.layers
        for again in (False, True)
    }
    return tuple(_stage_state(placement, numbers, software, stage, layers) for stage in range(placement.plan.pp))


def _stage_state(
    placement: Placement, numbers: Numbers, software: Software, stage: int, layers: dict[tuple[int, bool], Unit]
) -> StageState:
    plan = placement.plan
    units = tuple(_chunk_units(placement, numbers, stage, chunk, layers) for chunk in range(placement.chunks))
    counted = _counted(units)
    parameters = sum(unit.parameters * copies for unit, copies in counted)
    trained = sum(unit.trained * copies for unit, copies in counted)
    state = numbers.state
    spread = sum(sharded_bytes(unit.block, plan.dp) * copies for unit, copies in counted)
    experts = sum(unit.experts * copies for unit, copies in counted)
    experts_trained = sum(unit.experts_trained * copies for unit, copies in counted)
    # Fewer ranks hold the same experts, so fewer share one copy of their state.
    updated = plan.shard_of(trained, experts_trained)
    # Where a framework keeps no copy in the compute dtype, parameters rest sharded and are whole only while they are used.
    rests = plan.zero == 3 or (plan.zero == 2 and not state.parameter_bytes)
    kept, kept_trained = (plan.shard_of(parameters, experts), updated) if rests else (parameters, trained)
    cast_bytes, cast_copies = _few_bits(counted, plan.tp)
    layers_of = {id(block) for block, _ in placement.model.layers}
    matrices = weights(((unit.block.ops, id(unit.block) in layers_of, copies) for unit, copies in counted), plan.tp)
    difference = state_difference(RULES[placement.recipe.optimizer], matrices) / plan.shards
    away = offloaded(plan.offload)
    gathered = rests and plan.shards > 1 and software.overlap.gather_copied
    buffers = _bucket_bytes(placement, numbers, software, trained) + (_gathered_bytes(units, layers_of) if gathered else 0.0)
    resident = kept_trained * state.parameter_bytes + (kept - kept_trained) * _frozen_bytes(numbers)
    return StageState(
        units=units,
        parameters=parameters,
        trained=trained,
        experts_trained=experts_trained,
        parameter_bytes=(0.0 if "parameters" in away else resident) + spread + cast_copies,
        gradient_bytes=_gradient_bytes(
            plan, trained * (state.gradient_bytes + state.working_gradient_bytes), updated * state.gradient_bytes
        ),
        residual_bytes=_residual_bytes(plan, trained),
        optimizer_bytes=_optimizer_bytes(
            plan, updated * (state.master_bytes + state.main_gradient_bytes + numbers.optimizer_bytes) + difference, trained
        ),
        buffer_bytes=buffers,
        updated=updated,
        tp=plan.tp,
        cast_bytes=cast_bytes,
        weights=matrices,
        state_difference=difference,
    )


def _counted(units: tuple[tuple[Unit, ...], ...]) -> list[tuple[Unit, int]]:
    """Return the distinct units of a stage, and how many it holds of each: layers alike are one object."""
    each = [unit for chunk in units for unit in chunk]
    copies, distinct = Counter(map(id, each)), {id(unit): unit for unit in each}
    return [(unit, copies[key]) for key, unit in distinct.items()]


def blocks_of(state: StageState) -> list[tuple[Block, int]]:
    """Return the distinct blocks of a stage, and how many it holds of each."""
    return [(unit.block, copies) for unit, copies in _counted(state.units)]


def _few_bits(counted: list[tuple[Unit, int]], tp: int) -> tuple[float, float]:
    """Return the bytes moved once a step to cast weights, and those that both copies of the cast ones take until the next."""
    moved = copies = 0.0
    for unit, many in counted:
        casts = casts_of(unit.block)
        if casts is not None and casts.weights_a_step.launches:
            weights = cast_parameters(unit.block, tp) * many
            moved += weights * casts.weights_a_step.moved_bytes
            copies += weights * 2 * casts.element_bytes
    return moved, copies


def _optimizer_bytes(plan: Plan, own: float, trained: float) -> float:
    """Return what the optimizer keeps on the device: nothing where hosts step; DiLoCo also the last weights and an outer momentum."""
    if "optimizer" in offloaded(plan.offload) or plan.replication == SERVER:
        return 0.0
    return own + (2 * FP32_BYTES * trained if plan.replication == DILOCO else 0.0)


def _gradient_bytes(plan: Plan, whole: float, shard: float) -> float:
    """Return what gradients take between passes: a shard where they are sharded, nothing of it where it goes to the host."""
    if plan.zero < 2:
        return whole
    return 0.0 if "optimizer" in offloaded(plan.offload) else shard


def _bucket_bytes(placement: Placement, numbers: Numbers, software: Software, trained: float) -> float:
    """Return what gradients take that are copied side by side to be reduced."""
    copied = min(software.overlap.copied_elements, trained) if placement.exchanges else 0.0
    return copied * numbers.state.gradient_bytes


def _gathered_bytes(units: tuple[tuple[Unit, ...], ...], layers: set[int]) -> float:
    """Return the buffer that sharded parameters are gathered into: the ends of the model, or a unit, and the one after it.

    **Source:** PyTorch, `torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py`: `foreach_all_gather` allocates its output in the
    stream that copies into it, and `foreach_all_gather_copy_out` copies out of it; what is allocated in a stream is for that stream.
    """
    each = [unit for chunk in units for unit in chunk]
    widest = max((unit.gather_bytes for unit in each if id(unit.block) in layers), default=0.0)
    ends = sum(unit.gather_bytes for unit in each if id(unit.block) not in layers)
    return max(ends, widest) + widest


def _residual_bytes(plan: Plan, trained: float) -> float:
    """Return what compression keeps of gradients that it did not send."""
    compression = compression_of(plan.gradient_compression)
    return trained * FP32_BYTES if compression is not None and compression.residual else 0.0


def _frozen_bytes(numbers: Numbers) -> float:
    """Return the bytes of a frozen parameter: where a framework keeps only a master copy of trained ones, the compute dtype is enough."""
    return numbers.state.parameter_bytes or numbers.element_bytes


def _chunk_units(
    placement: Placement, numbers: Numbers, stage: int, chunk: int, layers: dict[tuple[int, bool], Unit]
) -> tuple[Unit, ...]:
    """Return the units of one model chunk: the ends of the model where they sit, and its layers."""
    plan, model = placement.plan, placement.model
    index, last = placement.part(stage, chunk), len(placement.chunk_layers) - 1
    first = sum(map(len, placement.chunk_layers[:index]))
    units = [layers[id(block), _again(plan, number, first + number)] for number, block in enumerate(placement.chunk_layers[index])]
    if index == 0:
        units = [_unit(block, plan, numbers, layer=False) for block in model.prologue] + units
    if index == last:
        ends = [replace(_unit(block, plan, numbers, layer=False), deferred=plan.defer_embedding_wgrad) for block in model.epilogue]
        together = any(placement.part(stage, other) == 0 for other in range(placement.chunks))
        units += _untied(ends, model.tied_parameters / plan.tp, trained=model.tied_trained) if together else ends
    return tuple(units)


def _again(plan: Plan, in_chunk: int, in_model: int) -> bool:
    """Return whether a layer is one of those that the plan recomputes: the first of a chunk, or every n-th of the model."""
    if plan.recompute_layers is not None:
        return in_chunk < plan.recompute_layers
    return recompute_share(plan.recompute).applies(in_model)


def _check_recomputed(placement: Placement) -> None:
    """Refuse shares of the layers that hold none of them, or more than there are."""
    plan, layers = placement.plan, max(map(len, placement.chunk_layers))
    if plan.recompute_layers is not None and plan.recompute_layers > layers:
        raise PlanError(f"recompute_layers={plan.recompute_layers}, but a model chunk holds {layers} layers; use 1 to {layers}, or none")
    _check_class(placement)
    share, depth = recompute_share(plan.recompute), placement.model.depth
    if share.every > depth:
        raise PlanError(f"recompute={plan.recompute} is for no layer of the {depth} of {placement.model.name}; use :1 to :{depth}")


def _check_class(placement: Placement) -> None:
    """Refuse a class of ops that no layer has."""
    model, policy = placement.model, recompute_share(placement.plan.recompute).policy
    if policy in CLASSES and not any(recomputation(policy, "core_attention").again(block.steps) for block, _ in model.layers):
        raise PlanError(f"recompute={policy}, but no layer of {model.name} has {policy} that could run again; use recompute full or none")


def _untied(units: list[Unit], tied: float, *, trained: bool) -> list[Unit]:
    """Return the units of the epilogue without the parameters that it shares with a prologue on the same rank."""
    result = []
    for unit in units:
        shared = min(unit.parameters, tied)
        tied -= shared
        left = unit.parameters - shared
        gathered = unit.gather_bytes * left / unit.parameters if unit.parameters else 0.0
        result.append(replace(unit, parameters=left, trained=unit.trained - (shared if trained else 0.0), gather_bytes=gathered))
    return result


def _unit(block: Block, plan: Plan, numbers: Numbers, *, layer: bool) -> Unit:
    tp, ep = plan.tp, plan.ep
    experts, experts_trained = expert_parameters(block, tp, ep)
    parameters, few = block_parameters(block, tp, ep), cast_parameters(block, tp)
    gather = numbers.state.gather_bytes
    return Unit(
        block=block, layer=layer, parameters=parameters, trained=trained_parameters(block, tp, ep),
        gather_bytes=(parameters - few) * gather + few * numbers.gather_bytes, experts=experts, experts_trained=experts_trained,
        experts_gather_bytes=experts * gather,
    )  # fmt: skip
