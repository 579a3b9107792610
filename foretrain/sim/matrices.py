"""The weight matrices of one rank, which optimizers that look at a whole matrix work on, and what those add to a step.

Matrices are the weights of products and experts; tables, filters and vectors count as vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from foretrain.models.experts import GroupedLinear
from foretrain.models.matmul import Linear, gemm_kernel
from foretrain.models.model import Block
from foretrain.models.moves import Moves
from foretrain.models.ops import Gemm, Kernel, Op
from foretrain.sim.optimizer_rules import (
    FP32_BYTES,
    LARGEST_SIDE,
    NEWTON_SCHULZ_STEPS,
    Matrix,
    Rule,
    factor_bytes,
    refreshed_flop,
    side_bytes,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight matrix: as one tensor-parallel rank holds it, whole, and whether it is of a layer rather than of the ends."""

    local: Matrix
    whole: Matrix
    hidden: bool


def weights(blocks: Iterable[tuple[Iterable[Op], bool, int]], tp: int) -> Counter[Weight]:
    """Return the trained matrices of the ops of blocks, each said to be a layer or not and to stand for so many, and how often they are."""
    found: Counter[Weight] = Counter()
    for ops, hidden, copies in blocks:
        for op in ops:
            if isinstance(op, Linear | GroupedLinear) and op.trained and op.parameters:
                found[_weight(op, hidden=hidden, tp=tp)] += copies * (op.experts if isinstance(op, GroupedLinear) else 1)
    return found


def _weight(op: Linear | GroupedLinear, *, hidden: bool, tp: int) -> Weight:
    ins, outs = float(op.in_features), float(op.out_features)
    cut = (ins / tp, outs) if op.cut == "row" else (ins, outs / tp) if op.cut == "column" else (ins, outs)
    return Weight(local=cut, whole=(ins, outs), hidden=hidden)


def state_difference(rule: Rule, found: Counter[Weight]) -> float:
    """Return the bytes that matrices keep beside, or below, the state of as many loose parameters."""
    return sum(count * _difference(rule, weight) for weight, count in found.items())


def _difference(rule: Rule, weight: Weight) -> float:
    elements = weight.local[0] * weight.local[1]
    total = side_bytes(rule, weight.local)
    if rule.factored:
        total += factor_bytes(weight.local) - FP32_BYTES * elements
    if rule.matrix_bytes is not None and weight.hidden:
        total += (rule.matrix_bytes - rule.state_bytes) * elements
    return total


def hidden_elements(found: Counter[Weight]) -> float:
    """Return the parameters of the layers' matrices on one tensor-parallel rank."""
    return sum(count * weight.local[0] * weight.local[1] for weight, count in found.items() if weight.hidden)


def products(rule: Rule, found: Counter[Weight], *, shards: int, element_bytes: float) -> tuple[Kernel, ...]:
    """Return the matrix products of a step: those of squares are shared by the ranks of a shard group, Newton-Schulz is run by each."""
    kernels: list[Kernel] = []
    for weight, count in found.items():
        if rule.orthogonal and weight.hidden:
            kernels += _newton_schulz(weight.whole, count, element_bytes)
        if rule.sides:
            kernels += _preconditioned(rule, weight.local, count / shards)
    return tuple(kernels)


def _newton_schulz(matrix: Matrix, count: int, element_bytes: float) -> list[Kernel]:
    """Return five steps of A = X·Xᵀ, B = b·A + c·A·A, X = a·X + B·X on the short side: 5 (4 m²n + 2 m³) FLOPs.

    **Source:** Jordan et al., Muon (2024), `newtonschulz5`.
    """
    short, long = round(min(matrix)), round(max(matrix))
    shapes = (Gemm(batch=1, m=short, n=short, k=long), Gemm(batch=1, m=short, n=short, k=short), Gemm(batch=1, m=short, n=long, k=short))
    return [_repeated("newton_schulz", gemm, NEWTON_SCHULZ_STEPS * count, element_bytes) for gemm in shapes]


def _preconditioned(rule: Rule, matrix: Matrix, count: float) -> list[Kernel]:
    """Return the products of the squares of each side with the matrix, and their refreshing as products of squares."""
    rows, columns = matrix
    kernels: list[Kernel] = []
    for side, other in ((rows, columns), (columns, rows)):
        if side > LARGEST_SIDE:
            continue
        square = Gemm(batch=1, m=round(side), n=round(other), k=round(side))
        kernels.append(_repeated("precondition", square, ceil(rule.side_products * count), FP32_BYTES, dtype="fp32"))
    flop = refreshed_flop(rule, matrix) * count
    largest = max((side for side in matrix if side <= LARGEST_SIDE), default=0.0)
    if flop and largest:
        deep = Gemm(batch=1, m=round(largest), n=round(largest), k=max(1, round(flop / (2 * largest**2))))
        kernels.append(_repeated("refresh", deep, 1, FP32_BYTES, dtype="fp32"))
    return kernels


def _repeated(name: str, gemm: Gemm, times: int, element_bytes: float, dtype: str | None = None) -> Kernel:
    once = gemm_kernel(name, gemm, element_bytes, 0.0)
    return Kernel(
        name=name, kind=once.kind, flop=once.flop * times, model_flop=0.0, moved_bytes=once.moved_bytes * times, launches=times, gemm=gemm,
        dtype=dtype,
    )  # fmt: skip


def trained_tensors(blocks: Iterable[Block]) -> int:
    """Return how many parameter tensors are trained: a weight an op, and the bias of what has one; norms have both."""
    return sum(tensor_sizes(blocks, 1).values())


def tensor_sizes(blocks: Iterable[Block], tp: int) -> Counter[float]:
    """Return how many trained tensors there are of each size, in parameters of one tensor-parallel rank; blocks alike are one object."""
    each = list(blocks)
    copies, found = Counter(map(id, each)), Counter[float]()
    for block in {id(block): block for block in each}.values():
        for op in block.ops:
            for size in tensors_of(op, op.parameters_per_rank(tp)) if _learns(op) else ():
                found[size] += copies[id(block)]
    return found


def tensors_of(op: Op, held: float) -> tuple[float, ...]:
    """Return the parameters of each tensor of an op, of which a rank holds so many in all."""
    width = getattr(op, "out_features", getattr(op, "out_channels", 0))
    if getattr(op, "bias", False) and width:
        return (held - width * held / op.parameters, width * held / op.parameters) if getattr(op, "own_weight", True) else (held,)
    return (held / 2, held / 2) if is_norm(op) else (held,)


def is_norm(op: Op) -> bool:
    """Return whether an op is a norm, alone or with what is fused into it."""
    traced = isinstance(op, Moves) and any("norm" in name for name, _ in op.forward_pass.classes)
    return traced or "norm" in getattr(op, "pattern", "")


def _learns(op: Op) -> bool:
    return bool(op.parameters and op.trained)
