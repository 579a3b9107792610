"""Decoder transformers as models, from their dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from foretrain.errors import ModelError, nearest
from foretrain.models.decoder import embedding_block, head_block, layer_block
from foretrain.models.dimensions import Transformer
from foretrain.models.model import Model

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
    """Return the model that these dimensions define; `rebuild` makes it again for other sequence lengths."""
    return Model(
        name=spec.name,
        key=spec.key or spec.name,
        seq_len=spec.seq_len,
        hidden=spec.hidden,
        prologue=(embedding_block(spec),),
        layers=((layer_block(spec), spec.layers),),
        epilogue=(head_block(spec),),
        tied_parameters=spec.vocab * spec.hidden if spec.tied else 0,
        tensor_dims={"attention heads": spec.heads, "key-value heads": spec.key_value_heads, "MLP width": spec.mlp_width},
        rebuild=partial(_at_sequence, spec),
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


def _at_sequence(spec: Transformer, seq_len: int) -> Model:
    return build(replace(spec, seq_len=seq_len))
