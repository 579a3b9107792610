"""SSD: boxes at six scales over a residual backbone that keeps the resolution of its second stage."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models import image_patterns as patterns
from foretrain.models.loss import CrossEntropy
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.networks.resnet import ResNet, residual_block
from foretrain.models.tape import Tape, Tensor

SIDES = 4
# Boxes a pixel at each scale.
_BOXES = (4, 6, 6, 6, 4, 4)
# Channels between and after the two convolutions that lead to the next scale; the last two neither stride nor pad.
_SCALES = ((256, 512, True), (256, 512, True), (128, 256, True), (128, 256, False), (128, 256, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssd:
    """A detector of `classes`, background among them, over three stages of a ResNet, the third of stride 1.

    `batch_norm` stands behind the convolutions of the further scales. Source: Liu et al., arXiv:1512.02325, as MLPerf's reference
    builds it over ResNet-34 and NVIDIA's examples over ResNet-50.
    """

    name: str
    layers: tuple[int, ...]
    bottleneck: bool
    image_size: int
    classes: int
    batch_norm: bool = False
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: Ssd) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    stem = tape.unit(64, 7, stride=2, name="conv1").max_pool(3, 2, 1).close("stem")
    layers = _backbone(tape, spec)
    maps = [tape.tensor]
    for number, (inner, outer, shrinks) in enumerate(_SCALES, 2):
        bias = not spec.batch_norm
        _rectify(tape.conv(inner, 1, bias=bias, name=f"scale{number}.1"), spec)
        _rectify(tape.conv(outer, 3, stride=1 + shrinks, padding=int(shrinks), bias=bias, name=f"scale{number}.2"), spec)
        layers.append(tape.close(f"scale{number}"))
        maps.append(tape.tensor)
    return image_model(spec, build, stem, layers, _heads(spec, maps))


def _backbone(tape: Tape, spec: Ssd) -> list[Block]:
    like = ResNet(name="", layers=spec.layers, bottleneck=spec.bottleneck, image_size=1, classes=1)
    blocks = []
    for stage, count in enumerate(spec.layers):
        for number in range(count):
            width = 64 * 2**stage
            changes = not number and tape.channels != width * like.expansion
            residual_block(tape, like, width, 2 if stage == 1 and not number else 1, changes=changes)
            blocks.append(tape.close(f"stage{stage + 1}"))
    return blocks


def _rectify(tape: Tape, spec: Ssd) -> None:
    if spec.batch_norm:
        tape.norm(relu=True)
    else:
        tape.relu()


def _heads(spec: Ssd, maps: list[Tensor]) -> Block:
    tape = Tape(maps[0])
    boxes = 0
    for number, (tensor, count) in enumerate(zip(maps, _BOXES, strict=True), 1):
        for name, outputs in (("box", count * SIDES), ("class", count * spec.classes)):
            tape.tensor = tensor
            tape.conv(outputs, 3, bias=True, name=f"{name}{number}").stream("gather", patterns.GATHERED)
        boxes += count * tensor.size[0] * tensor.size[1]
    tape.steps.append(CrossEntropy(name="cross_entropy", tokens=boxes, vocab=spec.classes))
    return tape.close("heads")
