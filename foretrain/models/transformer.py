"""Decoders of equal layers as models, from a handful of dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from foretrain.errors import ModelError, nearest
from foretrain.models import network
from foretrain.models.dimensions import Transformer
from foretrain.models.ends import Head, TokenInput
from foretrain.models.model import Model
from foretrain.models.parts import Attention, Layer, Mlp, Norm

_GPT = {"positions": "learned", "norm": "layernorm", "activation": "gelu", "gated": False, "bias": True, "tied": True, "dropout": True}
_LLAMA = {
    "positions": "rotary",
    "norm": "rmsnorm",
    "activation": "swiglu",
    "gated": True,
    "bias": False,
    "tied": False,
    "dropout": False,
}
FAMILIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "gpt": _GPT,
        "bloom": {**_GPT, "positions": "alibi", "embedding_norm": True, "dropout": False},
        "mpt": {**_GPT, "positions": "alibi", "bias": False, "dropout": False},
        "llama": _LLAMA,
    }
)
"""What the layers of well-known families have in common, beside their dimensions."""

__all__ = ["FAMILIES", "Transformer", "build", "transformer_from_dimensions"]


def build(spec: Transformer) -> Model:
    """Return the model that these dimensions define; its `rebuild` makes it again for other sequence lengths."""
    # A learned table of positions is as long as the sequence where nobody says otherwise, so the dimensions are read again.
    return replace(network.build(network_of(spec)), rebuild=partial(_at_sequence, spec))


def _at_sequence(spec: Transformer, seq_len: int) -> Model:
    return build(replace(spec, seq_len=seq_len))


def network_of(spec: Transformer) -> network.Network:
    """Return equal pre-norm layers of these dimensions between an embedding and a language head."""
    norm = Norm(kind=spec.norm, bias=spec.bias)
    source = TokenInput(
        vocab=spec.vocab, width=spec.hidden, positions=spec.position_rows if spec.positions == "learned" else 0,
        norm=norm if spec.embedding_norm else None, dropout=spec.dropout, padded_to=spec.vocab_padded_to,
    )  # fmt: skip
    attention = Attention(
        heads=spec.heads, kv_heads=spec.key_value_heads, head_dim=spec.head_width, causal=spec.causal, dropout=spec.dropout,
        window=spec.window, qkv_bias=spec.bias, out_bias=spec.bias, rotary=spec.head_width if spec.positions == "rotary" else 0,
        score_bias=spec.positions == "alibi",
    )  # fmt: skip
    mlp = Mlp(width=spec.mlp_width, activation=spec.activation, gated=spec.gated, up_bias=spec.bias, down_bias=spec.bias)
    return network.Network(
        name=spec.name,
        key=spec.key or spec.name,
        hidden=spec.hidden,
        size=spec.seq_len,
        source=source,
        layers=((Layer(attention=attention, mlp=mlp, norm=norm, dropout=spec.dropout), spec.layers),),
        head=Head(outputs=spec.vocab, norm=norm, tied=spec.tied, padded_to=spec.vocab_padded_to),
        assumed=spec.assumed,
    )


def transformer_from_dimensions(family: str, **dimensions: Any) -> Transformer:
    """Return a transformer of a family (`FAMILIES`) with the given fields of `Transformer`, which win over the family's.

    Raises:
        ModelError: for an unknown family or impossible dimensions.
    """
    if family not in FAMILIES:
        raise ModelError(f"transformer family {family!r} is unknown; use one of {', '.join(FAMILIES)}{nearest(family, FAMILIES)}")
    return Transformer(**{**FAMILIES[family], **dimensions})
