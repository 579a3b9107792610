"""Encoders that read both ways: BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT; and ViT and DeiT over patches of an image."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.ends import Dense, Head, PatchInput, TokenInput
from foretrain.models.hf.fields import MOST_LAYERS, Fields
from foretrain.models.hf.words import ACTIVATIONS, head_dims, sequence
from foretrain.models.network import Network, runs
from foretrain.models.parts import Attention, Layer, Mlp, Norm

NORM = Norm()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What every encoder has."""

    hidden: int
    layers: int
    layer: Layer
    activation: str
    dropout: bool


def bert_sizes(f: Fields) -> Sizes:
    """Return layers with biases everywhere and norms after the sums."""
    hidden, heads, layers = f.needed("hidden_size"), f.needed("num_attention_heads"), f.needed("num_hidden_layers")
    act, dropout = f.word("hidden_act", ACTIVATIONS), f.share("hidden_dropout_prob") > 0
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dims(f, hidden=hidden, heads=heads, head_dim=None), causal=False,
        dropout=f.share("attention_probs_dropout_prob") > 0, qkv_bias=True, out_bias=True, parts=("query", "key", "value"), out="dense",
    )  # fmt: skip
    mlp = Mlp(width=f.size("intermediate_size"), activation=act, gated=False, up_bias=True, down_bias=True, parts=("dense",), down="dense")
    layer = Layer(attention=attention, mlp=mlp, norm=NORM, order="on_sum", dropout=dropout)
    return Sizes(hidden=hidden, layers=layers, layer=layer, activation=act, dropout=dropout)


def read_bert(f: Fields) -> Network:
    """Return a BERT or RoBERTa with the head of its class: masked tokens, for BERT's pre-training also the next sentence."""
    _alone(f)
    sizes = bert_sizes(f)
    hidden, vocab, tied = sizes.hidden, f.needed("vocab_size"), f.flag("tie_word_embeddings")
    source = _source(f, hidden)
    masked = _spared(masked_head(vocab, Dense(width=hidden, activation=sizes.activation, norm=NORM), tied=tied))
    pair = replace(_classifier(f, hidden, 2), outputs=2)
    default = "ForPreTraining" if f.model_type == "bert" else "ForMaskedLM"
    heads = {"ForMaskedLM": masked, "ForSequenceClassification": _classifier(f, hidden, None)}
    if f.model_type == "bert":
        heads["ForPreTraining"] = replace(masked, beside=pair)
    return _network(f, sizes, source, choose(f, heads, default), positions=2 if f.model_type == "roberta" else 0)


def read_distilbert(f: Fields) -> Network:
    """Return a DistilBERT: BERT's layers without token types or pooler."""
    hidden, heads, layers = f.needed("dim"), f.needed("n_heads"), f.needed("n_layers")
    act, dropout, vocab = f.word("activation", ACTIVATIONS), f.share("dropout") > 0, f.needed("vocab_size")
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dims(f, hidden=hidden, heads=heads, head_dim=None), causal=False,
        dropout=f.share("attention_dropout") > 0, qkv_bias=True, out_bias=True, parts=("q_lin", "k_lin", "v_lin"), out="out_lin",
    )  # fmt: skip
    mlp = Mlp(width=f.size("hidden_dim"), activation=act, gated=False, up_bias=True, down_bias=True, parts=("lin1",), down="lin2")
    layer = Layer(attention=attention, mlp=mlp, norm=NORM, order="on_sum", dropout=dropout)
    sizes = Sizes(hidden=hidden, layers=layers, layer=layer, activation=act, dropout=dropout)
    source = TokenInput(vocab=vocab, width=hidden, positions=f.size("max_position_embeddings"), norm=NORM, dropout=dropout)
    masked = masked_head(vocab, Dense(width=hidden, activation=act, norm=NORM), tied=f.flag("tie_word_embeddings"))
    heads_of = {"ForMaskedLM": masked, "ForSequenceClassification": _classifier(f, hidden, None, activation="relu")}
    return _network(f, sizes, source, choose(f, heads_of, "ForMaskedLM"))


def read_electra(f: Fields) -> Network:
    """Return an ELECTRA: the discriminator, which judges every token, or the generator, which predicts masked ones."""
    _alone(f)
    sizes = bert_sizes(f)
    hidden, vocab, narrow = sizes.hidden, f.needed("vocab_size"), f.size("embedding_size")
    source = _source(f, narrow, None if narrow == hidden else "bias")
    judged = Head(outputs=1, bias=True, vocab=False, dense=(Dense(width=hidden, activation=sizes.activation),))
    masked = masked_head(vocab, Dense(width=narrow, activation="gelu", norm=NORM), tied=f.flag("tie_word_embeddings"))
    heads = {"ForPreTraining": judged, "ForMaskedLM": masked, "ForSequenceClassification": _classifier(f, hidden, None)}
    return _network(f, sizes, source, choose(f, heads, "ForPreTraining"))


