"""GNMT: LSTMs that read a sentence and LSTMs with attention that write another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from foretrain.models.context import Context
from foretrain.models.embedding_bag import EmbeddingBags
from foretrain.models.image_patterns import CONCAT
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model, Step
from foretrain.models.networks.mlp import stream
from foretrain.models.patterns import DROPOUT, RESIDUAL_ADD
from foretrain.models.recurrence import Recurrent
from foretrain.models.stream import Streaming, Traffic

# tanh(query + key) · v for every pair: the sum is written, then squashed, then reduced; backward the same in reverse.
SCORES = Traffic(forward=5, backward=8, forward_launches=3, backward_launches=5, saved=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gnmt:
    """`layers` LSTMs of `hidden` units a side; the first encoder layer runs in both directions, decoder layers read the attention too.

    Both sides have `seq_len` tokens. Encoder, decoder and classifier know `vocab` words; the embedding is shared by both sides.
    Source: Wu et al., arXiv:1609.08144, section 3; MLPerf Training v0.5, rnn_translator (GNMT v2).
    """

    name: str
    layers: int
    hidden: int
    vocab: int
    seq_len: int
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: Gnmt) -> Model:
    """Return the model that these dimensions define; `rebuild` makes it again for other lengths."""
    size = spec.seq_len * spec.hidden
    embedding = EmbeddingBags(
        name="embedding", tables=2 * spec.seq_len, rows=spec.vocab, width=spec.hidden, lookups=2 * spec.seq_len, sharded=False
    )
    layers = [_encoder(spec, number) for number in range(spec.layers)] + [_decoder(spec, number) for number in range(spec.layers)]
    head = (
        Linear(name="classifier", tokens=spec.seq_len, in_features=spec.hidden, out_features=spec.vocab, bias=True, cut="none"),
        CrossEntropy(name="cross_entropy", tokens=spec.seq_len, vocab=spec.vocab),
    )
    return Model(
        name=spec.name, key=spec.key or spec.name, seq_len=spec.seq_len, hidden=spec.hidden,
        prologue=(Block(name="embedding", steps=(embedding, _dropout("embedding", 2 * size)), input_elements=0),),
        layers=tuple((layer, 1) for layer in layers), epilogue=(Block(name="head", steps=head, input_elements=size),),
        tied_parameters=0, tensor_dims={}, rebuild=partial(_at_sequence, spec), assumed=spec.assumed,
    )  # fmt: skip


def _at_sequence(spec: Gnmt, seq_len: int) -> Model:
    return build(replace(spec, seq_len=seq_len))


def _encoder(spec: Gnmt, number: int) -> Block:
    """Return an encoder layer: the first in both directions, the third and later ones added to what they read."""
    size, directions = spec.seq_len * spec.hidden, 2 if number == 0 else 1
    inputs = spec.hidden * (2 if number == 1 else 1)
    steps: list[Step] = [_lstm(spec, "lstm", inputs, directions), _dropout("lstm", size * directions)]
    if number > 1:
        steps.append(stream("add", size, RESIDUAL_ADD))
    # The decoder's embedded words wait beside.
    return Block(name=f"encoder{number + 1}", steps=tuple(steps), input_elements=spec.seq_len * inputs + size)


def _decoder(spec: Gnmt, number: int) -> Block:
    """Return a decoder layer; the first makes the attention that all later ones read beside their input."""
    size = spec.seq_len * spec.hidden
    inputs = spec.hidden * (2 if number else 1)
    steps: list[Step] = [stream("concat", 2 * size, CONCAT)] if number else []
    steps += [_lstm(spec, "lstm", inputs, 1), _dropout("lstm", size)]
    steps += [stream("add", size, RESIDUAL_ADD)] if number > 1 else [] if number else list(_attention(spec))
    return Block(name=f"decoder{number + 1}", steps=tuple(steps), input_elements=2 * size)


def _attention(spec: Gnmt) -> Iterator[Step]:
    """Yield Bahdanau's attention over all pairs of words: queries, keys, scores, the softmax, the weighted sum."""
    tokens, hidden = spec.seq_len, spec.hidden
    for name in ("query", "key"):
        yield Linear(name=f"attention.{name}", tokens=tokens, in_features=hidden, out_features=hidden, bias=False, cut="none")
    yield Streaming(
        name="attention.scores", elements=tokens * tokens * hidden, split="none", pattern="", fused=SCORES, unfused=SCORES,
        parameters=2 * hidden + 1,
    )  # fmt: skip
    yield Context(name="attention.context", tokens=tokens, width=hidden)


def _lstm(spec: Gnmt, name: str, inputs: int, directions: int) -> Recurrent:
    return Recurrent(name=name, cell="lstm", steps=spec.seq_len, in_features=inputs, hidden=spec.hidden, directions=directions)


def _dropout(name: str, elements: int) -> Streaming:
    return Streaming(name=f"{name}.dropout", elements=elements, split="none", pattern="", fused=DROPOUT, unfused=DROPOUT, mask_bytes=1.0)
