"""Convolutional networks of the library against torchvision's and timm's: parameters and FLOPs, to the last one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from foretrain.errors import ModelError
from foretrain.models.convolution import Conv
from foretrain.models.load import load_model, load_spec
from foretrain.models.model import Model
from foretrain.models.ops import Layout
from tests.models import vision

TWO = Layout(micro_batch=2)


def torchvision(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(vision.library("torchvision").models, name)(**options)


def timm(name: str) -> Callable[[], Any]:
    return lambda: vision.library("timm").create_model(name)


NETWORKS: dict[str, Callable[[], Any]] = {
    "alexnet": torchvision("alexnet"),
    **{f"vgg-{depth}": torchvision(f"vgg{depth}") for depth in (11, 13, 16, 19)},
    "vgg-16-bn": torchvision("vgg16_bn"),
    "googlenet-bn": torchvision("googlenet", aux_logits=False, init_weights=False),
    "inception-v3": torchvision("inception_v3", aux_logits=False, init_weights=False),
    "inception-v4": timm("inception_v4"),
    **{f"resnet-{depth}": torchvision(f"resnet{depth}") for depth in (18, 34, 50, 101, 152)},
    "resnet-200": timm("resnet200"),
    "resnext-50-32x4d": torchvision("resnext50_32x4d"),
    "resnext-101-32x4d": timm("resnext101_32x4d"),
    "resnext-101-32x8d": torchvision("resnext101_32x8d"),
    "wide-resnet-50-2": torchvision("wide_resnet50_2"),
    "wide-resnet-101-2": torchvision("wide_resnet101_2"),
    "se-resnet-50": timm("seresnet50"),
    "se-resnext-101-32x4d": timm("seresnext101_32x4d"),
    "densenet-121": torchvision("densenet121"),
    "mobilenet-v2": torchvision("mobilenet_v2"),
    "shufflenet-v2": torchvision("shufflenet_v2_x1_0"),
}


def flop(model: Model, direction: str) -> float:
    return sum(count * kernel.flop for block, count in model.blocks() for op in block.ops for kernel in getattr(op, direction)(TWO))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_counts_as_its_reference(name: str) -> None:
    """Every parameter, and the FLOPs of convolutions and products, forward and backward, the first without a gradient of its data.

    torch's counter leaves the groups out of the gradient of weights, so grouped networks are held forward only.
    """
    torch, model = pytest.importorskip("torch"), load_model(name)
    size = model.image_size
    with torch.device("meta"):
        net = NETWORKS[name]().train()
        forward, backward = vision.passes_flop(net, lambda net: net(torch.empty(2, 3, size, size)).sum())
    assert model.parameters == sum(weight.numel() for weight in net.parameters())
    assert flop(model, "forward") == forward
    grouped = any(isinstance(op, Conv) and op.groups > 1 for block, _ in model.blocks() for op in block.ops)
    assert grouped or flop(model, "backward") == backward


@pytest.mark.parametrize(
    ("name", "multiply_adds", "within"),
    [
        ("alexnet-two-tower", 724e6, 0.01), ("googlenet", 1.58e9, 0.01), ("resnet-50-v1", 3.86e9, 0.01), ("resnet-101-v1", 7.57e9, 0.01),
        ("resnet-152-v1", 11.30e9, 0.01), ("vgg-16", 15.47e9, 0.01), ("lenet-5", 416_520, 0.001),
    ],
)  # fmt: skip
def test_multiply_adds_are_the_published_ones(name: str, multiply_adds: float, within: float) -> None:
    """Canziani et al., arXiv:1605.07678, and the readme of netscope's analyser (dgschwend); LeNet-5 by hand from its figure."""
    assert flop(load_model(name), "forward") / 4 == pytest.approx(multiply_adds, rel=within)


def test_v1_strides_earlier_than_v1_5() -> None:
    """He et al. stride in the first 1×1 convolution, which makes the 3×3 of three blocks work on a quarter of the pixels."""
    later, early = load_model("resnet-50"), load_model("resnet-50-v1")
    assert later.parameters == early.parameters
    # Each 1×1 grows fourfold less, over 56², 28² and 14² pixels: 3 · (56² - 28²) · 256 · 128 / 4 … by stage, twice the inputs.
    saved = sum(2 * 2 * (4 * side**2 - side**2) * wide * wide // 2 for side, wide in ((28, 256), (14, 512), (7, 1024)))
    assert flop(later, "forward") - flop(early, "forward") == saved


def test_a_smaller_image_is_a_smaller_network() -> None:
    """160 pixels of 224 are 5·5 of 7·7 places at the end; the parameters stay."""
    small = load_model("resnet-50").at_image(160)
    assert small.parameters == load_model("resnet-50").parameters
    assert 0.5 < flop(small, "forward") / flop(load_model("resnet-50"), "forward") < 0.53
    assert small.image_size == 160


def test_an_image_too_small_is_refused() -> None:
    """With the size at which no window is left."""
    with pytest.raises(ModelError, match="use larger images"):
        load_model("inception-v3").at_image(40)


def test_pipelines_cut_at_residual_blocks() -> None:
    """16 bottlenecks, the second of which takes 256 maps of 56²; equal ones in a row are one block with a count."""
    model = load_model("resnet-50")
    assert model.depth == 16
    assert [count for _, count in model.layers] == [1, 2, 1, 3, 1, 5, 1, 2]
    assert model.layers[0][0].input_elements == 64 * 56**2
    assert model.layers[1][0].input_elements == 256 * 56**2


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("resnet-50", {"stride_in": "2x2"}, "use one of 3x3, 1x1"), ("resnet-18", {"groups": 2}, "set bottleneck: true"),
        ("alexnet", {"towers": 3}, "use 1 or 2"), ("googlenet", {"wide_kernel": 4}, "use one of them"),
        ("shufflenet-v2", {"widths": (116, 232)}, "give 4 even numbers"),
    ],
)  # fmt: skip
def test_networks_that_were_never_built_are_refused(name: str, change: dict[str, Any], said: str) -> None:
    """With what can be."""
    with pytest.raises(ModelError, match=said):
        replace(load_spec(name), **change)
