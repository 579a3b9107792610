"""What a layer of a transformer is made of, as dimensions: norms, attention, MLPs, experts, and the order they come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

QkScope = Literal["head", "each", "whole"]
Order = Literal["before", "after", "around", "on_sum", "parallel", "parallel_apart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A normalisation; one without weights only divides."""

    kind: str = "layernorm"
    weight: bool = True
    bias: bool = True

    def parameters(self, width: int) -> int:
        """Return the weights over a row of `width`; an RMS norm has no biases."""
        return width * self.weight * (2 if self.bias and self.kind == "layernorm" else 1)


RMS = Norm(kind="rmsnorm")


@dataclass(frozen=True, slots=True, kw_only=True)
class QkNorm:
    """A norm of queries and keys: one row of weights for all heads (`head`), one for each (`each`), or over all together (`whole`)."""

    norm: Norm
    scope: QkScope = "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Queries, keys and values through low ranks; `rope_dim` of each head bears the position, the keys' shared by all heads.

    **Source:** DeepSeek-AI, DeepSeek-V2, arXiv:2405.04434, section 2.1.
    """

    query_rank: int | None
    key_rank: int
    rope_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention of `heads` queries of `head_dim` over `kv_heads` keys, and values of `value_dim` (None: as wide).

    `rotary` dimensions of each head are turned by the position; `score_bias` is one that is added to the scores (ALiBi, T5), of which
    `buckets` rows per head are parameters of this layer. `window` bounds how far back a query sees. `parts` names the products that a
    framework keeps apart where they are run as one here: Q, K and V; adapters go by them and by `out`.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int | None = None
    causal: bool = True
    dropout: bool = False
    window: int | None = None
    qkv_bias: bool = False
    key_bias: bool | None = None
    out_bias: bool = False
    rotary: int = 0
    score_bias: bool = False
    buckets: int = 0
    softcap: bool = False
    sinks: bool = False
    qk_norm: QkNorm | None = None
    latent: Latent | None = None
    parts: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    out: str = "o_proj"

    @property
    def value_width(self) -> int:
        """Width of a head's values."""
        return self.head_dim if self.value_dim is None else self.value_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """Two products around an activation; gated, the first makes a gate and a value. `parts` and `down` name them for adapters."""

    width: int
    activation: str
    gated: bool
    up_bias: bool = False
    down_bias: bool = False
    parts: tuple[str, ...] = ()
    down: str = "down_proj"


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture: a router sends each token to `per_token` of `count` MLPs, beside `shared` ones that see every token.

    **Source:** Shazeer et al., arXiv:1701.06538; shared experts: Dai et al., DeepSeekMoE, arXiv:2401.06066.
    """

    count: int
    per_token: int
    mlp: Mlp
    shared: Mlp | None = None
    shared_gate: bool = False
    router_bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: attention, attention over an encoder's outputs where there is one, then an MLP or experts.

    `order` says where the norms are: `before` each branch, `after` it (ahead of the residual sum), `around` it, or `on_sum`, after the
    residual sum; `parallel` runs attention and MLP side by side after one norm, `parallel_apart` after one each. `last` is a norm of
    the layer's result, as the last layer of an encoder has.
    """

    attention: Attention
    mlp: Mlp | Experts
    norm: Norm
    order: Order = "before"
    cross: Attention | None = None
    dropout: bool = False
    last: Norm | None = None
    name: str = "layer"
    shared: bool = False
    """Its weights are those of an earlier layer."""
