"""Inception-v4."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Inception4:
    """Four modules A, seven B, three C, with reductions between them. Source: Szegedy et al., arXiv:1602.07261, figures 3 to 9."""

    name: str
    image_size: int
    classes: int
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: Inception4) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    stem = _stem(tape)
    layers = [_module_a(tape) for _ in range(4)]
    layers.append(_shrink_a(tape))
    layers += [_module_b(tape) for _ in range(7)]
    layers.append(_shrink_b(tape))
    layers += [_module_c(tape) for _ in range(3)]
    head = tape.mean().dropout().linear(spec.classes).loss().close("head")
    return image_model(spec, build, stem, layers, head)


def _stem(tape: Tape) -> Block:
    tape.unit(32, 3, stride=2, padding=0, name="conv1").unit(32, 3, padding=0, name="conv2").unit(64, 3, name="conv3")
    tape.concat(lambda t: t.max_pool(3, 2), lambda t: t.unit(96, 3, stride=2, padding=0, name="conv4"))

    def seven(t: Tape) -> None:
        t.unit(64, 1, name="seven.1").unit(64, (1, 7), name="seven.2").unit(64, (7, 1), name="seven.3")
        t.unit(96, 3, padding=0, name="seven.4")

    tape.concat(lambda t: t.unit(64, 1, name="three.1").unit(96, 3, padding=0, name="three.2"), seven)
    tape.concat(lambda t: t.unit(192, 3, stride=2, padding=0, name="conv5"), lambda t: t.max_pool(3, 2))
    return tape.close("stem")


def _module_a(tape: Tape) -> Block:
    tape.concat(
        lambda t: t.unit(96, 1, name="one"),
        lambda t: t.unit(64, 1, name="three.1").unit(96, 3, name="three.2"),
        lambda t: t.unit(64, 1, name="double.1").unit(96, 3, name="double.2").unit(96, 3, name="double.3"),
        lambda t: t.average_pool(3, 1, 1).unit(96, 1, name="pooled"),
    )
    return tape.close("module A")


def _shrink_a(tape: Tape) -> Block:
    tape.concat(
        lambda t: t.unit(384, 3, stride=2, padding=0, name="three"),
        lambda t: t.unit(192, 1, name="double.1").unit(224, 3, name="double.2").unit(256, 3, stride=2, padding=0, name="double.3"),
        lambda t: t.max_pool(3, 2),
    )
    return tape.close("reduction A")


def _module_b(tape: Tape) -> Block:
    def long(t: Tape) -> None:
        t.unit(192, 1, name="long.1").unit(192, (7, 1), name="long.2").unit(224, (1, 7), name="long.3")
        t.unit(224, (7, 1), name="long.4").unit(256, (1, 7), name="long.5")

    tape.concat(
        lambda t: t.unit(384, 1, name="one"),
        lambda t: t.unit(192, 1, name="seven.1").unit(224, (1, 7), name="seven.2").unit(256, (7, 1), name="seven.3"),
        long,
        lambda t: t.average_pool(3, 1, 1).unit(128, 1, name="pooled"),
    )
    return tape.close("module B")


def _shrink_b(tape: Tape) -> Block:
    def seven(t: Tape) -> None:
        t.unit(256, 1, name="seven.1").unit(256, (1, 7), name="seven.2").unit(320, (7, 1), name="seven.3")
        t.unit(320, 3, stride=2, padding=0, name="seven.4")

    tape.concat(
        lambda t: t.unit(192, 1, name="three.1").unit(192, 3, stride=2, padding=0, name="three.2"), seven, lambda t: t.max_pool(3, 2)
    )
    return tape.close("reduction B")


def _module_c(tape: Tape) -> Block:
    def cross(t: Tape) -> Tape:
        return t.concat(lambda u: u.unit(256, (1, 3), name="wide"), lambda u: u.unit(256, (3, 1), name="high"))

    tape.concat(
        lambda t: t.unit(256, 1, name="one"),
        lambda t: cross(t.unit(384, 1, name="three.1")),
        lambda t: cross(t.unit(384, 1, name="long.1").unit(448, (3, 1), name="long.2").unit(512, (1, 3), name="long.3")),
        lambda t: t.average_pool(3, 1, 1).unit(256, 1, name="pooled"),
    )
    return tape.close("module C")
