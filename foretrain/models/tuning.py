"""Models of which only a part is trained: frozen blocks, and low-rank adapters beside frozen products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

from foretrain.errors import ModelError, nearest
from foretrain.models.adapter import Adapter
from foretrain.models.attention import CoreAttention
from foretrain.models.embedding import Embedding
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model, Step
from foretrain.models.ops import Boundary, Op
from foretrain.models.still import Still

ALL_LINEAR = "all-linear"
ENDS = ("embedding", "layers", "head")
"""Groups of blocks by place: those before the layers, the layers, those after them."""
SIDES = ("encoder", "decoder")
"""Groups of layers where an encoder stands beside a decoder."""
ACROSS, MEMORY = "cross_kv", "cross.memory"
"""The product that reads the encoder's outputs, and where they enter."""
_MAKES = {
    "cross_queries": (0,), "queries": (0,), "q_up": (0,), "cross_kv": (1, 2), "kv_up": (1, 2), "qkv.queries_values": (0, 2),
    "qkv.keys": (1,),
}  # fmt: skip
"""Which of Q, K and V (0, 1, 2) a product makes, where it is not all of them."""

Tune = Callable[[Block, str, Op], tuple[Op, ...]]
"""Gives an op of a block at a place as it is tuned: trained or not, with what is added beside it."""


def frozen(model: Model, names: Iterable[str]) -> Model:
    """Return the model with the parameters of some blocks frozen: by place (`embedding`, `layers`, `head`) or by a block's own name.

    A table that embedding and head share is frozen with either.

    Raises:
        ModelError: for an unknown name, or where nothing would be left to train.
    """
    wanted = tuple(dict.fromkeys(names))
    known = sorted({*(block.name for block, _ in model.blocks()), *ENDS, *_sides(model)})
    for name in wanted:
        if name not in known:
            raise ModelError(f"{model.name} has no block {name!r} to freeze; use one of {', '.join(known)}{nearest(name, known)}")
    tied = model.tied_parameters > 0 and bool({"embedding", "head"} & {*wanted})

    def tune(block: Block, place: str, op: Op) -> tuple[Op, ...]:
        held = place in wanted or block.name in wanted or _side(block) in wanted or (tied and _is_table(place, op))
        return (_without_gradient(op) if held else op,)

    tuned = replace(_tuned(model, tune), tied_trained=model.tied_trained and not tied)
    if not tuned.trained_parameters:
        raise ModelError(f"freezing {', '.join(wanted)} leaves nothing of {model.name} to train; leave one of them out")
    return replace(
        tuned, name=f"{model.name}, {' and '.join(wanted)} frozen",
        rebuild=None if model.rebuild is None else partial(_frozen_again, model.rebuild, wanted),
    )  # fmt: skip


def with_lora(model: Model, rank: int, targets: Iterable[str]) -> Model:
    """Return the model with all its parameters frozen and adapters of `rank` beside the products that `targets` name.

    A target is a product as it is run here (`qkv`, `projection`, `mlp_up`, `mlp_down`), a part of one under its name in transformers
    (`q_proj`, `gate_proj`, `c_attn`), or `all-linear`: every part in the layers.

    Raises:
        ModelError: for a rank that is none, or a target that no product has.
    """
    wanted = tuple(dict.fromkeys(targets))
    products = [op for block, _ in model.blocks() for op in block.ops if isinstance(op, Linear) and op.parts]
    _check_targets(model, wanted, products)
    _check_rank(model, rank, [part for op in products for part in _chosen(op, wanted)], products)

    def tune(_block: Block, place: str, op: Op) -> tuple[Op, ...]:
        base = _without_gradient(op)
        if place != "layers" or not isinstance(op, Linear):
            return (base,)
        adapters = tuple(_adapter(op, name, width, rank, number) for number, (name, width) in enumerate(_chosen(op, wanted)))
        return (base, *adapters)

    return replace(
        _tuned(model, tune), name=f"{model.name} with LoRA of rank {rank} on {', '.join(wanted)}", tied_trained=False,
        rebuild=None if model.rebuild is None else partial(_lora_again, model.rebuild, rank, wanted),
    )  # fmt: skip


def _side(block: Block) -> str:
    """Return the side of an encoder and decoder that a layer is on; empty where there are none."""
    return next((side for side in SIDES if f"{side}_layer" in block.name), "")


def _sides(model: Model) -> set[str]:
    return {_side(block) for block, _ in model.layers} - {""}


def _frozen_again(rebuild: Callable[[int], Model], names: tuple[str, ...], size: int) -> Model:
    return frozen(rebuild(size), names)


def _lora_again(rebuild: Callable[[int], Model], rank: int, targets: tuple[str, ...], size: int) -> Model:
    return with_lora(rebuild(size), rank, targets)


def _check_targets(model: Model, wanted: Sequence[str], products: Sequence[Linear]) -> None:
    known = dict.fromkeys(name for op in products for name in (op.name, *(part for part, _ in op.parts)))
    if not products:
        raise ModelError(f"{model.name} has no products that adapters could stand beside; train it whole, or freeze parts of it")
    if not wanted:
        raise ModelError(f"LoRA needs targets; use {ALL_LINEAR} or some of {', '.join(known)}")
    for name in wanted:
        if name not in known and name != ALL_LINEAR:
            raise ModelError(f"{model.name} has no product {name!r}; use {ALL_LINEAR} or some of {', '.join(known)}{nearest(name, known)}")


