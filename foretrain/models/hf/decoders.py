"""Decoders in the manner of Llama: RMS norms, rotary positions, a gated MLP, and what each family does differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from foretrain.models.ends import Head, TokenInput
from foretrain.models.hf.fields import Fields
from foretrain.models.hf.words import ACTIVATIONS, gated, head_dims, kv_heads, rotated, sequence, windows
from foretrain.models.network import Network, runs
from foretrain.models.parts import RMS, Attention, Experts, Layer, Mlp, Norm, Order, QkNorm

Feed = Callable[[Fields, int], Mlp | Experts]
LAYERNORM = Norm()
SCALE_ONLY = Norm(bias=False)
BARE = Norm(weight=False, bias=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the layers of a family have in common, beside their sizes; a string names the field that says it."""

    norm: Norm = RMS
    order: Order = "before"
    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    gated: bool = True
    activation: str = "hidden_act"
    qk_norm: QkNorm | None = None
    qk_norm_if: str = ""
    """The field that switches the norm of queries and keys on; empty: it always is."""
    window: str = "sliding_window"
    window_if: str = ""
    every: int | None = None
    """All layers but each so-manieth see a window, where no `layer_types` say."""
    all_windows: bool = False
    rotary: float = 1.0
    residual_dropout: str = ""
    embedding_dropout: str = ""
    head_bias: bool = False
    parallel_if: str = ""
    fused: bool = False
    """Q, K and V, and gate and up, are one product each."""
    plain: tuple[str, str] = ("up_proj", "down_proj")
    out: str = "o_proj"


HEAD_RMS = QkNorm(norm=RMS, scope="head")
LLAMA = Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", window="")
DECODERS: Mapping[str, Family] = MappingProxyType(
    {
        "llama": LLAMA,
        "granite": LLAMA,
        "smollm3": replace(LLAMA, window="sliding_window", window_if="use_sliding_window"),
        "mistral": Family(all_windows=True),
        "mixtral": Family(all_windows=True),
        "qwen2": Family(qkv_bias=True, window_if="use_sliding_window"),
        "qwen2_moe": Family(qkv_bias="qkv_bias", window_if="use_sliding_window"),
        "qwen3": Family(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=HEAD_RMS, window_if="use_sliding_window"),
        "qwen3_moe": Family(
            qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=HEAD_RMS, window_if="use_sliding_window", all_windows=True
        ),
        "gemma": Family(qkv_bias="attention_bias", out_bias="attention_bias", window=""),
        "gemma2": Family(
            qkv_bias="attention_bias", out_bias="attention_bias", order="around", every=2, activation="hidden_activation"
        ),
        "gemma3_text": Family(
            qkv_bias="attention_bias", out_bias="attention_bias", order="around", every=6, activation="hidden_activation", qk_norm=HEAD_RMS
        ),
        "phi": Family(
            norm=LAYERNORM, order="parallel", qkv_bias=True, out_bias=True, mlp_bias=True, gated=False,
            qk_norm=QkNorm(norm=LAYERNORM), qk_norm_if="qk_layernorm", window="", rotary=0.5, residual_dropout="resid_pdrop",
            embedding_dropout="embd_pdrop", head_bias=True, plain=("fc1", "fc2"), out="dense",
        ),
        "phi3": Family(all_windows=True, residual_dropout="resid_pdrop", embedding_dropout="embd_pdrop", fused=True),
        "starcoder2": Family(
            norm=LAYERNORM, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", gated=False, all_windows=True,
            residual_dropout="residual_dropout", embedding_dropout="embedding_dropout", plain=("c_fc", "c_proj"),
        ),
        "stablelm": Family(
            norm=LAYERNORM, qkv_bias="use_qkv_bias", qk_norm=QkNorm(norm=SCALE_ONLY, scope="each"), qk_norm_if="qk_layernorm", window="",
            rotary=0.25, residual_dropout="hidden_dropout", parallel_if="use_parallel_residual",
        ),
        "olmo": Family(norm=BARE, qkv_bias="attention_bias", out_bias="attention_bias", window=""),
        "olmo2": Family(
            order="after", qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=QkNorm(norm=RMS, scope="whole"), window=""
        ),
        "olmo3": Family(
            order="after", qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=QkNorm(norm=RMS, scope="whole"), every=4
        ),
        "olmoe": Family(
            qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=QkNorm(norm=RMS, scope="whole"), window=""
        ),
        "cohere": Family(
            norm=SCALE_ONLY, order="parallel", qkv_bias="attention_bias", out_bias="attention_bias", window="",
            qk_norm=QkNorm(norm=SCALE_ONLY, scope="each"), qk_norm_if="use_qk_norm",
        ),
        "cohere2": Family(norm=SCALE_ONLY, order="parallel", qkv_bias="attention_bias", out_bias="attention_bias", every=4),
        "granitemoe": Family(qkv_bias="attention_bias", out_bias="attention_bias", window=""),
        "glm": Family(qkv_bias="attention_bias", window="", rotary=0.5, fused=True),
        "glm4": Family(qkv_bias="attention_bias", order="around", window="", rotary=0.5, fused=True),
        "glm4_moe": Family(qkv_bias="attention_bias", qk_norm=HEAD_RMS, qk_norm_if="use_qk_norm", window="", rotary=0.5),
        "gpt_oss": Family(qkv_bias="attention_bias", out_bias="attention_bias", every=2),
    }
)  # fmt: skip
"""By model type. **Source:** the modelling code of transformers 5.24, module by module."""


