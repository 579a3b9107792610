"""RetinaNet: a feature pyramid over a ResNeXt-50, and two towers of convolutions that all its levels share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models import image_patterns as patterns
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import RGB, image_model
from foretrain.models.networks.resnet import ResNet, residual_block
from foretrain.models.tape import Tape, Tensor

WIDTH = 256
ANCHORS = 9
SIDES = 4
TOWER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RetinaNet:
    """A detector of `classes`; the backbone's normalisations are frozen, and so are its first `frozen` stages, the stem being one.

    Source: Lin et al., arXiv:1708.02002, section 4; the backbone's dimensions are `ResNet`'s.
    """

    name: str
    layers: tuple[int, ...]
    groups: int
    group_width: int
    image_size: int
    classes: int
    frozen: int = 2
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: RetinaNet) -> Model:
    """Return the model that these dimensions define."""
    size = (spec.image_size, spec.image_size)
    tape = Tape(Tensor(channels=RGB, size=size, grad=False), trained=spec.frozen < 1, frozen_norm=True)
    stem = tape.unit(64, 7, stride=2, name="conv1").max_pool(3, 2, 1).close("stem")
    stages = [_stage(tape, spec, stage) for stage in range(len(spec.layers))]
    layers = [block for blocks, _ in stages for block in blocks]
    levels, pyramid = _pyramid(tape, [end for _, end in stages[1:]])
    return image_model(spec, build, stem, layers, pyramid, _heads(spec, levels))


def _stage(tape: Tape, spec: RetinaNet, stage: int) -> tuple[list[Block], Tensor]:
    """Return the blocks of a stage, and the tensor that it ends in."""
    tape.trained = stage + 1 >= spec.frozen
    like = ResNet(name="", layers=spec.layers, bottleneck=True, image_size=1, classes=1, groups=spec.groups, group_width=spec.group_width)
    blocks = []
    for number in range(spec.layers[stage]):
        residual_block(tape, like, 64 * 2**stage, 2 if stage and not number else 1, changes=not number)
        blocks.append(tape.close(f"stage{stage + 1}"))
    return blocks, tape.tensor


def _pyramid(tape: Tape, ends: list[Tensor]) -> tuple[list[Tensor], Block]:
    """Lay the pyramid: each level is a projection of its stage plus the level above, and two more are convolutions of stride 2."""
    levels: list[Tensor] = []
    for number, end in enumerate(reversed(ends)):
        tape.tensor = end
        tape.conv(WIDTH, 1, bias=True, name=f"inner{number}")
        if levels:
            tape.stream("upsample", patterns.UPSAMPLE).stream("add", patterns.ADD)
        top = tape.tensor
        tape.conv(WIDTH, 3, bias=True, name=f"level{number}")
        levels.insert(0, tape.tensor)
        tape.tensor = top
    tape.tensor = levels[-1]
    tape.conv(WIDTH, 3, stride=2, bias=True, name="level6")
    levels.append(tape.tensor)
    tape.relu().conv(WIDTH, 3, stride=2, bias=True, name="level7")
    levels.append(tape.tensor)
    return levels, tape.close("pyramid")


def _heads(spec: RetinaNet, levels: list[Tensor]) -> Block:
    tape = Tape(replace(levels[0]))
    for number, level in enumerate(levels):
        tape.tensor = level
        _tower(tape, "class", ANCHORS * spec.classes, shared=number > 0)
        tape.tensor = level
        _tower(tape, "box", ANCHORS * SIDES, shared=number > 0)
    return tape.close("heads")


def _tower(tape: Tape, name: str, outputs: int, *, shared: bool) -> None:
    for number in range(TOWER):
        tape.conv(WIDTH, 3, bias=True, shared=shared, name=f"{name}{number + 1}").relu()
    tape.conv(outputs, 3, bias=True, shared=shared, name=f"{name}.out").stream("gather", patterns.GATHERED)
    if name == "class":
        tape.stream("focal_loss", patterns.FOCAL_LOSS_EAGER, fused=patterns.FOCAL_LOSS, pattern="cross_entropy")
