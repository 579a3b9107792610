"""ShuffleNetV2: half of the channels pass through, the other half through a depthwise block, then all are shuffled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.errors import ModelError
from foretrain.models import image_patterns as patterns
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleNet2:
    """`layers` blocks a stage of `widths` channels; the last width is that before the classifier.

    Source: Ma et al., arXiv:1807.11164, table 5 and figure 3.
    """

    name: str
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    image_size: int
    classes: int
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse stages without a width, and widths that have no half."""
        if len(self.widths) != len(self.layers) + 1 or any(width % 2 for width in self.widths):
            stages = len(self.layers)
            raise ModelError(f"{self.name}: widths={self.widths} do not fit {stages} stages; give {stages + 1} even numbers")


def build(spec: ShuffleNet2) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    stem = tape.unit(24, 3, stride=2, name="conv1").max_pool(3, 2, 1).close("stem")
    *widths, last = spec.widths
    layers = [_block(tape, width, shrink=not number) for count, width in zip(spec.layers, widths, strict=True) for number in range(count)]
    tape.unit(last, 1, name="conv5").mean()
    return image_model(spec, build, stem, layers, tape.linear(spec.classes).loss().close("head"))


def _block(tape: Tape, width: int, *, shrink: bool) -> Block:
    half, stride = width // 2, 2 if shrink else 1

    def body(t: Tape) -> None:
        t.unit(half, 1, name="conv1").conv(half, 3, stride=stride, groups=half, name="depthwise").norm(name="depthwise.norm")
        t.unit(half, 1, name="conv2")

    def short(t: Tape) -> None:
        t.conv(t.channels, 3, stride=2, groups=t.channels, name="short.depthwise").norm(name="short.norm").unit(half, 1, name="short.conv")

    if shrink:
        tape.concat(short, body)
    else:
        # Halves are views; backward writes both halves' gradients into one tensor.
        tape.stream("split", patterns.SPLIT)
        part = replace(tape.tensor, channels=half)
        tape.tensor = part
        body(tape)
        tape.tensor = replace(tape.tensor, channels=width, kept=False)
        tape.stream("concat", patterns.CONCAT)
    return tape.stream("shuffle", patterns.SHUFFLE).close(f"stage{width}")
