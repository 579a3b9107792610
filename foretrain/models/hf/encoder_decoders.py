"""Encoders beside decoders: T5, mT5, BART and Marian."""

from __future__ import annotations

from dataclasses import replace

from foretrain.models.ends import Head, TokenInput
from foretrain.models.hf.fields import Fields
from foretrain.models.hf.words import ACTIVATIONS, LONGEST, gated, head_dims
from foretrain.models.network import Decoder, Network, runs
from foretrain.models.parts import RMS, Attention, Layer, Mlp, Norm

T5_TOKENS = 512
"""Raffel et al., T5, arXiv:1910.10683, section 3.1.2."""


def read_t5(f: Fields) -> Network:
    """Return a T5 or mT5: RMS norms, a learned bias of the scores that all layers of a stack share, one table for everything."""
    hidden, heads, width = f.needed("d_model"), f.needed("num_heads"), f.size("d_kv")
    layers, vocab, dropout = f.needed("num_layers"), f.needed("vocab_size"), f.share("dropout_rate") > 0
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=width, causal=False, dropout=dropout, score_bias=True, parts=("q", "k", "v"), out="o"
    )
    encoder = Layer(attention=attention, mlp=_t5_mlp(f), norm=RMS, dropout=dropout, name="encoder_layer")
    decoder = replace(
        encoder, attention=replace(attention, causal=True), cross=replace(attention, score_bias=False), name="decoder_layer"
    )
    depth = f.maybe("num_decoder_layers") or layers
    buckets = f.size("relative_attention_num_buckets")
    first, rest = _with_table(encoder, buckets), [encoder] * (layers - 1)
    encoders = [first, *rest]
    encoders[-1] = replace(encoders[-1], last=RMS)
    source = TokenInput(vocab=vocab, width=hidden, dropout=dropout)
    size = f.size("n_positions") if f.has("n_positions") else T5_TOKENS
    if not f.has("n_positions"):
        f.note(f"sequences of {T5_TOKENS} tokens (--seq-len)")
    f.note("targets as long as the sources")
    if f.has("tie_word_embeddings") and not f.flag("tie_word_embeddings", default=True) and f.model_type == "t5":
        f.note("tie_word_embeddings is false, but transformers ties the tables of every T5")
    tied = f.model_type == "t5" or f.flag("tie_word_embeddings")
    return Network(
        name="", key="", hidden=hidden, size=min(size, LONGEST), source=source, layers=runs(encoders),
        decoder=Decoder(source=replace(source, shared=True), layers=runs([_with_table(decoder, buckets), *[decoder] * (depth - 1)])),
        head=Head(outputs=vocab, norm=RMS, tied=tied), undivided="",
    )  # fmt: skip


def _t5_mlp(f: Fields) -> Mlp:
    """Return the MLP that `feed_forward_proj` names: an activation, gated or not."""
    spelled = f.raw("feed_forward_proj")
    words = spelled.split("-") if isinstance(spelled, str) else []
    if len(words) not in (1, 2) or (len(words) == 2 and words[0] != "gated") or words[-1] not in ACTIVATIONS:
        f.fault(f"feed_forward_proj {spelled!r} is unknown; write an activation, such as relu, or gated- before one")
        words = ["relu"]
    act, gate = ACTIVATIONS[words[-1]], len(words) == 2
    parts = ("wi_0", "wi_1") if gate else ("wi",)
    return Mlp(width=f.size("d_ff"), activation=gated(act) if gate else act, gated=gate, parts=parts, down="wo")


def _with_table(layer: Layer, buckets: int) -> Layer:
    return replace(layer, attention=replace(layer.attention, buckets=buckets), name=f"first_{layer.name}")


def read_bart(f: Fields) -> Network:
    """Return a BART: learned positions with two rows to spare on both sides, norms after the sums.

    A Marian is one without norms of its embeddings, and with sinusoids for positions, which are no parameters: the Transformer of
    Vaswani et al., arXiv:1706.03762.
    """
    hidden, vocab, dropout = f.needed("d_model"), f.needed("vocab_size"), f.share("dropout") > 0
    positions, marian = f.size("max_position_embeddings"), f.model_type == "marian"
    source = TokenInput(
        vocab=vocab, width=hidden, positions=0 if marian else positions + 2, norm=None if marian else Norm(), dropout=dropout
    )
    tied, one = f.flag("tie_word_embeddings"), not marian or f.flag("share_encoder_decoder_embeddings")
    target = replace(source, shared=tied and one)
    if not one:
        target = replace(target, vocab=f.maybe("decoder_vocab_size") or vocab)
    encoder, decoder = _bart_layer(f, hidden, "encoder"), _bart_layer(f, hidden, "decoder")
    across = replace(decoder.attention, parts=("q_proj", "k_proj", "v_proj"))
    decoder = replace(decoder, attention=replace(decoder.attention, causal=True), cross=across)
    f.note("targets as long as the sources")
    return Network(
        name="", key="", hidden=hidden, size=min(positions, LONGEST), source=source, layers=((encoder, f.needed("encoder_layers")),),
        decoder=Decoder(source=target, layers=((decoder, f.needed("decoder_layers")),)),
        # Untied, the classes keep a table for each side, and the one that they no longer share.
        head=Head(outputs=target.vocab, tied=tied, spare=vocab * hidden if one and not tied else 0),
    )  # fmt: skip


def _bart_layer(f: Fields, hidden: int, side: str) -> Layer:
    heads = f.needed(f"{side}_attention_heads")
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dims(f, hidden=hidden, heads=heads, head_dim=None), causal=False,
        dropout=f.share("attention_dropout") > 0, qkv_bias=True, out_bias=True, out="out_proj",
    )  # fmt: skip
    mlp = Mlp(
        width=f.size(f"{side}_ffn_dim"), activation=f.word("activation_function", ACTIVATIONS), gated=False, up_bias=True, down_bias=True,
        parts=("fc1",), down="fc2",
    )  # fmt: skip
    return Layer(attention=attention, mlp=mlp, norm=Norm(), order="on_sum", dropout=f.share("dropout") > 0, name=f"{side}_layer")
