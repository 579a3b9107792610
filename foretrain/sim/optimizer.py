"""The optimizer step of one rank: bytes it moves, launches it makes."""

from __future__ import annotations

from foretrain.models.ops import Kernel, KernelKind
from foretrain.sim.precision import Numbers
from foretrain.sim.recipe import Recipe
from foretrain.sim.state import StageState
from foretrain.software.profile import Software

UNFUSED_PASSES = 2.5
"""An elementwise optimizer rereads its state for each of its operations: about 2.5 times the traffic of one fused pass (Adam
has 12 elementwise reads and writes of fp32 state where a fused kernel has 5)."""
UNFUSED_LAUNCHES = 12
FUSED_LAUNCHES = 4
"""Norm, unscale or clip, update, clear: one multi-tensor launch each."""


def optimizer_kernel(state: StageState, numbers: Numbers, recipe: Recipe, software: Software) -> Kernel:
    """Return the optimizer step as one streaming kernel: gradient norm, clip, update of master and moments, clear."""
    training = numbers.state
    gradient = training.gradient_bytes
    master = training.master_bytes or training.parameter_bytes
    update = gradient + 2 * (master + numbers.optimizer_bytes) + (training.parameter_bytes if training.master_bytes else 0.0)
    fused = "optimizer" in software.fused
    per_parameter = update * (1.0 if fused else UNFUSED_PASSES) + gradient
    unscale = gradient + 4.0 if recipe.precision == "fp16" else 0.0
    clear = state.gradient_bytes
    return Kernel(
        name="optimizer",
        kind=KernelKind.STREAM,
        flop=0.0,
        model_flop=0.0,
        moved_bytes=state.updated * (per_parameter + unscale) + clear + state.cast_bytes,
        launches=FUSED_LAUNCHES if fused else UNFUSED_LAUNCHES * _tensors(state),
    )


def _tensors(state: StageState) -> int:
    return sum(1 for chunk in state.units for unit in chunk for op in unit.block.ops if op.parameters and op.trained)
