"""The steps of attention, from the rows that enter to the rows that leave: projections, norms and positions, core, projection."""

from __future__ import annotations

from foretrain.models.attention import CoreAttention
from foretrain.models.model import Step
from foretrain.models.parts import RMS, Attention, Latent
from foretrain.models.patterns import RELATIVE_BIAS, ROTARY, ROTARY_EAGER
from foretrain.models.steps import Rows, boundary, column, norm_step, row, whole
from foretrain.models.stream import Streaming


def attention_steps(name: str, dims: Attention, rows: Rows, memory: Rows | None = None) -> tuple[Step, ...]:
    """Return attention of the rows over themselves, or over `memory`; the first step enters a tensor-parallel region, the last leaves."""
    if dims.latent is not None:
        made = _latent(name, dims, dims.latent, rows)
    elif memory is not None:
        made = _across(name, dims, rows, memory)
    else:
        made = _projections(name, dims, rows)
    keys = rows.tokens if memory is None else memory.tokens
    return (
        *made,
        *_qk_norm(name, dims, rows.tokens, keys),
        *_rotary(name, dims, rows.tokens),
        *_relative(name, dims, rows.tokens, keys),
        _core(name, dims, rows.tokens, keys),
        row(_own(name, "projection"), rows, dims.heads * dims.value_width, part=dims.out),
        boundary(f"{name}.leave", "leave", rows),
    )


def _own(name: str, what: str) -> str:
    """Return the name of a product: those of self-attention go without a prefix."""
    return what if name == "attention" else f"{name}_{what}"


def _projections(name: str, dims: Attention, rows: Rows) -> tuple[Step, ...]:
    queries, keys, values = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim, dims.kv_heads * dims.value_width
    widths = (queries, keys, values)
    parts = tuple(zip(dims.parts, widths, strict=True)) if len(dims.parts) == len(widths) else ((dims.parts[0], sum(widths)),)
    enter, product = boundary(f"{name}.enter", "enter", rows), _own(name, "qkv")
    if dims.key_bias is None or dims.key_bias == dims.qkv_bias:
        return (enter, column(product, rows, sum(widths), bias=dims.qkv_bias, parts=parts, keeps=True))
    # Keys without the biases that queries and values have, as Whisper's and BEiT's.
    both = column(f"{product}.queries_values", rows, queries + values, bias=dims.qkv_bias, parts=(parts[0], parts[2]), keeps=True)
    return (enter, both, column(f"{product}.keys", rows, keys, bias=dims.key_bias, parts=(parts[1],), keeps=True))


def _across(name: str, dims: Attention, rows: Rows, memory: Rows) -> tuple[Step, ...]:
    """Return queries of the rows, keys and values of the encoder's outputs."""
    keys, values = dims.kv_heads * dims.head_dim, dims.kv_heads * dims.value_width
    queries = dims.heads * dims.head_dim
    q, k, v = dims.parts
    return (
        boundary(f"{name}.enter", "enter", rows),
        column(_own(name, "queries"), rows, queries, bias=dims.qkv_bias, parts=((q, queries),), keeps=True),
        boundary(f"{name}.memory", "enter", memory),
        column(_own(name, "kv"), memory, keys + values, bias=dims.qkv_bias, parts=((k, keys), (v, values)), keeps=True),
    )


def _latent(name: str, dims: Attention, latent: Latent, rows: Rows) -> tuple[Step, ...]:
    """Return the way down to the low ranks, their norms, and the way up to the heads, which tensor parallelism cuts."""
    queries, nope = dims.heads * dims.head_dim, dims.head_dim - latent.rope_dim
    keys = dims.heads * (nope + dims.value_width)
    low, bias = latent.key_rank + latent.rope_dim, dims.qkv_bias
    compressed = Rows(tokens=rows.tokens, width=latent.key_rank)
    up_keys = column("kv_up", compressed, keys, bias=False, parts=(("kv_b_proj", keys),), keeps=True)
    key_norm = norm_step("kv_norm", RMS, compressed)
    down_part = ("kv_a_proj_with_mqa", low)
    if latent.query_rank is None:
        return (
            whole("kv_down", rows, low, bias=bias, parts=(down_part,)),
            key_norm,
            boundary(f"{name}.enter", "enter", rows),
            column("queries", rows, queries, bias=False, parts=(("q_proj", queries),), keeps=True),
            boundary(f"{name}.latent", "enter", Rows(tokens=rows.tokens, width=low)),
            up_keys,
        )
    rank = latent.query_rank
    thin = Rows(tokens=rows.tokens, width=rank)
    return (
        whole("qkv_down", rows, rank + low, bias=bias, parts=(("q_a_proj", rank), down_part)),
        norm_step("q_norm", RMS, thin),
        key_norm,
        boundary(f"{name}.enter", "enter", Rows(tokens=rows.tokens, width=rank + low)),
        column("q_up", thin, queries, bias=False, parts=(("q_b_proj", queries),), keeps=True),
        up_keys,
    )


def _qk_norm(name: str, dims: Attention, queries: int, keys: int) -> tuple[Step, ...]:
    if dims.qk_norm is None:
        return ()
    norm, scope = dims.qk_norm.norm, dims.qk_norm.scope
    one = norm.parameters(dims.head_dim)
    made = []
    for what, tokens, heads in (("q", queries, dims.heads), ("k", keys, dims.kv_heads)):
        rows = Rows(tokens=tokens, width=heads * dims.head_dim)
        step = norm_step(f"{name}.{what}_norm", norm, rows, split="tensor", parameters=one if scope == "head" else one * heads)
        made.append(step if scope != "head" else _whole_parameters(step))
    return tuple(made)


def _whole_parameters(step: Streaming) -> Streaming:
    """Return the step with its parameters on every rank: all heads share them."""
    return Streaming(
        name=step.name, elements=step.elements, split=step.split, pattern=step.pattern, fused=step.fused, unfused=step.unfused,
        parameters=step.parameters,
    )  # fmt: skip


def _rotary(name: str, dims: Attention, tokens: int) -> tuple[Step, ...]:
    if not dims.rotary:
        return ()
    # Keys of latent attention share one rotated part among all heads.
    turned = dims.heads + (dims.kv_heads if dims.latent is None else 1)
    elements = tokens * turned * dims.rotary
    return (
        Streaming(name=_own(name, "rotary"), elements=elements, split="tensor", pattern="rotary", fused=ROTARY, unfused=ROTARY_EAGER),
    )


def _relative(name: str, dims: Attention, queries: int, keys: int) -> tuple[Step, ...]:
    """Return the look-up of a learned bias for each pair and head, which the layers after it share."""
    if not dims.buckets:
        return ()
    return (
        Streaming(
            name=f"{name}.relative_bias", elements=dims.heads * queries * keys, split="tensor", pattern="", fused=RELATIVE_BIAS,
            unfused=RELATIVE_BIAS, parameters=dims.buckets * dims.heads, parameters_cut=True,
        ),
    )  # fmt: skip


def _core(name: str, dims: Attention, queries: int, keys: int) -> CoreAttention:
    return CoreAttention(
        name=name, tokens=queries, heads=dims.heads, kv_heads=dims.kv_heads, head_dim=dims.head_dim, causal=dims.causal,
        dropout=dims.dropout, score_bias=dims.score_bias, window=dims.window, softcap=dims.softcap, sinks=dims.sinks,
        key_tokens=None if keys == queries else keys, value_dim=dims.value_dim,
    )  # fmt: skip
