"""MobileNetV2: inverted residuals around depthwise convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models import image_patterns as patterns
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape

# Widening, channels, blocks, stride of the first.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNet2:
    """Seventeen inverted residual blocks. Source: Sandler et al., arXiv:1801.04381, table 2."""

    name: str
    image_size: int
    classes: int
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: MobileNet2) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    stem = tape.unit(32, 3, stride=2, name="conv1").close("stem")
    layers = [
        _block(tape, widening, width, first if not number else 1) for widening, width, count, first in _STAGES for number in range(count)
    ]
    tape.unit(1280, 1, name="conv18").mean().dropout()
    return image_model(spec, build, stem, layers, tape.linear(spec.classes).loss().close("head"))


def _block(tape: Tape, widening: int, width: int, stride: int) -> Block:
    inner = tape.channels * widening

    def body(t: Tape) -> None:
        if widening > 1:
            t.unit(inner, 1, name="expand")
        t.unit(inner, 3, stride=stride, groups=inner, name="depthwise").conv(width, 1, name="project").norm(name="project.norm")

    if stride == 1 and tape.channels == width:
        tape.tensor = tape.branches(body, lambda _same: None)[0]
        tape.stream("add", patterns.ADD)
    else:
        body(tape)
    return tape.close(f"block{width}")
