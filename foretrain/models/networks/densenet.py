"""DenseNet: every layer sees the maps of all layers before it in its block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseNet:
    """`layers` dense layers a block, each adding `growth` maps, behind a stem of `stem_width`. Source: Huang et al., arXiv:1608.06993."""

    name: str
    layers: tuple[int, ...]
    growth: int
    stem_width: int
    image_size: int
    classes: int
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: DenseNet) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    stem = tape.unit(spec.stem_width, 7, stride=2, name="conv1").max_pool(3, 2, 1).close("stem")
    layers = list(_layers(tape, spec))
    tape.norm(relu=True).mean()
    return image_model(spec, build, stem, layers, tape.linear(spec.classes).loss().close("head"))


def _layers(tape: Tape, spec: DenseNet) -> Iterator[Block]:
    for number, count in enumerate(spec.layers, 1):
        for _ in range(count):
            yield _dense(tape, spec.growth, f"dense{number}")
        if number < len(spec.layers):
            tape.norm(relu=True).conv(tape.channels // 2, 1).average_pool(2, 2)
            yield tape.close(f"transition{number}")


def _dense(tape: Tape, growth: int, name: str) -> Block:
    def body(t: Tape) -> None:
        t.norm(relu=True, name="norm1").unit(4 * growth, 1, name="conv1").conv(growth, 3, name="conv2")

    return tape.concat(lambda _same: None, body).close(name)
