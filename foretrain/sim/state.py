"""Parameters of a stage and the bytes of training state that one rank keeps for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.model import Block
from foretrain.sim.placement import Placement
from foretrain.sim.plan import Plan
from foretrain.sim.precision import Numbers

FP32_BYTES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Blocks whose parameters are gathered and reduced together: one layer, or the ends of the model."""

    block: Block
    layer: bool
    parameters: float
    """Held by one tensor-parallel rank."""
    trained: float
    """Those of them that are not frozen: they have gradients and optimizer state."""
    experts: float = 0.0
    """Those of `parameters` that expert parallelism spreads: fewer ranks hold the same ones."""
    experts_trained: float = 0.0
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
    optimizer_bytes: float
    experts_trained: float
    """Those of `trained` that expert parallelism spreads."""
    updated: float
    """Parameters that this rank's optimizer updates."""


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


def stage_states(placement: Placement, numbers: Numbers) -> tuple[StageState, ...]:
    """Return the units and the resident bytes of one rank of every stage."""
    layers = {id(block): _unit(block, placement.plan, layer=True) for block, _ in placement.model.layers}
    return tuple(_stage_state(placement, numbers, stage, layers) for stage in range(placement.plan.pp))


def _stage_state(placement: Placement, numbers: Numbers, stage: int, layers: dict[int, Unit]) -> StageState:
    plan = placement.plan
    units = tuple(_chunk_units(placement, stage, chunk, layers) for chunk in range(placement.chunks))
    parameters = sum(unit.parameters for chunk in units for unit in chunk)
    trained = sum(unit.trained for chunk in units for unit in chunk)
    state = numbers.state
    spread = sum(sharded_bytes(unit.block, plan.dp) for chunk in units for unit in chunk)
    experts = sum(unit.experts for chunk in units for unit in chunk)
    experts_trained = sum(unit.experts_trained for chunk in units for unit in chunk)
    # Fewer ranks hold the same experts, so fewer share one copy of their state.
    updated = (trained - experts_trained) / plan.shards + experts_trained / plan.expert_shards
    whole = plan.zero != 3  # every rank keeps what it computes with
    kept, kept_trained = (parameters, trained) if whole else ((parameters - experts) / plan.shards + experts / plan.expert_shards, updated)
    return StageState(
        units=units,
        parameters=parameters,
        trained=trained,
        experts_trained=experts_trained,
        parameter_bytes=kept_trained * state.parameter_bytes + (kept - kept_trained) * _frozen_bytes(numbers) + spread,
        gradient_bytes=kept_trained * state.gradient_bytes,
        optimizer_bytes=updated * (state.master_bytes + numbers.optimizer_bytes),
        updated=updated,
    )


def _frozen_bytes(numbers: Numbers) -> float:
    """Return the bytes of a frozen parameter: where a framework keeps only a master copy of trained ones, the compute dtype is enough."""
    return numbers.state.parameter_bytes or numbers.element_bytes


def _chunk_units(placement: Placement, stage: int, chunk: int, layers: dict[int, Unit]) -> tuple[Unit, ...]:
    """Return the units of one model chunk: the ends of the model where they sit, and its layers."""
    plan, model = placement.plan, placement.model
    index, last = placement.part(stage, chunk), len(placement.chunk_layers) - 1
    units = [layers[id(block)] for block in placement.chunk_layers[index]]
    if index == 0:
        units = [_unit(block, plan, layer=False) for block in model.prologue] + units
    if index == last:
        ends = [replace(_unit(block, plan, layer=False), deferred=plan.defer_embedding_wgrad) for block in model.epilogue]
        together = any(placement.part(stage, other) == 0 for other in range(placement.chunks))
        units += _untied(ends, model.tied_parameters / plan.tp, trained=model.tied_trained) if together else ends
    return tuple(units)


def _untied(units: list[Unit], tied: float, *, trained: bool) -> list[Unit]:
    """Return the units of the epilogue without the parameters that it shares with a prologue on the same rank."""
    result = []
    for unit in units:
        shared = min(unit.parameters, tied)
        tied -= shared
        result.append(replace(unit, parameters=unit.parameters - shared, trained=unit.trained - (shared if trained else 0.0)))
    return result


def _unit(block: Block, plan: Plan, *, layer: bool) -> Unit:
    tp, ep = plan.tp, plan.ep
    experts, experts_trained = expert_parameters(block, tp, ep)
    return Unit(
        block=block, layer=layer, parameters=block_parameters(block, tp, ep), trained=trained_parameters(block, tp, ep),
        experts=experts, experts_trained=experts_trained,
    )  # fmt: skip
