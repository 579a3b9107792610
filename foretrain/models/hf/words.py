"""Words and patterns that configurations share: activations, windows, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from foretrain.models.hf.fields import Fields

ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_10", "gelu_30",
             "quick_gelu", "laplace", "mish"), "gelu"),
        **dict.fromkeys(("silu", "swish"), "silu"),
        **dict.fromkeys(("relu", "relu6", "leaky_relu"), "relu"),
        "relu2": "squared_relu",
        **dict.fromkeys(("tanh", "sigmoid"), "tanh"),
    }
)  # fmt: skip
"""What each activation of transformers costs as: the kernel's traffic depends on no more."""
GATED: Mapping[str, str] = MappingProxyType({"gelu": "geglu", "silu": "swiglu", "relu": "gated_relu"})
FULL, SLIDING = "full_attention", "sliding_attention"
LONGEST = 8192
"""Tokens of a sequence where nobody says: what long-context models are trained with before they are stretched."""


def head_dims(f: Fields, *, hidden: int, heads: int, head_dim: int | None) -> int:
    """Return the width of a head; a fault where the heads do not divide the model's width."""
    if head_dim is not None:
        return head_dim
    if hidden % heads:
        f.fault(f"num_attention_heads {heads} does not divide hidden_size {hidden}; change one of them or give head_dim")
    return max(1, hidden // heads)


def kv_heads(f: Fields, heads: int, name: str = "num_key_value_heads") -> int:
    """Return the heads of keys and values; left out, as many as of queries, unless the class knows better."""
    given = f.maybe(name)
    if given is None:
        f.note(f"{name} {heads} (left out: as many as heads)")
        return heads
    if given > heads:
        f.fault(f"{name} {given} exceeds num_attention_heads {heads}; queries share keys, not the other way round")
    elif heads % given:
        f.fault(f"{name} {given} does not divide num_attention_heads {heads}")
    return given


def gated(activation: str) -> str:
    """Return the name of an activation with a gate."""
    return GATED.get(activation, "swiglu")


def windows(f: Fields, layers: int, every: int | None = None) -> tuple[bool, ...]:
    """Return for each layer whether it sees a window only: by `layer_types`, else all but each `every`-th, else none."""
    types = f.words("layer_types", (FULL, SLIDING), layers)
    if types is not None:
        return tuple(one == SLIDING for one in types)
    return tuple(every is not None and bool((index + 1) % every) for index in range(layers))


def rotated(f: Fields, head_dim: int, default: float = 1.0) -> int:
    """Return the dimensions of a head that bear the position."""
    parameters = f.data.get("rope_parameters") or f.data.get("rope_scaling")
    nested = parameters.get("partial_rotary_factor") if isinstance(parameters, Mapping) else None
    name = next((one for one in ("partial_rotary_factor", "rotary_pct") if f.has(one)), "")
    share = f.share(name) if name else nested if isinstance(nested, (int, float)) else default
    return max(0, min(head_dim, int(head_dim * share)))


def sequence(f: Fields, name: str = "max_position_embeddings") -> int:
    """Return the tokens of a training sequence: all positions, of very long ones what is usual."""
    positions = f.size(name)
    if positions > LONGEST:
        f.note(f"sequences of {LONGEST:,} tokens ({name} is {positions:,}; --seq-len)")
    return min(positions, LONGEST)

