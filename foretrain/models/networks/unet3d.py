"""3D U-Net: volumes shrink through one arm and grow through the other, which reads what the first left at each size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from foretrain.models import image_patterns as patterns
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import resized
from foretrain.models.tape import Tape, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class UNet3d:
    """Two 3×3×3 convolutions with instance normalisation at each of `widths`, and once more at the last of them below.

    A pipeline cannot cut it: what one arm leaves is read at the far end. Source: Isensee et al., arXiv:1809.10486; MLPerf Training's
    image segmentation benchmark (KiTS19).
    """

    name: str
    widths: tuple[int, ...]
    image_size: int
    classes: int
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: UNet3d) -> Model:
    """Return the model that these dimensions define."""
    tape = Tape(Tensor(channels=1, size=(spec.image_size,) * 3, grad=False))
    down, skips = [_pair(tape, spec.widths[0], "input", stride=1)], [tape.tensor]
    for width in spec.widths[1:]:
        down.append(_pair(_forked(tape), width, f"down{width}", stride=2))
        skips.append(tape.tensor)
    bottom = _pair(_forked(tape), spec.widths[-1], "bottleneck", stride=2)
    up = [_grow(tape, skip) for skip in reversed(skips)]
    head = tape.conv(spec.classes, 1, bias=True, name="output").loss().close("head")
    return Model(
        name=spec.name, key=spec.key or spec.name, seq_len=None, image_size=spec.image_size, prologue=tuple(down),
        layers=((bottom, 1),), epilogue=(*up, head), tied_parameters=0, tensor_dims={}, rebuild=partial(resized, spec, build),
        assumed=spec.assumed,
    )  # fmt: skip


def _forked(tape: Tape) -> Tape:
    """Note that the tensor is read twice, here and in the other arm."""
    tape.branches(lambda _same: None, lambda _same: None)
    return tape


def _pair(tape: Tape, width: int, name: str, *, stride: int) -> Block:
    tape.unit(width, 3, stride=stride, padding=1, name="conv1").unit(width, 3, name="conv2")
    return tape.close(name)


def _grow(tape: Tape, skip: Tensor) -> Block:
    tape.up_conv(skip.channels, 2, bias=True)
    tape.tensor = Tensor(channels=2 * skip.channels, size=skip.size)
    tape.stream("concat", patterns.CONCAT)
    tape.unit(skip.channels, 3, name="conv1").unit(skip.channels, 3, name="conv2")
    return tape.close(f"up{skip.channels}")
