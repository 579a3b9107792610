"""The ends of a transformer as blocks: embeddings of tokens and patches, and heads with their losses."""

from __future__ import annotations

from collections.abc import Sequence

from foretrain.models.convolution import Conv
from foretrain.models.embedding import Embedding
from foretrain.models.ends import Dense, Head, PatchInput, TokenInput
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Step
from foretrain.models.ops import Boundary
from foretrain.models.parts import Mlp
from foretrain.models.patterns import ADD_POSITIONS, DROPOUT, UNUSED
from foretrain.models.steps import Rows, activation, boundary, norm_step, whole
from foretrain.models.stream import Streaming


def token_steps(source: TokenInput, tokens: int, hidden: int, prefix: str = "") -> tuple[Step, ...]:
    """Return what comes before the first layer: tokens, learned tables, norm and dropout where the model has them."""
    rows = Rows(tokens=tokens, width=source.width)
    steps: list[Step] = [
        Embedding(
            name=f"{prefix}embedding", tokens=tokens, vocab=source.vocab, width=source.width, pad_to=source.padded_to, shared=source.shared
        ),
        boundary(f"{prefix}embedding.reduce", "leave", rows),
    ]
    added = rows if source.project is None or source.norm is not None else Rows(tokens=tokens, width=hidden)
    project = [] if source.project is None else [whole(f"{prefix}embedding_projection", rows, hidden, bias=source.project == "bias")]
    # Without a norm, the tables that are added are as wide as the model, and come after the projection.
    late = source.norm is None
    steps += project if late else []
    # A sequence longer than the table needs a longer table.
    steps += [_table(f"{prefix}positions", added, max(source.positions, tokens))] if source.positions else []
    steps += [_table(f"{prefix}types", added, source.types)] if source.types else []
    steps += [norm_step(f"{prefix}embedding_norm", source.norm, rows)] if source.norm is not None else []
    steps += [] if late else project
    out = Rows(tokens=tokens, width=hidden)
    steps += [_dropout(f"{prefix}embedding_dropout", out)] if source.dropout else []
    return tuple(steps)


def patch_steps(source: PatchInput, image: int) -> tuple[Step, ...]:
    """Return the convolution that makes tokens of patches, and what is added to them."""
    side = image // source.patch
    rows = Rows(tokens=patch_tokens(source, image), width=source.width)
    size, kernel = (image, image), (source.patch, source.patch)
    conv = Conv(
        name="patches", in_channels=source.channels, out_channels=source.width, in_size=size, out_size=(side, side), kernel=kernel,
        stride=kernel, bias=True, input_grad=False,
    )  # fmt: skip
    learned = rows.tokens + source.extra
    dropout = (_dropout("embedding_dropout", rows),) if source.dropout else ()
    return (conv, _table("positions", rows, learned), *dropout)


def patch_tokens(source: PatchInput, image: int) -> int:
    """Return the tokens of a square image: its whole patches, and the extra ones."""
    return (image // source.patch) ** 2 + source.extra


def input_block(steps: Sequence[Step]) -> Block:
    """Return steps as the block before the first layer."""
    return Block(name="embedding", steps=tuple(steps), input_elements=0)


def head_block(head: Head, rows: Rows) -> Block:
    """Return what comes after the last layer: final norm, dense products, logits, loss."""
    return Block(name="head", steps=_head_steps(head, rows, ""), input_elements=rows.elements)


def _head_steps(head: Head, rows: Rows, prefix: str) -> tuple[Step, ...]:
    steps: list[Step] = [norm_step(f"{prefix}final_norm", head.norm, rows)] if head.norm is not None else []
    tokens = 1 if head.first else max(1, round(rows.tokens * head.share))
    here = Rows(tokens=tokens, width=rows.width)
    for number, dense in enumerate(head.dense):
        steps += _dense_steps(f"{prefix}head_dense{number or ''}", dense, here)
        here = Rows(tokens=tokens, width=dense.width)
    steps += [boundary(f"{prefix}logits.enter", "enter", here)] if head.vocab else []
    steps.append(
        Linear(
            name=f"{prefix}logits", tokens=tokens, in_features=here.width, out_features=head.outputs, bias=head.bias,
            cut="column" if head.vocab else "none", pad_to=head.padded_to,
        )
    )  # fmt: skip
    steps += [Boundary(name=f"{prefix}loss.reduce", kind="loss", elements=tokens)] if head.vocab else []
    steps.append(CrossEntropy(name=f"{prefix}cross_entropy", tokens=tokens, vocab=head.outputs, pad_to=head.padded_to, cut=head.vocab))
    steps += [_spare(f"{prefix}spare", head.spare)] if head.spare else []
    return (*steps, *(_head_steps(head.beside, rows, "second_") if head.beside is not None else ()))


def _spare(name: str, parameters: int) -> Streaming:
    """Return parameters that no kernel reads."""
    return Streaming(name=name, elements=0, split="none", pattern="", fused=UNUSED, unfused=UNUSED, parameters=parameters)


def _dense_steps(name: str, dense: Dense, rows: Rows) -> list[Step]:
    steps: list[Step] = [whole(name, rows, dense.width, bias=dense.bias)]
    out = Rows(tokens=rows.tokens, width=dense.width)
    if dense.activation:
        mlp = Mlp(width=dense.width, activation=dense.activation, gated=False)
        steps.append(activation(f"{name}.activation", mlp, out.tokens, split="none"))
    if dense.norm is not None:
        steps.append(norm_step(f"{name}.norm", dense.norm, out, split="none"))
    return steps


def _table(name: str, rows: Rows, entries: int) -> Streaming:
    """Return rows of a learned table added to what is there."""
    return Streaming(
        name=name, elements=rows.elements, split="sequence", pattern="", fused=ADD_POSITIONS, unfused=ADD_POSITIONS,
        parameters=entries * rows.width,
    )  # fmt: skip


def _dropout(name: str, rows: Rows) -> Streaming:
    return Streaming(name=name, elements=rows.elements, split="sequence", pattern="", fused=DROPOUT, unfused=DROPOUT, mask_bytes=1.0)
