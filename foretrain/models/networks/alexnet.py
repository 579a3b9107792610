"""AlexNet in one tower, as it was written again later, or in two, as it was published."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import ModelError
from foretrain.models import image_patterns as patterns
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class AlexNet:
    """Five convolutions and three products.

    Source: Krizhevsky et al. (2012), section 3.5, two `towers`, whose grouped convolutions see half of the maps, with response
    normalisation; Krizhevsky, arXiv:1404.5997, one tower without.
    """

    name: str
    image_size: int
    classes: int
    towers: int = 1
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse other towers."""
        if self.towers not in (1, 2):
            raise ModelError(f"{self.name}: towers={self.towers} was never built; use 1 or 2")


# Filters, kernel and whether a pooling follows.
_ONE = ((192, 5, True), (384, 3, False), (256, 3, False), (256, 3, True))
_TWO = ((256, 5, True), (384, 3, False), (384, 3, False), (256, 3, True))


def build(spec: AlexNet) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    two = spec.towers == 2
    _layer(tape.conv(96 if two else 64, 11, stride=4, padding=2, bias=True, name="conv1"), norm=two, pool=True)
    stem = tape.close("stem")
    layers = [_conv(tape, number, *row, two=two) for number, row in enumerate(_TWO if two else _ONE, 2)]
    if not two:
        tape.mean(6)
    return image_model(spec, build, stem, layers, classifier(tape, 4096, spec.classes))


def classifier(tape: Tape, width: int, classes: int) -> Block:
    """Return two wide products with dropouts, and the last one with the loss."""
    tape.dropout().linear(width, name="linear1").relu().dropout().linear(width, name="linear2").relu()
    return tape.linear(classes, name="linear3").loss().close("head")


def _conv(tape: Tape, number: int, width: int, kernel: int, pool: bool, *, two: bool) -> Block:  # noqa: FBT001 - a row of the table
    # The third layer is the one that sees both towers.
    groups = 2 if two and number != 3 else 1
    tape.conv(width, kernel, groups=groups, bias=True, name=f"conv{number}")
    _layer(tape, norm=two and number == 2, pool=pool)
    return tape.close(f"conv{number}")


def _layer(tape: Tape, *, norm: bool, pool: bool) -> None:
    tape.relu()
    if norm:
        tape.stream("response_norm", patterns.RESPONSE_NORM, reads_again=True)
    if pool:
        tape.max_pool(3, 2)
