"""Parameters of a stage and the bytes of training state that one rank keeps for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.model import Block
from foretrain.sim.placement import Placement
from foretrain.sim.precision import Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Blocks whose parameters are gathered and reduced together: one layer, or the ends of the model."""

    block: Block
    layer: bool
    parameters: float
    """Held by one tensor-parallel rank."""
    deferred: bool = False
    """The gradients of its weights run at the end of the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """What one rank of a stage holds. Bytes per rank."""

    units: tuple[tuple[Unit, ...], ...]
    """Per model chunk, in forward order."""
    parameters: float
    parameter_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    updated: float
    """Parameters that this rank's optimizer updates."""


def block_parameters(block: Block, tp: int) -> float:
    """Return the parameters of a block that one tensor-parallel rank holds."""
    return sum(op.parameters_per_rank(tp) for op in block.ops)


def stage_states(placement: Placement, numbers: Numbers) -> tuple[StageState, ...]:
    """Return the units and the resident bytes of one rank of every stage."""
    layers = {id(block): _unit(block, placement.plan.tp, layer=True) for block, _ in placement.model.layers}
    return tuple(_stage_state(placement, numbers, stage, layers) for stage in range(placement.plan.pp))


def _stage_state(placement: Placement, numbers: Numbers, stage: int, layers: dict[int, Unit]) -> StageState:
    plan = placement.plan
    units = tuple(_chunk_units(placement, stage, chunk, layers) for chunk in range(placement.chunks))
    parameters = sum(unit.parameters for chunk in units for unit in chunk)
    state = numbers.state
    everything = plan.shards if plan.zero == 3 else 1
    updated = parameters / plan.shards
    return StageState(
        units=units,
        parameters=parameters,
        parameter_bytes=parameters * state.parameter_bytes / everything,
        gradient_bytes=parameters * state.gradient_bytes / everything,
        optimizer_bytes=updated * (state.master_bytes + numbers.optimizer_bytes),
        updated=updated,
    )


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
        units += _untied(ends, model.tied_parameters / plan.tp) if together else ends
    return tuple(units)


def _untied(units: list[Unit], tied: float) -> list[Unit]:
    """Return the units of the epilogue without the parameters that it shares with a prologue on the same rank."""
    result = []
    for unit in units:
        shared = min(unit.parameters, tied)
        tied -= shared
        result.append(replace(unit, parameters=unit.parameters - shared))
    return result


def _unit(block: Block, tp: int, *, layer: bool) -> Unit:
    return Unit(block=block, layer=layer, parameters=block_parameters(block, tp))
