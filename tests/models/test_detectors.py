"""Detectors and 3D U-Net against their layers in torch: parameters and FLOPs, to the last one."""

from __future__ import annotations

from typing import Any

import pytest

from foretrain.models.load import load_model
from tests.models import vision
from tests.models.test_convnets import flop

torch = pytest.importorskip("torch")
nn = torch.nn


def test_retinanet_is_torchvisions() -> None:
    """Over a ResNeXt-50 with frozen normalisations, the stem and the first stage of which are frozen too."""
    models = vision.library("torchvision").models
    detection = pytest.importorskip("torchvision.models.detection.retinanet")
    utils, misc = pytest.importorskip("torchvision.models.detection.backbone_utils"), pytest.importorskip("torchvision.ops.misc")
    with torch.device("meta"):
        backbone = models.resnext50_32x4d(norm_layer=misc.FrozenBatchNorm2d)
        extra = detection.LastLevelP6P7(256, 256)
        body = utils._resnet_fpn_extractor(backbone, 3, returned_layers=[2, 3, 4], extra_blocks=extra)
        net = detection.RetinaNet(body, 264).train()
        images = torch.empty(2, 3, 800, 800)
        forward, _ = vision.passes_flop(net, lambda n: sum(v.sum() for v in n.head(list(n.backbone(images).values())).values()))
    model = load_model("retinanet")
    assert model.parameters == sum(weight.numel() for weight in net.parameters())
    trained = sum(count * op.parameters for block, count in model.blocks() for op in block.ops if op.trained)
    assert trained == sum(weight.numel() for weight in net.parameters() if weight.requires_grad)
    assert flop(model, "forward") == forward


def ssd(*, large: bool) -> Any:
    """Return MLPerf's SSD over ResNet-34, or NVIDIA's over ResNet-50, whose further scales are normalised."""
    models = vision.library("torchvision").models
    body = models.resnet50() if large else models.resnet34()
    third = body.layer3[0]
    for conv in (third.conv1, third.conv2, third.downsample[0]):
        conv.stride = (1, 1)
    widths = (1024 if large else 256, 512, 512, 256, 256, 256)

    def layer(ins: int, outs: int, *args: int) -> list[Any]:
        return [nn.Conv2d(ins, outs, *args, bias=not large), *([nn.BatchNorm2d(outs)] if large else []), nn.ReLU()]

    class Ssd(nn.Module):  # type: ignore[misc, name-defined]  # torch is optional
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*list(body.children())[:7])
            inner, args = (256, 256, 128, 128, 128), ((3, 2, 1),) * 3 + ((3,),) * 2
            self.scales = nn.ModuleList(
                nn.Sequential(*layer(a, m, 1), *layer(m, b, *more))
                for a, b, m, more in zip(widths[:-1], widths[1:], inner, args, strict=True)
            )
            boxes = (4, 6, 6, 6, 4, 4)
            self.heads = nn.ModuleList(
                nn.ModuleList(nn.Conv2d(w, n * each, 3, padding=1) for w, n in zip(widths, boxes, strict=True)) for each in (4, 81)
            )

        def forward(self, x: Any) -> Any:
            maps = [self.body(x)]
            for scale in self.scales:
                maps.append(scale(maps[-1]))
            return sum(head(one).sum() for heads in self.heads for head, one in zip(heads, maps, strict=True))

    return Ssd()


@pytest.mark.parametrize(("name", "large"), [("ssd-resnet34", False), ("ssd-resnet50", True)])
def test_ssd_is_the_reference(name: str, large: bool) -> None:  # noqa: FBT001  # a parameter
    """Both backbones, 8,732 boxes."""
    with torch.device("meta"):
        net = ssd(large=large)
        passes = vision.passes_flop(net, lambda n: n(torch.empty(2, 3, 300, 300)))
    model = load_model(name)
    assert model.parameters == sum(weight.numel() for weight in net.parameters())
    assert (flop(model, "forward"), flop(model, "backward")) == passes


class Volumes(nn.Module):  # type: ignore[misc, name-defined]  # torch is optional
    """MLPerf's 3D U-Net."""

    def __init__(self) -> None:
        super().__init__()
        widths = [32, 64, 128, 256, 320]
        self.first = self.pair(1, 32, 1)
        self.down = nn.ModuleList(self.pair(a, b, 2) for a, b in zip(widths, [*widths[1:], 320], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, 2) for a, b in zip([320, 320, 256, 128, 64], widths[::-1], strict=True))
        self.merge = nn.ModuleList(self.pair(2 * b, b, 1) for b in widths[::-1])
        self.out = nn.Conv3d(32, 3, 1)

    @staticmethod
    def pair(ins: int, outs: int, stride: int) -> Any:
        """Return two convolutions, each with its normalisation."""
        first, second = nn.Conv3d(ins, outs, 3, stride, 1, bias=False), nn.Conv3d(outs, outs, 3, 1, 1, bias=False)
        norms = [nn.InstanceNorm3d(outs, affine=True) for _ in range(2)]
        return nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU())

    def forward(self, x: Any) -> Any:
        """Return classes for every place."""
        arms = [self.first(x)]
        for down in self.down:
            arms.append(down(arms[-1]))
        x = arms.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat((up(x), arms.pop()), 1))
        return self.out(x)


def test_unet3d_is_the_reference() -> None:
    """Plain and transposed convolutions over three dimensions, forward and backward."""
    with torch.device("meta"):
        net = Volumes()
        passes = vision.passes_flop(net, lambda n: n(torch.empty(2, 1, 64, 64, 64)).sum())
    model = load_model("unet3d").at_image(64)
    assert model.parameters == sum(weight.numel() for weight in net.parameters())
    assert (flop(model, "forward"), flop(model, "backward")) == passes
