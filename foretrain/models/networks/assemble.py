"""From the blocks of a network to a model that can be made again for other images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from foretrain.models.model import Block, Model
from foretrain.models.tape import Tape, Tensor

RGB = 3


def image_tape(spec: Any, channels: int = RGB) -> Tape:
    """Return a tape that begins with square images, which need no gradient."""
    return Tape(Tensor(channels=channels, size=(spec.image_size, spec.image_size), grad=False))


def image_model(spec: Any, build: Callable[[Any], Model], stem: Block, layers: Iterable[Block], *head: Block) -> Model:
    """Return a network of images: what comes first, the blocks that a pipeline can cut, and what ends in the loss.

    Equal blocks in a row become one with a count. `spec` has `name`, `key`, `image_size` and `assumed`; `build` makes the model of one.
    """
    return Model(
        name=spec.name, key=spec.key or spec.name, seq_len=None, image_size=spec.image_size, prologue=(stem,), layers=runs(layers),
        epilogue=head, tied_parameters=0, tensor_dims={}, rebuild=partial(resized, spec, build), assumed=spec.assumed,
    )  # fmt: skip


def runs(blocks: Iterable[Block]) -> tuple[tuple[Block, int], ...]:
    """Return blocks with how often each comes in a row."""
    return tuple((block, len(list(equal))) for block, equal in groupby(blocks))


def resized(spec: Any, build: Callable[[Any], Model], image_size: int) -> Model:
    """Return the network for other images."""
    return build(replace(spec, image_size=image_size))
