"""Inception-v3."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Inception3:
    """Eleven modules of four kinds over a deep stem, without the auxiliary classifier.

    Source: Szegedy et al., arXiv:1512.00567, table 1, with the widths of its released model.
    """

    name: str
    image_size: int
    classes: int
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: Inception3) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    tape.unit(32, 3, stride=2, padding=0, name="conv1").unit(32, 3, padding=0, name="conv2").unit(64, 3, name="conv3").max_pool(3, 2)
    stem = tape.unit(80, 1, name="conv4").unit(192, 3, padding=0, name="conv5").max_pool(3, 2).close("stem")
    layers = [_module_a(tape, width) for width in (32, 64, 64)]
    layers.append(_shrink_a(tape))
    layers += [_module_b(tape, width) for width in (128, 160, 160, 192)]
    layers.append(_shrink_b(tape))
    layers += [_module_c(tape) for _ in range(2)]
    head = tape.mean().dropout().linear(spec.classes).loss().close("head")
    return image_model(spec, build, stem, layers, head)


def _module_a(tape: Tape, pooled: int) -> Block:
    tape.concat(
        lambda t: t.unit(64, 1, name="one"),
        lambda t: t.unit(48, 1, name="five.1").unit(64, 5, name="five.2"),
        lambda t: t.unit(64, 1, name="three.1").unit(96, 3, name="three.2").unit(96, 3, name="three.3"),
        lambda t: t.average_pool(3, 1, 1).unit(pooled, 1, name="pooled"),
    )
    return tape.close(f"module A {pooled}")


def _shrink_a(tape: Tape) -> Block:
    tape.concat(
        lambda t: t.unit(384, 3, stride=2, padding=0, name="three"),
        lambda t: t.unit(64, 1, name="two.1").unit(96, 3, name="two.2").unit(96, 3, stride=2, padding=0, name="two.3"),
        lambda t: t.max_pool(3, 2),
    )
    return tape.close("reduction A")


def _module_b(tape: Tape, width: int) -> Block:
    def long(t: Tape) -> None:
        t.unit(width, 1, name="long.1").unit(width, (7, 1), name="long.2").unit(width, (1, 7), name="long.3")
        t.unit(width, (7, 1), name="long.4").unit(192, (1, 7), name="long.5")

    tape.concat(
        lambda t: t.unit(192, 1, name="one"),
        lambda t: t.unit(width, 1, name="seven.1").unit(width, (1, 7), name="seven.2").unit(192, (7, 1), name="seven.3"),
        long,
        lambda t: t.average_pool(3, 1, 1).unit(192, 1, name="pooled"),
    )
    return tape.close(f"module B {width}")


def _shrink_b(tape: Tape) -> Block:
    def seven(t: Tape) -> None:
        t.unit(192, 1, name="seven.1").unit(192, (1, 7), name="seven.2").unit(192, (7, 1), name="seven.3")
        t.unit(192, 3, stride=2, padding=0, name="seven.4")

    tape.concat(
        lambda t: t.unit(192, 1, name="three.1").unit(320, 3, stride=2, padding=0, name="three.2"), seven, lambda t: t.max_pool(3, 2)
    )
    return tape.close("reduction B")


def _module_c(tape: Tape) -> Block:
    def cross(t: Tape) -> Tape:
        return t.concat(lambda u: u.unit(384, (1, 3), name="wide"), lambda u: u.unit(384, (3, 1), name="high"))

    tape.concat(
        lambda t: t.unit(320, 1, name="one"),
        lambda t: cross(t.unit(384, 1, name="three.1")),
        lambda t: cross(t.unit(448, 1, name="double.1").unit(384, 3, name="double.2")),
        lambda t: t.average_pool(3, 1, 1).unit(192, 1, name="pooled"),
    )
    return tape.close("module C")
