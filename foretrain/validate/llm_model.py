"""The model of a published language-model run, from the row's own dimensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from foretrain.errors import ModelError
from foretrain.models.model import Model
from foretrain.models.network import build as build_network
from foretrain.models.parts import Experts, Mlp
from foretrain.models.transformer import Transformer, build, network_of, transformer_from_dimensions
from foretrain.validate.cells import Row, needed, number, text, whole

_REFUSED = (
    (r"\bt5\b|encoder|bert|seq2seq", "models that are no decoder-only transformer are not simulated from published rows in this release"),
    (r"lora|adapter|frozen", "frozen weights (LoRA) are not simulated in this release"),
    (r"sliding|\bSWA\b|local attention", "sliding-window attention is not simulated from published rows in this release"),
    (r"mamba|\bssm\b|hyena|retnet|rwkv", "models without attention are not simulated in this release"),
    (r"\bMLA\b|deepseek-?v[23]", "latent attention is not simulated in this release"),
)
"""Words in the model's name or family that no decoder transformer of this release can stand for."""

_MIXTURES = r"\bmoe\b|mixtral|switch|\d+x\d+B"
COUNTED = 0.03
"""Share by which the parameters of a mixture's columns may differ from those that the source counts."""

_LEARNED_MPT = {"positions": "learned"}
_RELU = {"positions": "rotary", "norm": "rmsnorm", "activation": "relu", "bias": False, "dropout": False}
_FAMILIES: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    (r"mpt.*learned", "mpt", _LEARNED_MPT),
    (r"mpt", "mpt", {}),
    (r"bloom", "bloom", {}),
    (r"llama|mi[sx]tral|qwen|internlm|gated|swiglu|\byi\b|baichuan", "llama", {}),
    (r"relu", "gpt", _RELU),
    (r"neox|pythia|gpt-?j", "gpt", {"positions": "rotary", "tied": False}),
    (r"gpt|opt\b|megatron|bigcode|starcoder|nemotron|dense|decoder", "gpt", {}),
)
"""Words in family or name, the family of `foretrain.models` and what differs from it; the first that occur decide."""

MEGATRON_VOCABULARY = 128
"""Megatron-LM pads the vocabulary to a multiple of 128 × tp (`--make-vocab-size-divisible-by`)."""


def model_of(row: Row, *, pad_vocabulary: bool) -> Model:
    """Return the model of a row.

    Raises:
        ModelError, ProfileError: where it is of a kind that is not simulated, or a dimension is missing or impossible.
    """
    spec, mixture = _spec(row, MEGATRON_VOCABULARY if pad_vocabulary else 1), _mixture(row)
    return _built(spec) if mixture is None else _counted(_built_mixture(spec, mixture), number(row, "params_B"))


def _mixture(row: Row) -> tuple[int, int] | None:
    """Return the experts of a mixture and how many of them a token meets; None where there is one."""
    count = whole(row, "n_experts") or 1
    return None if count == 1 else (count, needed(row, "top_k", "the experts that a token meets"))


@lru_cache(maxsize=512)
def _built_mixture(spec: Transformer, mixture: tuple[int, int]) -> Model:
    """Return the model with a mixture of experts in each layer, `ffn_hidden` wide each."""
    count, per_token = mixture
    if per_token > count:
        raise ModelError(f"{spec.name}: a token meets {per_token} of {count} experts; give a top_k of at most {count}")
    network = network_of(spec)
    layers = tuple((replace(layer, mlp=_experts(layer.mlp, count, per_token)), copies) for layer, copies in network.layers)
    return build_network(replace(network, layers=layers))


def _experts(mlp: Mlp | Experts, count: int, per_token: int) -> Experts:
    return mlp if isinstance(mlp, Experts) else Experts(count=count, per_token=per_token, mlp=mlp)


def _counted(model: Model, parameters_b: float | None) -> Model:
    """Return the model if it has the parameters that the source counts.

    Raises:
        ModelError: where it has not: shared experts and layers without experts stand in no column.
    """
    if parameters_b is not None and abs(model.parameters / (parameters_b * 1e9) - 1.0) > COUNTED:
        raise ModelError(
            f"{model.name}: with the experts of its columns in every layer it has {model.parameters / 1e9:.3g} B parameters, but the "
            f"source counts {parameters_b:g} B; shared experts and dense layers are not given"
        )
    return model


@lru_cache(maxsize=512)
def _built(spec: Transformer) -> Model:
    return build(spec)


def _spec(row: Row, padding: int) -> Transformer:
    family, differences = _family(row)
    spec = transformer_from_dimensions(
        family,
        **{
            "name": text(row, "model") or text(row, "id"),
            "layers": needed(row, "n_layers", "the number of layers"),
            "hidden": needed(row, "hidden", "the hidden size"),
            "heads": needed(row, "n_heads", "the number of attention heads"),
            "kv_heads": whole(row, "n_kv_heads"),
            "ffn_hidden": whole(row, "ffn_hidden"),
            "head_dim": _head_dim(row),
            "vocab": needed(row, "vocab", "the vocabulary"),
            "seq_len": needed(row, "seq_len", "the sequence length"),
            "vocab_padded_to": padding,
            **differences,
        },
    )
    parameters = number(row, "params_B")
    return spec if family != "llama" or parameters is None else _tied_as_counted(spec, parameters * 1e9)


def _family(row: Row) -> tuple[str, Mapping[str, Any]]:
    words = f"{text(row, 'arch_family')} {text(row, 'model')}"
    for pattern, reason in _REFUSED:
        if re.search(pattern, words, re.IGNORECASE):
            raise ModelError(f"{text(row, 'model')}: {reason}")
    if re.search(_MIXTURES, words, re.IGNORECASE) and _mixture(row) is None:
        raise ModelError(f"{text(row, 'model')}: it is a mixture of experts, but n_experts is empty")
    for pattern, family, differences in _FAMILIES:
        if re.search(pattern, words, re.IGNORECASE):
            return family, differences
    raise ModelError(f"architecture {text(row, 'arch_family')!r} is none that is simulated (gpt, llama, MPT, BLOOM)")


def _head_dim(row: Row) -> int | None:
    """Return the width of a head where the notes say that it is not hidden / heads."""
    found = re.search(r"head_dim\s*=\s*(\d+)", text(row, "notes"))
    return int(found.group(1)) if found else None


def _tied_as_counted(spec: Transformer, parameters: float) -> Transformer:
    """Return the model with its embedding tied or not, whichever is nearer to the parameters that the source counts."""
    tied, untied = replace(spec, tied=True), replace(spec, tied=False)
    return min((untied, tied), key=lambda one: abs(_built(one).parameters - parameters))