def _check_rank(model: Model, rank: Any, chosen: Sequence[tuple[str, int]], products: Sequence[Linear]) -> None:
    widest = min(max(op.in_features for op in products), max(width for _, width in chosen))
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= widest:
        raise ModelError(f"LoRA rank {rank!r} is none for {model.name}; give a whole number from 1 to {widest:,}, its products' width")


def _chosen(op: Linear, wanted: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return the names and widths of the adapters beside a product: one for all of it, or one for each part that is wanted."""
    if op.name in wanted:
        return ((op.name, op.out_features),) if op.parts else ()
    return tuple((name, width) for name, width in op.parts if name in wanted or ALL_LINEAR in wanted)


def _adapter(op: Linear, name: str, width: int, rank: int, number: int) -> Adapter:
    label = op.name if name == op.name else f"{op.name}.{name}"
    return Adapter(
        name=f"{label}.lora", tokens=op.tokens, in_features=op.in_features, out_features=width, rank=rank, cut=op.cut,
        saves_input=number == 0, shared=op.shared,
    )  # fmt: skip


def _without_gradient(op: Op) -> Op:
    """Return an op whose parameters are frozen; gradients still pass through it."""
    if not op.parameters and not isinstance(op, (Linear, Embedding)):
        return op
    if not _has(op, "trained"):
        raise ModelError(f"{op.name} cannot be frozen: {type(op).__name__} makes the gradients of its weights and data at once")
    return replace(op, trained=False)  # type: ignore[type-var]


def _has(op: Op, name: str) -> bool:
    return is_dataclass(op) and name in {field.name for field in fields(op)}


def _is_table(place: str, op: Op) -> bool:
    return (place == "embedding" and isinstance(op, Embedding)) or (place == "head" and isinstance(op, Linear) and op.name == "logits")


def _tuned(model: Model, tune: Tune) -> Model:
    """Return the model with every op tuned, and no gradient that nothing reads: before the first trained op all stands still."""
    flow = start = _Flow(below=False, memory=False)
    done: dict[str, list[tuple[Block, int]]] = {place: [] for place in ENDS}
    groups = zip(ENDS, ([(block, 1) for block in model.prologue], model.layers, [(block, 1) for block in model.epilogue]), strict=True)
    known: dict[tuple[int, _Flow], Block] = {}
    side = ""
    for place, blocks in groups:
        for block, count in blocks:
            if _side(block) == "decoder" and _side(block) != side:
                # Its own rows begin anew: the encoder's trained weights reach it through its outputs only.
                flow = _Flow(below=start.below, memory=flow.memory)
            side = _side(block)
            first = _tuned_block(block, place, tune, flow, known)
            trains = any(op.trained and op.parameters for op in first.ops)
            after = _Flow(below=flow.below or trains, memory=flow.memory or (trains and _side(block) != "decoder"))
            if after == flow or count == 1:
                done[place].append((first, count))
            else:
                done[place] += [(first, 1), (_tuned_block(block, place, tune, after, known), count - 1)]
            flow = after
        start = flow if place == "embedding" else start
    return replace(
        model, prologue=tuple(block for block, _ in done["embedding"]), layers=tuple(done["layers"]),
        epilogue=tuple(block for block, _ in done["head"]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Flow:
    """Whether gradients still have a way to go: to something before (`below`), and through an encoder's outputs (`memory`)."""

    below: bool
    memory: bool


def _tuned_block(block: Block, place: str, tune: Tune, flow: _Flow, known: dict[tuple[int, _Flow], Block]) -> Block:
    key = (id(block), flow)
    if key not in known:
        known[key] = _block(block, place, tune, flow)
    return known[key]


def _block(block: Block, place: str, tune: Tune, flow: _Flow) -> Block:
    steps: list[Step] = []
    below = flow.below
    reached: frozenset[int] = frozenset()
    for step in block.steps:
        if isinstance(step, Boundary):
            steps.append(replace(step, gradient=flow.memory if step.name == MEMORY else below))
            continue
        tuned = tune(block, place, step)
        trains = any(op.trained and op.parameters for op in tuned)
        before = flow.memory if step.name == ACROSS else below
        if isinstance(step, CoreAttention):
            tuned = (replace(step, gradients=None if len(reached) == len(_ALL) else reached, trained=tuned[0].trained),)
            reached = frozenset()
        elif isinstance(step, Linear) and step.saves_output:
            reached |= frozenset(_MAKES.get(step.name, _ALL)) if before else _reached(step, tuned)
        steps += [_placed(op, below=before, needed=before or trains) for op in tuned]
        below = below or trains or before
    return replace(block, steps=tuple(steps))


_ALL = (0, 1, 2)


def _reached(base: Linear, tuned: Sequence[Op]) -> frozenset[int]:
    """Return which of Q, K and V of a product get a gradient, where nothing before it is trained but itself or adapters beside it."""
    makes = _MAKES.get(base.name, _ALL)
    adapted = {op.name for op in tuned if isinstance(op, Adapter)}
    if tuned[0].trained or f"{base.name}.lora" in adapted or (adapted and len(base.parts) != len(makes)):
        return frozenset(makes)
    return frozenset(which for which, (name, _) in zip(makes, base.parts, strict=False) if f"{base.name}.{name}.lora" in adapted)


def _placed(op: Op, *, below: bool, needed: bool) -> Op:
    """Return an op as its place demands: still where no gradient passes, without one of its input where nothing before it trains."""
    if not needed:
        return Still(op=op)
    if isinstance(op, Embedding) and not op.trained:
        return Still(op=op)
    if _has(op, "input_grad"):
        wanted = below and op.input_grad  # type: ignore[attr-defined]
        return replace(op, input_grad=wanted)  # type: ignore[type-var]
    return op
