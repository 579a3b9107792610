"""Training with products in 8 or 4 bits: what each recipe of scaling casts and keeps, and which products it is for.

The products of a model's layers run in few bits; attention's core, norms, embeddings, the head and adapters stay in 16. A cast reads 2
bytes an element and writes the element with its share of the scales; where the scale is that of a whole tensor or column of now, a
pass before it reads the 2 bytes for the largest magnitude.

**Source:** Micikevicius et al., arXiv:2209.05433 (formats, scaling per tensor); NVIDIA Transformer Engine user guide, "Using FP8" (delayed
scaling, transposed copies, weights cast in the first micro-batch); PyTorch torchao.float8 (dynamic scaling, operands kept in 16 bits,
gather in fp8); DeepSeek-V3, arXiv:2412.19437, section 3.3 (blocks of 128); OCP Microscaling Formats 1.0 (32 elements a scale);
NVIDIA, arXiv:2509.25149 (NVFP4: 16 elements a scale).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.errors import RecipeError
from foretrain.hardware.accelerator import Accelerator
from foretrain.models.casts import Cast, Casts
from foretrain.models.experts import GroupedLinear
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model
from foretrain.sim.placement import Placement
from foretrain.sim.plan import Plan
from foretrain.software.profile import Software

HIGH_BYTES = 2.0
MASTER_BYTES = 4.0
EXPERTS_STAY = "products of experts stay in 16 bits"
MULTIPLE = 16
"""Products in few bits take inner dimensions in multiples of 16 elements; others stay in 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """A recipe of scaling, as facts.

    `both_ways` writes an operand and its transpose in one pass and keeps the latter for backward; else backward casts the 16-bit
    operand again. `looks_first` reads a tensor for its scale before it is cast, along its rows; `looks_across` does so for casts along
    its columns, which backward needs. `weights_kept` casts weights once a step where they stay whole through it.
    """

    dtype: str
    element_bytes: float
    both_ways: bool
    looks_first: bool
    looks_across: bool
    weights_kept: bool

    @property
    def row_cast(self) -> Cast:
        """A cast for forward's products."""
        return _cast(self.element_bytes, looks=self.looks_first)

    @property
    def column_cast(self) -> Cast:
        """A cast for products over the rows."""
        return _cast(self.element_bytes, looks=self.looks_across)

    @property
    def full_cast(self) -> Cast:
        """A cast in both directions."""
        if self.both_ways:
            return _cast(2 * self.element_bytes, looks=self.looks_first)
        row, column = self.row_cast, self.column_cast
        return Cast(moved_bytes=row.moved_bytes + column.moved_bytes, launches=row.launches + column.launches)


def _cast(written_bytes: float, *, looks: bool) -> Cast:
    return Cast(moved_bytes=HIGH_BYTES * (2 if looks else 1) + written_bytes, launches=2 if looks else 1)


SCALINGS = {
    "delayed": Scaling(dtype="fp8", element_bytes=1.0, both_ways=True, looks_first=False, looks_across=False, weights_kept=True),
    "tensorwise": Scaling(dtype="fp8", element_bytes=1.0, both_ways=False, looks_first=True, looks_across=True, weights_kept=False),
    "rowwise": Scaling(dtype="fp8", element_bytes=1.0, both_ways=False, looks_first=False, looks_across=True, weights_kept=False),
    "block": Scaling(dtype="fp8", element_bytes=1 + 4 / 128, both_ways=True, looks_first=False, looks_across=False, weights_kept=True),
    "mxfp8": Scaling(dtype="mxfp8", element_bytes=1 + 1 / 32, both_ways=True, looks_first=False, looks_across=False, weights_kept=True),
    "nvfp4": Scaling(dtype="nvfp4", element_bytes=1 / 2 + 1 / 16, both_ways=True, looks_first=False, looks_across=False, weights_kept=True),
}


def scaling(precision: str, software: Software) -> Scaling | None:
    """Return the recipe of scaling that a precision means under a software; None where products run in 16 bits and more.

    `fp8` is the framework's own; `fp8-rowwise` and the like name one.
    """
    if precision in SCALINGS:
        return SCALINGS[precision]
    if precision.partition("-")[0] != "fp8":
        return None
    return SCALINGS[precision.partition("-")[2] or software.fp8_scaling]


def gathers_few_bits(precision: str, software: Software) -> bool:
    """Return whether sharded parameters of the layers are cast before they are gathered: per-tensor scales, which are known then."""
    found = scaling(precision, software)
    return software.fp8_gather and found is not None and found is SCALINGS["tensorwise"]