def read_decoder(f: Fields, feed: Feed | None = None) -> Network:
    """Return a decoder of one of `DECODERS`; `feed` gives the MLP or the experts of each layer where they are not the family's."""
    family = DECODERS[f.model_type]
    attention, hidden = read_attention(f, family), f.needed("hidden_size")
    layers, order = f.needed("num_hidden_layers"), _order(f, family)
    dropout = bool(family.residual_dropout) and f.share(family.residual_dropout) > 0
    local = replace(attention, window=_window(f, family))
    dense = feed or (lambda fields, _index: read_mlp(fields, family))
    made = [
        Layer(
            attention=local if narrow else attention, mlp=dense(f, index), norm=family.norm, order=order, dropout=dropout,
        )
        for index, narrow in enumerate(_windows(f, family, layers))
    ]  # fmt: skip
    return assembled(f, family, hidden, [_named(layer, made) for layer in made])


def assembled(f: Fields, family: Family, hidden: int, layers: list[Layer]) -> Network:
    """Return the layers between an embedding and a language head, or a classifier where the file's class is one."""
    vocab, norm = f.needed("vocab_size"), family.norm
    tied = f.flag("tie_word_embeddings")
    dropout = bool(family.embedding_dropout) and f.share(family.embedding_dropout) > 0
    return Network(
        name="", key="", hidden=hidden, size=sequence(f), source=TokenInput(vocab=vocab, width=hidden, dropout=dropout),
        layers=runs(layers), head=Head(outputs=vocab, norm=norm, tied=tied, bias=family.head_bias),
    )  # fmt: skip


def read_attention(f: Fields, family: Family) -> Attention:
    """Return the attention of a family's layers, without a window."""
    hidden, heads = f.needed("hidden_size"), f.needed("num_attention_heads")
    given = f.maybe("head_dim")
    if given is None and f.model_type == "glm4_moe":
        given = max(1, hidden // heads)  # its class rounds down and its own sizes need not divide
    width = head_dims(f, hidden=hidden, heads=heads, head_dim=given)
    on = family.qk_norm is not None and (not family.qk_norm_if or f.flag(family.qk_norm_if))
    return Attention(
        heads=heads, kv_heads=kv_heads(f, heads), head_dim=width, dropout=f.share("attention_dropout") > 0,
        qkv_bias=_says(f, family.qkv_bias), out_bias=_says(f, family.out_bias), rotary=rotated(f, width, family.rotary),
        qk_norm=family.qk_norm if on else None, softcap=_capped(f), sinks=f.model_type == "gpt_oss",
        parts=("qkv_proj",) if family.fused and f.model_type == "phi3" else ("q_proj", "k_proj", "v_proj"), out=family.out,
    )  # fmt: skip


def read_mlp(f: Fields, family: Family, width: int | None = None) -> Mlp:
    """Return the dense MLP of a family's layers."""
    bias, wide = _says(f, family.mlp_bias), f.size("intermediate_size") if width is None else width
    act = f.word(family.activation, ACTIVATIONS) if f.raw(family.activation, "silu") else "silu"
    if not family.gated:
        return Mlp(width=wide, activation=act, gated=False, up_bias=bias, down_bias=bias, parts=family.plain[:1], down=family.plain[1])
    parts = ("gate_up_proj",) if family.fused else ()
    return Mlp(width=wide, activation=gated(act), gated=True, up_bias=bias, down_bias=bias, parts=parts)


def _says(f: Fields, what: bool | str) -> bool:  # noqa: FBT001  # a fact, or the field that holds it
    return what if isinstance(what, bool) else f.flag(what)


def _capped(f: Fields) -> bool:
    cap = f.raw("attn_logit_softcapping")
    return isinstance(cap, (int, float)) and cap > 0


def _order(f: Fields, family: Family) -> Order:
    return "parallel" if family.parallel_if and f.flag(family.parallel_if) else family.order


def _window(f: Fields, family: Family) -> int | None:
    if not family.window or (family.window_if and not f.flag(family.window_if)):
        return None
    given = f.maybe(family.window)
    if given is not None and f.model_type == "gemma3_text" and f.flag("use_bidirectional_attention"):
        return given // 2 + 1
    return given


def _windows(f: Fields, family: Family, layers: int) -> tuple[bool, ...]:
    """Return for each layer whether it sees a window only."""
    if _window(f, family) is None:
        windows(f, layers)
        return (False,) * layers
    if f.data.get("layer_types") is None:
        if f.model_type == "qwen2_moe":
            first = f.count("max_window_layers")
            return tuple(bool((index + 1) % 2) and index < first for index in range(layers))
        if f.model_type in ("qwen2", "qwen3"):
            return tuple(index >= f.count("max_window_layers") for index in range(layers))
        if f.model_type == "smollm3":
            return _smollm_windows(f, layers)
        if family.all_windows:
            return (True,) * layers
    return windows(f, layers, _pattern(f, family))


def _pattern(f: Fields, family: Family) -> int | None:
    if family.every is None or f.data.get("sliding_window_pattern") is None:
        return family.every
    return f.size("sliding_window_pattern")


def _smollm_windows(f: Fields, layers: int) -> tuple[bool, ...]:
    """Return which layers see a window: those without rotary positions."""
    rope = f.numbers("no_rope_layers") or tuple(int(bool((i + 1) % f.size("no_rope_layer_interval"))) for i in range(layers))
    if len(rope) != layers:
        f.fault(f"no_rope_layers has {len(rope)} entries, but there are {layers} layers; give one a layer")
        return (False,) * layers
    return tuple(not turned for turned in rope)


def _named(layer: Layer, among: list[Layer]) -> Layer:
    """Return the layer with a name that tells it from the others."""
    words = []
    if len({isinstance(one.mlp, Experts) for one in among}) > 1:
        words.append("expert" if isinstance(layer.mlp, Experts) else "dense")
    if len({one.attention.window for one in among}) > 1:
        words.append("local" if layer.attention.window else "global")
    return replace(layer, name="_".join((*words, "layer")))
