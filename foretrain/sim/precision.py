"""What a precision means in bytes and math units."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import RecipeError
from foretrain.hardware.accelerator import Accelerator
from foretrain.sim.recipe import Recipe
from foretrain.software.profile import Software, TrainingState

ELEMENT_BYTES = {"fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0}
OPTIMIZER_BYTES = {"sgd": 0.0, "momentum": 4.0, "adam": 8.0, "adamw": 8.0}
"""fp32 state per parameter beside the master copy: nothing, one momentum, two moments (Kingma and Ba, arXiv:1412.6980)."""

FULL = TrainingState(parameter_bytes=4.0, gradient_bytes=4.0, master_bytes=0.0, gather_bytes=4.0, reduce_bytes=4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Dtype of matrix math, bytes of an activation element, and bytes per parameter of the training state."""

    dtype: str
    element_bytes: float
    state: TrainingState
    optimizer_bytes: float


def numbers(recipe: Recipe, accelerator: Accelerator, software: Software, *, sharded: bool) -> Numbers:
    """Return the numbers of a recipe on an accelerator.

    Raises:
        RecipeError: where the accelerator has no rate for the precision.
    """
    if recipe.precision not in accelerator.peak_flop_per_s:
        known = ", ".join(name for name in ELEMENT_BYTES if name in accelerator.peak_flop_per_s)
        remedy = f"use one of {known}, or add peak.{recipe.precision} to its profile"
        raise RecipeError(f"{accelerator.name} has no {recipe.precision} rate; {remedy}")
    mixed = recipe.precision in ("fp16", "bf16")
    state = software.state if mixed else FULL
    if not sharded and state.parameter_bytes == 0.0:
        state = FULL if not mixed else _resident(state)
    return Numbers(
        dtype=recipe.precision,
        element_bytes=ELEMENT_BYTES[recipe.precision],
        state=state,
        optimizer_bytes=OPTIMIZER_BYTES[recipe.optimizer],
    )


def _resident(state: TrainingState) -> TrainingState:
    """Return the state of a framework that keeps only a master copy, when nothing is sharded: autocast over fp32 weights."""
    return TrainingState(
        parameter_bytes=state.master_bytes,
        gradient_bytes=state.gradient_bytes,
        master_bytes=0.0,
        gather_bytes=state.gather_bytes,
        reduce_bytes=state.master_bytes,
    )
