"""Buckets of gradients that replicas reduce together: whole tensors in the order in which backward makes them, up to a size.

**Source:** Li et al., PyTorch Distributed, arXiv:2006.15704, section 3.2.3, and PyTorch, `reducer.cpp`
(`compute_bucket_assignment_by_size`: a bucket is full with the tensor that reaches its limit; buckets are made anew in the order of the
first step's gradients); Megatron-LM, `param_and_grad_buffer.py` (parameters in reverse, the same rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foretrain.models.matmul import Linear
from foretrain.models.ops import Op
from foretrain.sim.plan import Plan
from foretrain.sim.state import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """The gradient of one tensor of parameters on one tensor-parallel rank: of an op's weights, or of its bias."""

    op: Op
    elements: float
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientBucket:
    """Gradients that are reduced together, of units from `first` to `last` (exclusive): in the first of them it becomes full."""

    first: int
    last: int
    gradients: tuple[Gradient, ...]

    @property
    def parameters(self) -> float:
        """Elements of all gradients."""
        return sum(one.elements for one in self.gradients)

    @property
    def experts(self) -> float:
        """Those of them that expert parallelism spreads."""
        return sum(one.elements for one in self.gradients if one.op.experts)


def buckets(units: Sequence[Unit], plan: Plan, limits: Sequence[float]) -> tuple[GradientBucket, ...]:
    """Return the buckets of a chunk in the order in which backward fills them; `limits` in elements, the last for all that follow."""
    known = {id(unit): gradients_of(unit, plan) for unit in units}
    found: list[GradientBucket] = []
    held: list[Gradient] = []
    last = elements = 0.0
    for index in reversed(range(len(units))):
        for gradient in known[id(units[index])]:
            last = last if held else index + 1
            held.append(gradient)
            elements += gradient.elements
            if elements >= limits[min(len(found), len(limits) - 1)]:
                found.append(GradientBucket(first=index, last=int(last), gradients=tuple(held)))
                held, elements = [], 0.0
    if held:
        found.append(GradientBucket(first=_first(known, units), last=int(last), gradients=tuple(held)))
    return tuple(found)


def _first(known: dict[int, tuple[Gradient, ...]], units: Sequence[Unit]) -> int:
    return next(index for index, unit in enumerate(units) if known[id(unit)])


def gradients_of(unit: Unit, plan: Plan) -> tuple[Gradient, ...]:
    """Return the gradients of a unit in the order in which backward makes them: a bias's sum is done before its weights' product."""
    found = [one for op in reversed(tuple(unit.block.ops)) if op.trained and not op.sharded for one in _of(op, plan)]
    return tuple(one for one in _untied(found, unit.trained) if one.elements)


def _of(op: Op, plan: Plan) -> tuple[Gradient, ...]:
    held = op.parameters_per_rank(plan.tp, plan.ep)
    if not isinstance(op, Linear) or not op.bias or op.shared:
        return (Gradient(op=op, elements=held),)
    bias = op.out_features / (plan.tp if op.parameters_cut else 1)
    return Gradient(op=op, elements=bias, bias=True), Gradient(op=op, elements=held - bias)


def _untied(gradients: list[Gradient], trained: float) -> list[Gradient]:
    """Return the gradients without that of a table, the largest of them, which another unit of this rank makes whole and counts."""
    spare = sum(one.elements for one in gradients) - trained
    if spare <= 0.0:
        return gradients
    largest = max(gradients, key=lambda one: one.elements)
    return [
        Gradient(op=one.op, elements=max(0.0, one.elements - spare), bias=one.bias) if one is largest else one for one in gradients
    ]
