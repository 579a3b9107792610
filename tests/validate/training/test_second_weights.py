"""The weights of the second opinions are those of the torch trainer, by name and size."""

import math

import pytest

from foretrain.validate.case import net_of
from foretrain.validate.training.second_weights import parameters_of, weights_of

NETS = (
    "mlp:width=16,depth=3,classes=7",
    "gpt:layers=2,hidden=16,heads=4,seq=8,vocab=11",
    "resnet:depth=18,image=32,classes=5",
    "resnet:depth=50,image=32,classes=5",
)


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_resnets_have_the_published_counts(depth, parameters):
    """Those of torchvision's documentation, for the 1000 classes of ImageNet."""
    assert parameters_of(net_of(f"resnet:depth={depth},classes=1000")) == parameters


def test_gpt_2_has_the_parameters_of_its_closed_form():
    """12 L h² + 13 L h for the blocks, (V + s) h for the tables, 2 h for the last norm, V h for the output layer."""
    layers, hidden, seq, vocab = 12, 768, 1024, 50257
    closed = 12 * layers * hidden**2 + 13 * layers * hidden + (vocab + seq) * hidden + 2 * hidden + vocab * hidden
    assert parameters_of(net_of(f"gpt:layers={layers},hidden={hidden},heads=12,seq={seq},vocab={vocab}")) == closed


@pytest.mark.parametrize("text", NETS)
def test_weights_are_those_of_the_torch_modules(text):
    pytest.importorskip("torch", reason="torch is not installed")
    from foretrain.validate.training.nets import build  # noqa: PLC0415  # it needs torch

    ours = {name: math.prod(one.shape) for name, one in weights_of(net_of(text)).items()}
    assert ours == {name: one.numel() for name, one in build(net_of(text)).module.named_parameters()}
