"""GoogLeNet, the first Inception network."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import ModelError
from foretrain.models import image_patterns as patterns
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import image_model, image_tape
from foretrain.models.tape import Tape

# 1×1; 1×1 and 3×3; 1×1 and 5×5; pooling and 1×1.
_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogLeNet:
    """Nine Inception modules, without the two auxiliary classifiers.

    As published, convolutions have biases and two response normalisations; with `batch_norm` neither. `wide_kernel` is 5 in the paper
    and 3 in torchvision. Source: Szegedy et al., arXiv:1409.4842, table 1.
    """

    name: str
    image_size: int
    classes: int
    batch_norm: bool = False
    wide_kernel: int = 5
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse kernels that would change the size of the maps."""
        if self.wide_kernel not in (3, 5):
            raise ModelError(f"{self.name}: wide_kernel={self.wide_kernel} is neither the paper's 5 nor torchvision's 3; use one of them")


def build(spec: GoogLeNet) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec)
    _conv(tape, spec, 64, 7, "conv1", stride=2).max_pool(3, 2, up=True)
    _response_norm(tape, spec)
    _conv(_conv(tape, spec, 64, 1, "conv2"), spec, 192, 3, "conv3")
    _response_norm(tape, spec)
    stem = tape.max_pool(3, 2, up=True).close("stem")
    layers = [_module(tape, spec, name, widths) for name, widths in _MODULES.items()]
    head = tape.mean().dropout().linear(spec.classes).loss().close("head")
    return image_model(spec, build, stem, layers, head)


def _conv(tape: Tape, spec: GoogLeNet, width: int, kernel: int, name: str, *, stride: int = 1) -> Tape:
    tape.conv(width, kernel, stride=stride, bias=not spec.batch_norm, name=name)
    return tape.norm(relu=True, name=f"{name}.norm") if spec.batch_norm else tape.relu(name=f"{name}.relu")


def _response_norm(tape: Tape, spec: GoogLeNet) -> None:
    if not spec.batch_norm:
        tape.stream("response_norm", patterns.RESPONSE_NORM, reads_again=True)


def _module(tape: Tape, spec: GoogLeNet, name: str, widths: tuple[int, ...]) -> Block:
    one, before_three, three, before_five, five, pooled = widths
    tape.concat(
        lambda branch: _conv(branch, spec, one, 1, "one"),
        lambda branch: _conv(_conv(branch, spec, before_three, 1, "three.reduce"), spec, three, 3, "three"),
        lambda branch: _conv(_conv(branch, spec, before_five, 1, "five.reduce"), spec, five, spec.wide_kernel, "five"),
        lambda branch: _conv(branch.max_pool(3, 1, 1, up=True), spec, pooled, 1, "pooled"),
    )
    if name in ("3b", "4e"):
        tape.max_pool(*((3, 2) if name == "3b" or not spec.batch_norm else (2, 2)), up=True)
    return tape.close(f"inception {name}")