def read_albert(f: Fields) -> Network:
    """Return an ALBERT: the weights of one group of layers serve all of them."""
    sizes = bert_sizes(f)
    hidden, vocab, narrow = sizes.hidden, f.needed("vocab_size"), f.size("embedding_size")
    groups, inner = f.size("num_hidden_groups"), f.size("inner_group_num")
    if groups > sizes.layers:
        f.fault(f"num_hidden_groups {groups} exceeds the {sizes.layers} layers that share them")
    if inner * sizes.layers > MOST_LAYERS:
        f.fault(f"inner_group_num {inner} makes more than {MOST_LAYERS:,} layers")
        inner = 1
    source = _source(f, narrow, "bias")
    tied = f.flag("tie_word_embeddings")
    masked = _spared(masked_head(vocab, Dense(width=narrow, activation=sizes.activation, norm=NORM), tied=tied))
    pair = _classifier(f, hidden, None)
    heads = {"ForPreTraining": replace(masked, beside=pair), "ForMaskedLM": masked, "ForSequenceClassification": pair}
    network = _network(f, sizes, source, choose(f, heads, "ForPreTraining"))
    of = [_group(index, groups, sizes.layers) for index in range(sizes.layers)]
    first = [index for index in range(sizes.layers) if index == 0 or of[index] != of[index - 1]]
    owned, again = replace(sizes.layer, name="layer"), replace(sizes.layer, name="shared_layer", shared=True)
    made = [layer for index in range(sizes.layers) for layer in [owned if index in first else again] * inner]
    why = "its layers share their weights"
    return replace(network, layers=runs(made), undivided=why if sizes.layers > 1 else "")


def _group(index: int, groups: int, layers: int) -> int:
    return int(index / (layers / max(1, groups)))


def read_vit(f: Fields) -> Network:
    """Return a ViT or DeiT: pre-norm layers over patches and a classifier of the first token; DeiT has one token more, to distil into."""
    sizes = bert_sizes(f)
    image, patch, hidden = _square(f, "image_size"), _square(f, "patch_size"), sizes.hidden
    if patch > image:
        f.fault(f"patch_size {patch} exceeds image_size {image}")
        patch = image
    attention = replace(sizes.layer.attention, qkv_bias=f.flag("qkv_bias"))
    layer = replace(sizes.layer, attention=attention, order="before")
    source = PatchInput(
        channels=f.size("num_channels"), patch=patch, width=hidden, extra=2 if f.model_type == "deit" else 1, dropout=sizes.dropout
    )
    classes = labels(f, 2)
    single = Head(outputs=classes, norm=NORM, bias=True, vocab=False, first=True)
    both = replace(single, beside=replace(single, norm=None))
    heads = {"ForImageClassification": single}
    if f.model_type == "deit":
        heads["ForImageClassificationWithTeacher"] = both
    head = choose(f, heads, "ForImageClassification")
    return Network(name="", key="", hidden=hidden, size=image, source=source, layers=((layer, sizes.layers),), head=head)


def labels(f: Fields, default: int) -> int:
    """Return the classes of a classifier: those of `id2label`, else `num_labels`, else the default."""
    named = f.data.get("id2label")
    if isinstance(named, dict) and named:
        return len(named)
    if f.has("num_labels"):
        return f.size("num_labels")
    f.note(f"num_labels {default} (left out: neither num_labels nor id2label)")
    return default


def choose(f: Fields, heads: dict[str, Head], default: str) -> Head:
    """Return the head of the class that `architectures` names, else the default one.

    A class without a head, or with one that is not known here, trains as the default; that is noted.
    """
    named = f.data.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    for suffix in sorted(heads, key=len, reverse=True):
        if name.endswith(suffix):
            return heads[suffix]
    if name and not name.endswith("LMHeadModel"):
        f.note(f"architectures names {name}; trained here {default.removeprefix('For')} (others known: {', '.join(heads)})")
    return heads[default]


def masked_head(vocab: int, dense: Dense, *, tied: bool) -> Head:
    """Return the prediction of tokens after one dense product; the logits have a bias."""
    return Head(outputs=vocab, dense=(dense,), bias=True, tied=tied)


def _spared(head: Head) -> Head:
    """Return the head with the second bias that BERT's and its descendants' classes hold where the logits' table is not tied."""
    return head if head.tied else replace(head, spare=head.outputs)


def _classifier(f: Fields, hidden: int, classes: int | None, activation: str = "tanh") -> Head:
    """Return a dense product and classes from the first token."""
    outputs = classes if classes is not None else labels(f, 2) if _classifies(f) else 2
    return Head(outputs=outputs, bias=True, vocab=False, first=True, dense=(Dense(width=hidden, activation=activation),))


def _classifies(f: Fields) -> bool:
    named = f.data.get("architectures")
    return f.has("num_labels") or f.has("id2label") or (isinstance(named, list) and "Classification" in str(named[:1]))


def _source(f: Fields, width: int, project: str | None = None) -> TokenInput:
    return TokenInput(
        vocab=f.needed("vocab_size"), width=width, positions=f.size("max_position_embeddings"), types=f.count("type_vocab_size"), norm=NORM,
        dropout=f.share("hidden_dropout_prob") > 0, project="bias" if project else None,
    )  # fmt: skip


def _network(f: Fields, sizes: Sizes, source: TokenInput, head: Head, positions: int = 0) -> Network:
    """Return an encoder; of its position table, `positions` rows are no positions (RoBERTa's padding)."""
    size = max(1, sequence(f) - positions)
    layers = ((sizes.layer, sizes.layers),)
    return Network(name="", key="", hidden=sizes.hidden, size=size, source=source, layers=layers, head=head)


def _square(f: Fields, name: str) -> int:
    """Return the side of a square size, which may be written as a pair."""
    value = f.raw(name)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1] and isinstance(value[0], int):
        return int(value[0])
    return f.size(name)


def _alone(f: Fields) -> None:
    if f.flag("is_decoder") or f.flag("add_cross_attention"):
        f.fault("is_decoder or add_cross_attention is true, but only encoders of this family are understood; set both to false")
