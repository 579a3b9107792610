"""Parameters of a stage and the bytes of training state that one rank keeps for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.model import Block
from foretrain.sim.placement import Placement
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
    updated: float
    """Parameters that this rank's optimizer updates."""


def block_parameters(block: Block, tp: int) -> float:
    """Return the parameters of a block that one tensor-parallel rank holds, but for those that are spread over all replicas."""
    return sum(op.parameters_per_rank(tp) for op in block.ops if not op.sharded)


def trained_parameters(block: Block, tp: int) -> float:
    """Return those of them that are not frozen."""
    return sum(op.parameters_per_rank(tp) for op in block.ops if op.trained and not op.sharded)


def sharded_bytes(block: Block, ranks: int) -> float:
    """Return the bytes that each of `ranks` data-parallel ranks holds of parameters that are spread over them, in fp32."""
    return sum(op.parameters for op in block.ops if op.sharded) * FP32_BYTES / ranks


def stage_states(placement: Placement, numbers: Numbers) -> tuple[StageState, ...]:
    """Return the units and the resident bytes of one rank of every stage."""
    layers = {id(block): _unit(block, placement.plan.tp, layer=True) for block, _ in placement.model.layers}
    return tuple(_stage_state(placement, numbers, stage, layers) for stage in range(placement.plan.pp))


def _stage_state(placement: Placement, numbers: Numbers, stage: int, layers: dict[int, Unit]) -> StageState:
    plan = placement.plan
    units = tuple(_chunk_units(placement, stage, chunk, layers) for chunk in range(placement.chunks))
    parameters = sum(unit.parameters for chunk in units for unit in chunk)
    trained = sum(unit.trained for chunk in units for unit in chunk)
    state = numbers.state
    everything = plan.shards if plan.zero == 3 else 1
    spread = sum(sharded_bytes(unit.block, plan.dp) for chunk in units for unit in chunk)
    updated = trained / plan.shards
    return StageState(
        units=units,
        parameters=parameters,
        trained=trained,
        parameter_bytes=(trained * state.parameter_bytes + (parameters - trained) * _frozen_bytes(numbers)) / everything + spread,
        gradient_bytes=trained * state.gradient_bytes / everything,
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
        units = [_unit(block, plan.tp, layer=False) for block in model.prologue] + units
    if index == last:
        ends = [replace(_unit(block, plan.tp, layer=False), deferred=plan.defer_embedding_wgrad) for block in model.epilogue]
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


def _unit(block: Block, tp: int, *, layer: bool) -> Unit:
    return Unit(block=block, layer=layer, parameters=block_parameters(block, tp), trained=trained_parameters(block, tp))
