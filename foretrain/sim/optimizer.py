"""The optimizer step of one rank: bytes it moves, products it runs, launches it makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from foretrain.models.model import Block
from foretrain.models.ops import Kernel, KernelKind
from foretrain.sim.matrices import products, tensor_sizes, trained_tensors
from foretrain.sim.optimizer_rules import FP32_BYTES, OPTIMIZER, RULES, Rule
from foretrain.sim.precision import Numbers
from foretrain.sim.recipe import Recipe
from foretrain.sim.state import StageState
from foretrain.software.profile import Software

UNFUSED_PASSES = 2.5
"""An elementwise optimizer rereads its state for each of its operations: about 2.5 times the traffic of one fused pass (Adam
has 18 elementwise reads and writes of fp32 state where a fused kernel has 7)."""
LIST = 64
"""Tensors that one launch over a list takes, of which torch's kernels hold the addresses of some tens."""
FUSED_LAUNCHES = 4
"""Norm, unscale or clip, update, clear: one multi-tensor launch each."""


def optimizer_kernels(state: StageState, numbers: Numbers, recipe: Recipe, software: Software, shards: int) -> tuple[Kernel, ...]:
    """Return the optimizer step: one streaming kernel for norm, clip, update and clear, and the products of optimizers of matrices."""
    rule = RULES[recipe.optimizer]
    found = products(rule, state.weights, shards=shards, element_bytes=numbers.element_bytes)
    whole = _streaming(state, numbers, recipe, software)
    each = _tensor_by_tensor(whole, state, rule, cleared=not software.drops_gradients) if software.loops_over_tensors else (whole,)
    return (*each, *found)


def _tensor_by_tensor(whole: Kernel, state: StageState, rule: Rule, *, cleared: bool) -> tuple[Kernel, ...]:
    """Return the update as a kernel for each size of tensor: what a processor keeps in its caches differs by size.

    Gradients that are `cleared` take one launch more each.
    """
    sizes = tensor_sizes(_blocks(state), state.tp)
    total = sum(size * count for size, count in sizes.items())
    return tuple(
        replace(whole, moved_bytes=whole.moved_bytes * size * count / total, launches=(rule.eager_launches + cleared) * count)
        for size, count in sorted(sizes.items())
    ) if total else (whole,)  # fmt: skip


def _streaming(state: StageState, numbers: Numbers, recipe: Recipe, software: Software) -> Kernel:
    """Return gradient norm, clip, update of master and moments, and clear, as one kernel."""
    rule = RULES[recipe.optimizer]
    training = numbers.state
    gradient = training.gradient_bytes
    master = training.master_bytes or training.parameter_bytes
    update = gradient + 2 * (master + numbers.optimizer_bytes) + (training.parameter_bytes if training.master_bytes else 0.0)
    norm = 0.0 if recipe.clip == "none" else gradient
    per_parameter = _update_bytes(rule, update, software) + norm + rule.extra_bytes
    # The state of squares moves with the products that read it.
    differing = 0.0 if rule.sides else 2 * state.state_difference
    unscale = gradient + 4.0 if recipe.precision == "fp16" else 0.0
    clear = 0.0 if software.drops_gradients else state.gradient_bytes
    return Kernel(
        name="optimizer",
        kind=KernelKind.STREAM,
        flop=0.0,
        model_flop=0.0,
        classes=OPTIMIZER,
        moved_bytes=state.updated * (per_parameter + unscale) + clear + state.cast_bytes + differing,
        launches=_launches(rule, software, _tensors(state)),
    )


def bookkeeping_s(state: StageState, recipe: Recipe, software: Software) -> float:
    """Return the host's time for the lists of tensors of an update: that of each of its operations, for each tensor; none of a loop.

    What a loop over tensors has for each is part of its launches.
    """
    if software.loops_over_tensors:
        return 0.0
    return software.host.tensor_s * RULES[recipe.optimizer].eager_launches * _tensors(state)


def _tensors(state: StageState) -> int:
    return trained_tensors(_blocks(state))


def _blocks(state: StageState) -> Iterator[Block]:
    return (unit.block for chunk in state.units for unit in chunk)


def _update_bytes(rule: Rule, update: float, software: Software) -> float:
    """Return the bytes per parameter of an update: `update` in one pass, more where it runs operation by operation."""
    if "optimizer" in software.fused:
        return update
    return update * (UNFUSED_PASSES if rule.eager_bytes is None else rule.eager_bytes / _plain_bytes(rule))


def _plain_bytes(rule: Rule) -> float:
    """Return the bytes per parameter of one pass over fp32 gradients, weights and moments."""
    return FP32_BYTES * 3 + 2 * rule.state_bytes


def _launches(rule: Rule, software: Software, tensors: int) -> int:
    """Return the kernels of an update: a few where it is fused, one an operation over lists of tensors, else one a tensor and operation."""
    if "optimizer" in software.fused:
        return FUSED_LAUNCHES
    return rule.eager_launches * (-(-tensors // LIST) if "optimizer_lists" in software.fused else tensors)


def update_kernel(optimizer: str, software: Software, elements: float, tensors: int) -> Kernel:
    """Return the bare update of fp32 tensors, without norm, clip or clearing, as it is timed alone."""
    rule = RULES[optimizer]
    moved = _update_bytes(rule, _plain_bytes(rule), software)
    return Kernel(
        name="optimizer", kind=KernelKind.STREAM, flop=0.0, model_flop=0.0, moved_bytes=elements * moved, classes=OPTIMIZER,
        launches=_launches(rule, software, tensors),
    )  # fmt: skip
