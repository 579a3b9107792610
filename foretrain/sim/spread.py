"""Whether context and expert parallelism can cut a model: what they divide, and what they cannot."""

from __future__ import annotations

from math import gcd

from foretrain.errors import PlanError
from foretrain.models.attention import CoreAttention
from foretrain.models.cross_attention import CrossAttention
from foretrain.models.experts import GroupedLinear
from foretrain.models.model import Model
from foretrain.models.moves import Moves
from foretrain.models.ops import Op
from foretrain.models.product import Product
from foretrain.models.still import Still
from foretrain.sim.cut import closest, divisors
from foretrain.sim.plan import Plan

WHOLE = (CrossAttention, Moves, Product)
"""Ops that hold the shapes of whole samples and not of rows: nobody knows which of their numbers context parallelism would cut."""


def check_context(model: Model, plan: Plan) -> None:
    """Refuse a context-parallel degree that cannot cut the sequences of a model or the heads of its attention.

    Raises:
        PlanError: naming what could.
    """
    if plan.cp == 1:
        return
    if "tensor" in model.uncut:
        raise PlanError(f"cp={plan.cp}, but {model.name} cannot be cut ({model.uncut['tensor']}); use cp=1 with more dp")
    ops = _ops(model)
    cores = [op for op in ops if isinstance(op, CoreAttention)]
    whole = next((op for op in ops if isinstance(op, WHOLE)), None)
    if whole is not None:
        why = f"{whole.name} is known by the shapes of whole samples alone"
        raise PlanError(f"cp={plan.cp} cuts sequences, which {model.name} does not allow: {why}; use cp=1 with more dp")
    ordered = next((op for op in ops if op.ordered), None)
    if model.seq_len is None or ordered is not None or not cores:
        why = f"{ordered.name} joins their rows without attention" if ordered is not None else f"it trains on {model.item}s"
        raise PlanError(f"cp={plan.cp} cuts sequences, which {model.name} does not allow: {why}; use cp=1 with more dp")
    parts = plan.cp * (2 if plan.cp_cut == "balanced" and plan.cp_mode != "ulysses" else 1)
    for length in sorted({length for op in cores for length in (op.tokens, op.key_tokens or op.tokens)}):
        if length % parts:
            low = length // parts * parts
            raise PlanError(
                f"cp={plan.cp} cuts sequences into {parts} parts, which do not divide {length} tokens; "
                f"use sequences of {f'{low} or ' if low else ''}{low + parts}"
            )
    if plan.sequence_parallel and model.seq_len % (plan.tp * plan.cp):
        raise PlanError(f"tp={plan.tp} × cp={plan.cp} does not divide the sequence of {model.seq_len}; leave sequence_parallel off")
    _check_mode(cores, model, plan)


def _check_mode(cores: list[CoreAttention], model: Model, plan: Plan) -> None:
    if plan.cp_mode == "ulysses":
        common = gcd(*(heads for op in cores for heads in (op.heads, op.kv_heads)))
        for what, heads in (("attention heads", [op.heads for op in cores]), ("key-value heads", [op.kv_heads for op in cores])):
            uneven = next((count for count in heads if count % (plan.tp * plan.cp)), None)
            if uneven is not None:
                options = closest(plan.cp, [degree // plan.tp for degree in divisors(common) if degree % plan.tp == 0])
                raise PlanError(
                    f"cp_mode=ulysses cuts heads over tp × cp = {plan.tp * plan.cp} ranks, which does not divide the {uneven} {what} of "
                    f"{model.name}; use cp of {options}, or cp_mode=ring"
                )
    if plan.cp_mode == "ring" and any(op.window is not None and op.window < op.tokens for op in cores):
        raise PlanError(f"cp_mode=ring sends all keys round, but {model.name} attends in a window; use cp_mode=all-gather or ulysses")
    if plan.cp_cut == "contiguous" and not any(op.causal for op in cores):
        raise PlanError(f"cp_cut=contiguous changes nothing: the attention of {model.name} is not causal; leave it out")


def check_experts(model: Model, plan: Plan) -> None:
    """Refuse an expert-parallel degree that cannot spread the experts of a model over the ranks of dp and cp.

    Raises:
        PlanError: naming what could.
    """
    if plan.ep == 1:
        return
    counts = sorted({op.experts for op in _ops(model) if isinstance(op, GroupedLinear)})
    if not counts:
        raise PlanError(f"ep={plan.ep} spreads experts, but {model.name} has none; use ep=1")
    if plan.copies % plan.ep:
        over = f"dp={plan.dp}" + (f" × cp={plan.cp}" if plan.cp > 1 else "")
        raise PlanError(f"ep={plan.ep} does not divide {over}; use one of {closest(plan.ep, divisors(plan.copies))}")
    for count in counts:
        if count % plan.ep:
            options = closest(plan.ep, divisors(count))
            raise PlanError(f"ep={plan.ep} does not divide the {count} experts of {model.name}; use one of {options}")
    if plan.shard is not None and plan.shard % plan.ep:
        raise PlanError(f"shard={plan.shard} is no multiple of ep={plan.ep}, so experts would be cut unlike; use {plan.ep} or leave it out")


def _ops(model: Model) -> list[Op]:
    """Return the ops of every block once, those that stand still unwrapped."""
    blocks = {id(block): block for block, _ in model.blocks()}.values()
    return [op.op if isinstance(op, Still) else op for block in blocks for op in block.ops]
