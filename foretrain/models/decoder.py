"""The blocks of a decoder transformer: embedding, layer, head, in the order Megatron-LM runs them."""

from __future__ import annotations

from foretrain.models.attention import CoreAttention
from foretrain.models.dimensions import Transformer
from foretrain.models.embedding import Embedding
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Step
from foretrain.models.ops import Boundary
from foretrain.models.patterns import (
    ADD_POSITIONS,
    DROPOUT,
    ROTARY,
    ROTARY_EAGER,
    activation_traffic,
    norm_traffic,
    residual_traffic,
)
from foretrain.models.stream import Streaming


def embedding_block(spec: Transformer) -> Block:
    """Return what comes before the first layer: tokens, learned positions, norm and dropout where the model has them."""
    tokens = Embedding(name="embedding", tokens=spec.seq_len, vocab=spec.vocab, width=spec.hidden, pad_to=spec.vocab_padded_to)
    steps: list[Step] = [tokens, _boundary("embedding.reduce", "leave", spec)]
    if spec.positions == "learned":
        steps.append(_positions(spec))
    if spec.embedding_norm:
        steps.append(_norm("embedding_norm", spec))
    if spec.dropout:
        steps.append(_embedding_dropout(spec))
    return Block(name="embedding", steps=tuple(steps), input_elements=0)


def layer_block(spec: Transformer) -> Block:
    """Return one layer: attention and MLP, each between a norm and its sum with the residual stream."""
    return Block(name="layer", steps=(*_attention(spec), *_mlp(spec)), input_elements=spec.seq_len * spec.hidden)


def head_block(spec: Transformer) -> Block:
    """Return what comes after the last layer: final norm, logits over the vocabulary, loss."""
    steps: tuple[Step, ...] = (
        _norm("final_norm", spec),
        _boundary("logits.enter", "enter", spec),
        _logits(spec),
        Boundary(name="loss.reduce", kind="loss", elements=spec.seq_len),
        CrossEntropy(name="cross_entropy", tokens=spec.seq_len, vocab=spec.vocab, pad_to=spec.vocab_padded_to),
    )
    return Block(name="head", steps=steps, input_elements=spec.seq_len * spec.hidden)


def _attention(spec: Transformer) -> tuple[Step, ...]:
    rotary = (_rotary(spec),) if spec.positions == "rotary" else ()
    width = spec.heads * spec.head_width
    qkv_width = width + 2 * spec.key_value_heads * spec.head_width
    return (
        _norm("attention_norm", spec),
        _boundary("attention.enter", "enter", spec),
        _column("qkv", spec, qkv_width, saves_output=True),
        *rotary,
        _core(spec),
        _row("projection", spec, width),
        _boundary("attention.leave", "leave", spec),
        _residual("attention_add", spec),
    )


def _mlp(spec: Transformer) -> tuple[Step, ...]:
    # A gate and the up-projection read the same input: one product with their outputs side by side. A bias after a plain activation's
    # product belongs to the activation, which is where fused kernels add it.
    return (
        _norm("mlp_norm", spec),
        _boundary("mlp.enter", "enter", spec),
        _column("mlp_up", spec, spec.mlp_width * (2 if spec.gated else 1), bias=False),
        _activation(spec),
        _row("mlp_down", spec, spec.mlp_width),
        _boundary("mlp.leave", "leave", spec),
        _residual("mlp_add", spec),
    )


def _boundary(name: str, kind: str, spec: Transformer) -> Boundary:
    return Boundary(name=name, kind=kind, elements=spec.seq_len * spec.hidden)


def _column(name: str, spec: Transformer, width: int, *, saves_output: bool = False, bias: bool | None = None) -> Linear:
    return Linear(
        name=name,
        tokens=spec.seq_len,
        in_features=spec.hidden,
        out_features=width,
        bias=spec.bias if bias is None else bias,
        cut="column",
        saves_output=saves_output,
    )


def _row(name: str, spec: Transformer, width: int) -> Linear:
    # Its bias is added after the ranks' partial results are summed, with the residual, and is whole on every rank.
    return Linear(name=name, tokens=spec.seq_len, in_features=width, out_features=spec.hidden, bias=False, cut="row")


def _logits(spec: Transformer) -> Linear:
    return Linear(
        name="logits",
        tokens=spec.seq_len,
        in_features=spec.hidden,
        out_features=spec.vocab,
        bias=False,
        cut="column",
        pad_to=spec.vocab_padded_to,
    )


def _core(spec: Transformer) -> CoreAttention:
    return CoreAttention(
        name="attention",
        tokens=spec.seq_len,
        heads=spec.heads,
        kv_heads=spec.key_value_heads,
        head_dim=spec.head_width,
        causal=spec.causal,
        dropout=spec.dropout,
        score_bias=spec.positions == "alibi",
        window=spec.window,
    )


def _norm(name: str, spec: Transformer) -> Streaming:
    fused, unfused = norm_traffic(spec.norm)
    weights = 2 if spec.norm == "layernorm" and spec.bias else 1
    return Streaming(
        name=name,
        elements=spec.seq_len * spec.hidden,
        split="sequence",
        pattern="norm",
        fused=fused,
        unfused=unfused,
        parameters=weights * spec.hidden,
    )


def _rotary(spec: Transformer) -> Streaming:
    elements = spec.seq_len * (spec.heads + spec.key_value_heads) * spec.head_width
    return Streaming(name="rotary", elements=elements, split="tensor", pattern="rotary", fused=ROTARY, unfused=ROTARY_EAGER)


def _activation(spec: Transformer) -> Streaming:
    fused, unfused = activation_traffic(spec.activation, gated=spec.gated)
    biases = 2 if spec.gated else 1
    if spec.bias:
        fused, unfused = fused.with_bias_gradient(biases), unfused.with_bias_gradient(biases)
    return Streaming(
        name="activation",
        elements=spec.seq_len * spec.mlp_width,
        split="tensor",
        pattern="swiglu" if spec.gated else "bias_gelu",
        fused=fused,
        unfused=unfused,
        parameters=biases * spec.mlp_width if spec.bias else 0,
        parameters_cut=True,
    )


def _residual(name: str, spec: Transformer) -> Streaming:
    fused, unfused = residual_traffic(dropout=spec.dropout)
    if spec.bias:
        fused, unfused = fused.with_bias_gradient(1), unfused.with_bias_gradient(1)
    return Streaming(
        name=name,
        elements=spec.seq_len * spec.hidden,
        split="sequence",
        pattern="bias_dropout_add",
        fused=fused,
        unfused=unfused,
        mask_bytes=1.0 if spec.dropout else 0.0,
        parameters=spec.hidden if spec.bias else 0,
    )


def _positions(spec: Transformer) -> Streaming:
    return Streaming(
        name="positions",
        elements=spec.seq_len * spec.hidden,
        split="sequence",
        pattern="",
        fused=ADD_POSITIONS,
        unfused=ADD_POSITIONS,
        parameters=spec.position_rows * spec.hidden,
    )


def _embedding_dropout(spec: Transformer) -> Streaming:
    return Streaming(
        name="embedding_dropout",
        elements=spec.seq_len * spec.hidden,
        split="sequence",
        pattern="",
        fused=DROPOUT,
        unfused=DROPOUT,
        mask_bytes=1.0,
    )