def check_rate(precision: str, used: Scaling, accelerator: Accelerator) -> None:
    """Refuse an accelerator without the rate.

    Raises:
        RecipeError: names what it has.
    """
    if used.dtype in accelerator.peak_flop_per_s:
        return
    known = ", ".join(name for name in ("fp8", "mxfp8", "nvfp4", "bf16", "fp16") if name in accelerator.peak_flop_per_s)
    remedy = f"use one of {known}, or add peak.{used.dtype} to its profile"
    raise RecipeError(f"{accelerator.name} has no {used.dtype} rate, which precision {precision} needs; {remedy}")


def in_few_bits(placement: Placement, software: Software) -> Placement:
    """Return the placement with the products of its layers in few bits, where the recipe says so.

    Raises:
        RecipeError: where no product of a layer could be.
    """
    cluster, plan = placement.cluster, placement.plan
    model = model_in_few_bits(placement.model, placement.recipe.precision, cluster.accelerator, software, plan)
    if model is placement.model:
        return placement
    blocks = {id(old): new for (old, _), (new, _) in zip(placement.model.layers, model.layers, strict=True)}
    chunks = tuple(tuple(blocks[id(block)] for block in chunk) for chunk in placement.chunk_layers)
    return replace(placement, model=model, chunk_layers=chunks)


def model_in_few_bits(model: Model, precision: str, accelerator: Accelerator, software: Software, plan: Plan) -> Model:
    """Return the model with the products of its layers in few bits; itself where the precision is none of few bits.

    Raises:
        RecipeError: where the accelerator has no such rate, or no product of a layer could run so.
    """
    used = scaling(precision, software)
    if used is None:
        return model
    check_rate(precision, used, accelerator)
    casts = _casts(used, plan, gathered=gathers_few_bits(precision, software))
    blocks = {id(block): _block(block, casts, plan.tp) for block, _ in model.layers}
    if not any(isinstance(op, Linear) and op.casts for block in blocks.values() for op in block.ops):
        raise RecipeError(f"no layer of {model.name} has products that run in {precision}; use bf16 or fp16")
    experts = any(isinstance(op, GroupedLinear) for block, _ in model.layers for op in block.ops)
    layers = tuple((blocks[id(block)], count) for block, count in model.layers)
    return replace(model, layers=layers, assumed=(*model.assumed, *(EXPERTS_STAY,) * experts))


def _casts(used: Scaling, plan: Plan, *, gathered: bool) -> Casts:
    """Return the casts of a plan: weights are cast once a step, in every pass, or each shard of them before it is gathered."""
    nothing = Cast()
    kept = used.weights_kept and plan.zero < 3
    shard = Cast(moved_bytes=(MASTER_BYTES + used.element_bytes) / plan.shards, launches=1)
    if kept:
        weights, weights_again, step = nothing, nothing, used.full_cast
    elif gathered and plan.zero >= 2:
        weights, weights_again, step = shard, shard, nothing
    else:
        weights, weights_again, step = used.row_cast, used.column_cast, nothing
    return Casts(
        dtype=used.dtype,
        element_bytes=used.element_bytes,
        inputs=used.full_cast if used.both_ways else used.row_cast,
        inputs_again=nothing if used.both_ways else used.column_cast,
        gradients=used.full_cast,
        weights=weights,
        weights_again=weights_again,
        weights_a_step=step,
        saved_bytes=used.element_bytes if used.both_ways else None,
    )


def _block(block: Block, casts: Casts, tp: int) -> Block:
    steps = tuple(replace(step, casts=casts) if isinstance(step, Linear) and _fits(step, tp) else step for step in block.steps)
    return replace(block, steps=steps)


def _fits(linear: Linear, tp: int) -> bool:
    ins = linear.in_features // (tp if linear.cut == "row" else 1)
    outs = linear.out_features // (tp if linear.cut == "column" else 1)
    return ins % MULTIPLE == 0 and outs % MULTIPLE == 0


def cast_parameters(block: Block, tp: int) -> float:
    """Return the parameters of a block that one tensor-parallel rank holds and runs in few bits."""
    return sum(op.parameters_per_rank(tp) for op in block.ops if isinstance(op, Linear) and op.casts is not None)


def casts_of(block: Block) -> Casts | None:
    """Return how the products of a block come to few bits; None where they do not."""
    return next((op.casts for op in block.ops if isinstance(op, Linear) and op.casts is not None), None)
