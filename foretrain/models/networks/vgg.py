"""VGG: stacks of 3×3 convolutions between poolings, and three wide products."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.model import Block, Model
from foretrain.models.networks.alexnet import classifier
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Vgg:
    """`layers` convolutions before each pooling, with batch normalisation or, as published, without.

    Source: Simonyan and Zisserman, arXiv:1409.1556, table 1.
    """

    name: str
    layers: tuple[int, ...]
    image_size: int
    classes: int
    batch_norm: bool = False
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: Vgg) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    stem, *layers = [_stage(tape, spec, count, min(512, 64 * 2**stage)) for stage, count in enumerate(spec.layers)]
    tape.mean(7)
    return image_model(spec, build, stem, layers, _head(tape, spec))


def _stage(tape: Tape, spec: Vgg, count: int, width: int) -> Block:
    for number in range(count):
        tape.conv(width, 3, bias=True, name=f"conv{number + 1}")
        if spec.batch_norm:
            tape.norm(relu=True)
        else:
            tape.relu()
    return tape.max_pool(2, 2).close(f"stage{width}")


def _head(tape: Tape, spec: Vgg) -> Block:
    return classifier(tape, 4096, spec.classes)
