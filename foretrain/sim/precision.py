"""What a precision means in bytes and math units."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import RecipeError
from foretrain.hardware.accelerator import Accelerator
from foretrain.sim.low_precision import gathers_few_bits, scaling
from foretrain.sim.recipe import Recipe
from foretrain.software.profile import Software, TrainingState

ELEMENT_BYTES = {"fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0}
OPTIMIZER_BYTES = {"sgd": 0.0, "momentum": 4.0, "adam": 8.0, "adamw": 8.0}
"""fp32 state per parameter beside the master copy: nothing, one momentum, two moments (Kingma and Ba, arXiv:1412.6980)."""

FULL = TrainingState(parameter_bytes=4.0, gradient_bytes=4.0, master_bytes=0.0, gather_bytes=4.0, reduce_bytes=4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Dtype of matrix math, bytes of an activation element, and bytes per parameter of the training state.

    `product_dtype` is that of the layers' products, the peak of which a step is measured by; `gather_bytes` are those of a parameter
    that a layer's products use, on the wire.
    """

    dtype: str
    product_dtype: str
    gather_bytes: float
    element_bytes: float
    state: TrainingState
    optimizer_bytes: float


def numbers(recipe: Recipe, accelerator: Accelerator, software: Software, *, sharded: bool) -> Numbers:
    """Return the numbers of a recipe on an accelerator.

    Raises:
        RecipeError: where the accelerator has no rate for the precision.
    """
    few = scaling(recipe.precision, software)
    dtype = recipe.precision if few is None else "bf16"
    if dtype not in accelerator.peak_flop_per_s:
        known = ", ".join(name for name in ELEMENT_BYTES if name in accelerator.peak_flop_per_s)
        remedy = f"use one of {known}, or add peak.{dtype} to its profile"
        raise RecipeError(f"{accelerator.name} has no {dtype} rate; {remedy}")
    mixed = dtype in ("fp16", "bf16")
    state = software.state if mixed else FULL
    if not sharded and state.parameter_bytes == 0.0:
        state = FULL if not mixed else _resident(state)
    return Numbers(
        dtype=dtype,
        product_dtype=dtype if few is None else few.dtype,
        gather_bytes=few.element_bytes if few is not None and gathers_few_bits(recipe.precision, software) else state.gather_bytes,
        element_bytes=ELEMENT_BYTES[dtype],
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
