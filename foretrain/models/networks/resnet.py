"""Residual networks: ResNet, ResNeXt, wide ones, and all of these with squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foretrain.errors import ModelError
from foretrain.fields import words_of
from foretrain.models import image_patterns as patterns
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape

EXPANSION = 4
"""Channels that a bottleneck block leaves over those of its stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet:
    """A residual network of `layers` blocks a stage.

    `bottleneck` blocks are 1×1, 3×3, 1×1 convolutions, the others two of 3×3. The first block of a later stage strides in its 3×3
    convolution (`stride_in: 3x3`, v1.5 and v1b) or in its first (`1x1`, v1). `groups` of `group_width` channels at the first stage
    make a ResNeXt, `group_width` above 64 in one group a wide ResNet. `squeeze` adds squeeze-and-excitation, with a 16th of the
    channels between its two layers, which have biases where `squeeze_bias`.
    Source: He et al., arXiv:1512.03385, table 1; Xie et al., arXiv:1611.05431; Zagoruyko and Komodakis, arXiv:1605.07146;
    Hu et al., arXiv:1709.01507.
    """

    name: str
    layers: tuple[int, ...]
    bottleneck: bool
    image_size: int
    classes: int
    groups: int = 1
    group_width: int = 64
    stride_in: str = "3x3"
    squeeze: bool = False
    dropout: bool = False
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse groups that plain blocks do not have, and strides elsewhere."""
        if self.stride_in not in words_of("stride_in"):
            raise ModelError(f"{self.name}: stride_in={self.stride_in!r} is no convolution; use one of {', '.join(words_of('stride_in'))}")
        if not self.bottleneck and (self.groups > 1 or self.group_width != 64):
            raise ModelError(f"{self.name}: only bottleneck blocks have groups and other widths; set bottleneck: true, or leave them out")

    @property
    def expansion(self) -> int:
        """Channels that a block leaves over those of its stage."""
        return EXPANSION if self.bottleneck else 1


def build(spec: ResNet) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    tape.unit(64, 7, stride=2, name="conv1").max_pool(3, 2, 1)
    stem = tape.close("stem")
    layers = list(residual_layers(tape, spec))
    tape.mean()
    if spec.dropout:
        tape.dropout()
    head = tape.linear(spec.classes).loss().close("head")
    return image_model(spec, build, stem, layers, head)


def residual_layers(tape: Tape, spec: ResNet) -> Iterator[Block]:
    """Yield the residual blocks, stage by stage."""
    for stage, count in enumerate(spec.layers):
        width = 64 * 2**stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            changes = stride > 1 or tape.channels != width * spec.expansion
            residual_block(tape, spec, width, stride, changes=changes)
            yield tape.close(f"stage{stage + 1}")


def residual_block(tape: Tape, spec: ResNet, width: int, stride: int, *, changes: bool) -> None:
    """Lay one block; where it `changes` the shape its shortcut is a 1×1 convolution."""
    outputs = width * spec.expansion

    def body(branch: Tape) -> None:
        if spec.bottleneck:
            inner = width * spec.group_width // 64 * spec.groups
            early = stride if spec.stride_in == "1x1" else 1
            branch.unit(inner, 1, stride=early, name="conv1").unit(inner, 3, stride=stride // early, groups=spec.groups, name="conv2")
            branch.conv(outputs, 1, name="conv3")
        else:
            branch.unit(width, 3, stride=stride, name="conv1").conv(width, 3, name="conv2")
        if spec.squeeze:
            branch.norm(name="norm3")
            squeeze(branch, outputs // 16)

    def shortcut(branch: Tape) -> None:
        if changes:
            branch.conv(outputs, 1, stride=stride, name="shortcut").norm(name="shortcut.norm")

    tape.residual(body, shortcut, norm=not spec.squeeze)


def squeeze(tape: Tape, width: int) -> None:
    """Lay squeeze-and-excitation: two small layers over the means of the maps give each map a factor."""
    maps = tape.tensor

    def factors(branch: Tape) -> None:
        branch.mean(name="squeeze").conv(width, 1, bias=True, name="squeeze.down").relu(name="squeeze.relu")
        branch.conv(maps.channels, 1, bias=True, name="squeeze.up").smooth(name="squeeze.sigmoid")

    tape.branches(factors, lambda _maps: None)
    tape.tensor = maps
    tape.stream("squeeze.scale", patterns.SCALE, reads_again=True)
