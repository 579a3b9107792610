"""LeNet-5 for digits, in the form that frameworks ship as their first example."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.model import Model
from foretrain.models.networks.assemble import image_model, image_tape


@dataclass(frozen=True, slots=True, kw_only=True)
class LeNet:
    """Two convolutions of 5×5, two poolings, three products. Source: LeCun et al., Proc. IEEE 86 (1998), figure 2, all maps connected."""

    name: str
    image_size: int
    classes: int
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: LeNet) -> Model:
    """Return the model that these dimensions define."""
    tape = image_tape(spec, channels=1)
    stem = tape.conv(6, 5, padding=0, bias=True, name="conv1").relu().max_pool(2, 2).close("stem")
    layer = tape.conv(16, 5, padding=0, bias=True, name="conv2").relu().max_pool(2, 2).close("conv2")
    tape.linear(120, name="linear1").relu().linear(84, name="linear2").relu()
    return image_model(spec, build, stem, [layer], tape.linear(spec.classes, name="linear3").loss().close("head"))
