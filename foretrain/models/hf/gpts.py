"""Decoders with layer norms and plain MLPs: GPT-2, GPT-Neo, GPT-NeoX, GPT-J, OPT, BLOOM, Falcon, MPT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from foretrain.models.ends import Dense, Head, TokenInput
from foretrain.models.hf.fields import Fields
from foretrain.models.hf.words import ACTIVATIONS, head_dims, kv_heads, rotated, sequence
from foretrain.models.network import Network, runs
from foretrain.models.parts import Attention, Layer, Mlp, Norm, Order

_NORM = Norm()
_SCALE_ONLY = Norm(bias=False)


def _plain(width: int, activation: str, *, bias: bool, parts: tuple[str, str]) -> Mlp:
    return Mlp(width=width, activation=activation, gated=False, up_bias=bias, down_bias=bias, parts=parts[:1], down=parts[1])


def _network(f: Fields, layers: Sequence[Layer], source: TokenInput, head: Head, hidden: int, positions: str | None) -> Network:
    size = 2048 if positions is None else sequence(f, positions)
    if positions is None:
        f.note("sequences of 2,048 tokens (--seq-len)")
    return Network(name="", key="", hidden=hidden, size=size, source=source, layers=runs(layers), head=head)


def read_gpt2(f: Fields) -> Network:
    """Return a GPT-2: learned positions, one product for Q, K and V."""
    hidden, heads, layers = f.needed("n_embd"), f.needed("n_head"), f.needed("n_layer")
    if f.flag("add_cross_attention"):
        f.fault("add_cross_attention is true, but a decoder alone has no encoder to look at; set it to false")
    act, inner, vocab = f.word("activation_function", ACTIVATIONS), f.maybe("n_inner"), f.needed("vocab_size")
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dims(f, hidden=hidden, heads=heads, head_dim=None), dropout=f.share("attn_pdrop") > 0,
        qkv_bias=True, out_bias=True, parts=("c_attn",), out="c_proj",
    )  # fmt: skip
    mlp = _plain(inner or 4 * hidden, act, bias=True, parts=("c_fc", "c_proj"))
    layer = Layer(attention=attention, mlp=mlp, norm=_NORM, dropout=f.share("resid_pdrop") > 0)
    source = TokenInput(vocab=vocab, width=hidden, positions=f.size("n_positions"), dropout=f.share("embd_pdrop") > 0)
    return _network(f, [layer] * layers, source, Head(outputs=vocab, norm=_NORM, tied=f.flag("tie_word_embeddings")), hidden, "n_positions")


def read_gpt_neo(f: Fields) -> Network:
    """Return a GPT-Neo: global and local attention in turn."""
    hidden, heads, layers = f.needed("hidden_size"), f.needed("num_heads"), f.needed("num_layers")
    act, inner, vocab = f.word("activation_function", ACTIVATIONS), f.maybe("intermediate_size"), f.needed("vocab_size")
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dims(f, hidden=hidden, heads=heads, head_dim=None),
        dropout=f.share("attention_dropout") > 0, out_bias=True, out="out_proj",
    )  # fmt: skip
    mlp = _plain(inner or 4 * hidden, act, bias=True, parts=("c_fc", "c_proj"))
    far = Layer(attention=attention, mlp=mlp, norm=_NORM, dropout=f.share("resid_dropout") > 0, name="global_layer")
    near = replace(far, attention=replace(attention, window=f.size("window_size")), name="local_layer")
    source = TokenInput(
        vocab=vocab, width=hidden, positions=f.size("max_position_embeddings"), dropout=f.share("embed_dropout") > 0
    )
    made = [near if kind == "local" else far for kind in _neo_kinds(f, layers)]
    head = Head(outputs=vocab, norm=_NORM, tied=f.flag("tie_word_embeddings"))
    return _network(f, made, source, head, hidden, "max_position_embeddings")


def _neo_kinds(f: Fields, layers: int) -> list[str]:
    """Return the kind of attention of each layer: `attention_types` as pairs of a pattern and its repeats."""
    types = f.raw("attention_types")
    if types is None:
        types = [[["global", "local"], 12]]
        f.note("attention_types [[[global, local], 12]] (left out; default of gpt_neo)")
    kinds = [kind for pair in types for kind in _repeated(pair)] if isinstance(types, list) else []
    if len(kinds) != layers or set(kinds) - {"global", "local"}:
        made = f"attention_types makes {len(kinds)} layers of global and local attention"
        f.fault(f"{made}, but num_layers is {layers}; write [[[global, local], N]]")
        return ["global"] * layers
    return kinds


def _repeated(pair: Any) -> list[str]:
    good = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], list) and isinstance(pair[1], int) and 0 < pair[1] <= 10_000
    return [str(kind) for kind in pair[0]] * pair[1] if good else []


def read_gpt_neox(f: Fields) -> Network:
    """Return a GPT-NeoX or Pythia: attention and MLP in parallel, each after a norm of its own."""
    hidden, heads, layers = f.needed("hidden_size"), f.needed("num_attention_heads"), f.needed("num_hidden_layers")
    width, bias = head_dims(f, hidden=hidden, heads=heads, head_dim=None), f.flag("attention_bias")
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=width, dropout=f.share("attention_dropout") > 0, qkv_bias=bias, out_bias=bias,
        rotary=rotated(f, width, 0.25), parts=("query_key_value",), out="dense",
    )  # fmt: skip
    mlp = _plain(f.size("intermediate_size"), f.word("hidden_act", ACTIVATIONS), bias=True, parts=("dense_h_to_4h", "dense_4h_to_h"))
    order: Order = "parallel_apart" if f.flag("use_parallel_residual") else "before"
    dropout, vocab = f.share("hidden_dropout") > 0, f.needed("vocab_size")
    layer = Layer(attention=attention, mlp=mlp, norm=_NORM, order=order, dropout=dropout)
    head = Head(outputs=vocab, norm=_NORM, tied=f.flag("tie_word_embeddings"))
    source = TokenInput(vocab=vocab, width=hidden, dropout=dropout)
    return _network(f, [layer] * layers, source, head, hidden, "max_position_embeddings")


def read_gptj(f: Fields) -> Network:
    """Return a GPT-J: attention and MLP in parallel after one norm."""
    hidden, heads, layers = f.needed("n_embd"), f.needed("n_head"), f.needed("n_layer")
    width, vocab, inner = head_dims(f, hidden=hidden, heads=heads, head_dim=None), f.needed("vocab_size"), f.maybe("n_inner")
    turned = f.maybe("rotary_dim")
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=width, dropout=f.share("attn_pdrop") > 0, rotary=min(width, turned or width), out="out_proj"
    )
    mlp = _plain(inner or 4 * hidden, f.word("activation_function", ACTIVATIONS), bias=True, parts=("fc_in", "fc_out"))
    layer = Layer(attention=attention, mlp=mlp, norm=_NORM, order="parallel", dropout=f.share("resid_pdrop") > 0)
    head = Head(outputs=vocab, norm=_NORM, bias=True, tied=f.flag("tie_word_embeddings"))
    source = TokenInput(vocab=vocab, width=hidden, dropout=f.share("embd_pdrop") > 0)
    return _network(f, [layer] * layers, source, head, hidden, "n_positions")


def read_opt(f: Fields) -> Network:
    """Return an OPT: learned positions with two rows to spare, and for the 350M a narrower embedding and norms after the sums."""
    hidden, heads, layers = f.needed("hidden_size"), f.needed("num_attention_heads"), f.needed("num_hidden_layers")
    vocab, bias, before = f.needed("vocab_size"), f.flag("enable_bias"), f.flag("do_layer_norm_before")
    affine = f.flag("layer_norm_elementwise_affine")
    norm = Norm(weight=affine, bias=affine)
    narrow = f.maybe("word_embed_proj_dim") or hidden
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dims(f, hidden=hidden, heads=heads, head_dim=None),
        dropout=f.share("attention_dropout") > 0, qkv_bias=bias, out_bias=bias, out="out_proj",
    )  # fmt: skip
    mlp = _plain(f.size("ffn_dim"), f.word("activation_function", ACTIVATIONS), bias=bias, parts=("fc1", "fc2"))
    order: Order = "before" if before else "on_sum"
    layer = Layer(attention=attention, mlp=mlp, norm=norm, order=order, dropout=f.share("dropout") > 0)
    source = TokenInput(
        vocab=vocab, width=narrow, positions=f.size("max_position_embeddings") + 2, project=None if narrow == hidden else "plain"
    )
    last = before and not f.flag("_remove_final_layer_norm")
    dense = () if narrow == hidden else (Dense(width=narrow, bias=False),)
    head = Head(outputs=vocab, norm=norm if last else None, dense=dense, tied=f.flag("tie_word_embeddings"))
    return _network(f, [layer] * layers, source, head, hidden, "max_position_embeddings")


def read_bloom(f: Fields) -> Network:
    """Return a BLOOM: ALiBi, a norm after the embedding."""
    hidden, heads, layers = f.needed("hidden_size"), f.needed("n_head"), f.needed("n_layer")
    vocab, dropout = f.needed("vocab_size"), f.share("hidden_dropout") > 0
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dims(f, hidden=hidden, heads=heads, head_dim=None),
        dropout=f.share("attention_dropout") > 0, qkv_bias=True, out_bias=True, score_bias=True, parts=("query_key_value",), out="dense",
    )  # fmt: skip
    mlp = _plain(4 * hidden, "gelu", bias=True, parts=("dense_h_to_4h", "dense_4h_to_h"))
    layer = Layer(attention=attention, mlp=mlp, norm=_NORM, dropout=dropout)
    head = Head(outputs=vocab, norm=_NORM, tied=f.flag("tie_word_embeddings"))
    positions = "seq_length" if f.has("seq_length") else None
    return _network(f, [layer] * layers, TokenInput(vocab=vocab, width=hidden, norm=_NORM), head, hidden, positions)


def read_falcon(f: Fields) -> Network:
    """Return a Falcon: one head of keys (7B) or groups of them (40B, 180B), attention and MLP in parallel after one norm or two."""
    hidden, heads, layers = f.needed("hidden_size"), f.needed("num_attention_heads"), f.needed("num_hidden_layers")
    width, vocab = head_dims(f, hidden=hidden, heads=heads, head_dim=None), f.needed("vocab_size")
    bias, alibi, new = f.flag("bias"), f.flag("alibi"), f.flag("new_decoder_architecture")
    keys = 1 if f.flag("multi_query") and not new else kv_heads(f, heads, "num_kv_heads") if new else heads
    attention = Attention(
        heads=heads, kv_heads=keys, head_dim=width, dropout=f.share("attention_dropout") > 0, qkv_bias=bias, out_bias=bias,
        rotary=0 if alibi else width, score_bias=alibi, parts=("query_key_value",), out="dense",
    )  # fmt: skip
    inner = f.maybe("ffn_hidden_size") or 4 * hidden
    mlp = _plain(inner, f.word("activation", ACTIVATIONS), bias=bias, parts=("dense_h_to_4h", "dense_4h_to_h"))
    norms = f.maybe("num_ln_in_parallel_attn") or (2 if new else 1)
    order: Order = "before" if not f.flag("parallel_attn") else "parallel_apart" if norms == 2 else "parallel"
    layer = Layer(attention=attention, mlp=mlp, norm=_NORM, order=order, dropout=f.share("hidden_dropout") > 0)
    head = Head(outputs=vocab, norm=_NORM, tied=f.flag("tie_word_embeddings"))
    return _network(f, [layer] * layers, TokenInput(vocab=vocab, width=hidden), head, hidden, "max_position_embeddings")


def read_mpt(f: Fields) -> Network:
    """Return an MPT: ALiBi and no biases; `expansion_ratio`, `learned_pos_emb` and `kv_n_heads` shape nothing in transformers either."""
    hidden, heads, layers = f.needed("d_model"), f.needed("n_heads"), f.needed("n_layers")
    vocab, given = f.needed("vocab_size"), f.raw("attn_config")
    inner: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    drop = inner.get("attn_pdrop", 0.0)
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dims(f, hidden=hidden, heads=heads, head_dim=None),
        dropout=isinstance(drop, (int, float)) and drop > 0, score_bias=bool(inner.get("alibi", True)), parts=("Wqkv",), out="out_proj",
    )  # fmt: skip
    mlp = _plain(4 * hidden, "gelu", bias=False, parts=("up_proj", "down_proj"))
    layer = Layer(attention=attention, mlp=mlp, norm=_SCALE_ONLY, dropout=f.share("resid_pdrop") > 0)
    head = Head(outputs=vocab, norm=_SCALE_ONLY, tied=f.flag("tie_word_embeddings"))
    return _network(f, [layer] * layers, TokenInput(vocab=vocab, width=hidden), head, hidden, "max_seq_len")
