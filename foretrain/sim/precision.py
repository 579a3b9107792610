"""What a precision means in bytes and math units."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.errors import RecipeError
from foretrain.hardware.accelerator import Accelerator
from foretrain.sim.low_precision import gathers_few_bits, scaling
from foretrain.sim.optimizer_rules import RULES
from foretrain.sim.recipe import Recipe
from foretrain.software.profile import Software, TrainingState

MIXED_BYTES = 2.0
ELEMENT_BYTES = {"fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0}
FULL = TrainingState(parameter_bytes=4.0, gradient_bytes=4.0, master_bytes=0.0, gather_bytes=4.0, reduce_bytes=4.0)
FULL_SHARDED = replace(FULL, parameter_bytes=0.0, master_bytes=4.0)
"""Of a framework that has no whole copy of sharded parameters."""


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
    if RULES[recipe.optimizer].sides and "fp32" not in accelerator.peak_flop_per_s:
        remedy = "use muon or adamw, or add peak.fp32 to its profile"
        raise RecipeError(f"{accelerator.name} has no fp32 rate, which {recipe.optimizer} needs; {remedy}")
    mixed = dtype in ("fp16", "bf16")
    state = _mixed(software, dtype) if mixed else FULL if software.state.parameter_bytes or not sharded else FULL_SHARDED
    if mixed and recipe.master_weights is not None:
        state = _mastered(state, kept=recipe.master_weights)
    if not sharded and state.parameter_bytes == 0.0:
        state = FULL if not mixed else _resident(state)
    if recipe.grad_dtype is not None:
        state = _accumulated(state, software, ELEMENT_BYTES[recipe.grad_dtype])
    return Numbers(
        dtype=dtype,
        product_dtype=dtype if few is None else few.dtype,
        gather_bytes=few.element_bytes if few is not None and gathers_few_bits(recipe.precision, software) else state.gather_bytes,
        element_bytes=ELEMENT_BYTES[dtype],
        state=state,
        optimizer_bytes=RULES[recipe.optimizer].state_bytes,
    )


def _mixed(software: Software, dtype: str) -> TrainingState:
    """Return what a framework keeps in a 16-bit dtype."""
    return software.state_fp16 if dtype == "fp16" and software.state_fp16 is not None else software.state


def _accumulated(state: TrainingState, software: Software, size: float) -> TrainingState:
    """Return the state with gradients summed and reduced in `size` bytes; in 16 bits, updates read a copy in fp32 where they do in fp16."""
    copied = software.state_fp16.main_gradient_bytes if software.state_fp16 is not None and size < FULL.gradient_bytes else 0.0
    working = state.working_gradient_bytes if size >= FULL.gradient_bytes else 0.0
    return replace(state, gradient_bytes=size, reduce_bytes=size, main_gradient_bytes=copied, working_gradient_bytes=working)


def _mastered(state: TrainingState, *, kept: bool) -> TrainingState:
    """Return the state with an fp32 master copy of 16-bit weights, or with those weights alone."""
    if kept:
        return state if state.master_bytes or state.parameter_bytes > MIXED_BYTES else replace(state, master_bytes=FULL.parameter_bytes)
    if state.parameter_bytes:
        return replace(state, parameter_bytes=MIXED_BYTES, master_bytes=0.0)
    return replace(state, master_bytes=MIXED_BYTES)


def _resident(state: TrainingState) -> TrainingState:
    """Return the state of a framework that keeps only a master copy, when nothing is sharded: autocast over fp32 weights."""
    return TrainingState(
        parameter_bytes=state.master_bytes,
        gradient_bytes=state.gradient_bytes,
        master_bytes=0.0,
        gather_bytes=state.gather_bytes,
        reduce_bytes=state.master_bytes,
        working_gradient_bytes=state.working_gradient_bytes,
    )
