"""ResNet v1.5: the stride of a bottleneck is in its 3x3 convolution, as in torchvision.

**Source:** He et al., arXiv:1512.03385, table 1; torchvision.models.resnet for the place of the stride.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from foretrain.validate.training.layered import Layered

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Residual blocks of the four groups, by depth."""
BOTTLENECK_FROM = 50
"""Depth from which a block is a bottleneck of three convolutions."""
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
"""Channels out of a bottleneck over those inside."""


def convolution(channels: int, out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps the size up to its stride, and its norm."""
    return [nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(out)]


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int, body: list[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        alike = stride == 1 and channels == out
        self.shortcut = nn.Identity() if alike else nn.Sequential(*convolution(channels, out, 1, stride))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images after the block."""
        return functional.relu(self.body(images) + self.shortcut(images), inplace=True)


def basic(channels: int, width: int, stride: int) -> Residual:
    """Return a block of two 3x3 convolutions."""
    body = [*convolution(channels, width, 3, stride), nn.ReLU(inplace=True), *convolution(width, width, 3)]
    return Residual(channels, width, stride, body)


def bottleneck(channels: int, width: int, stride: int) -> Residual:
    """Return a block of a 1x1, a 3x3 and a 1x1 convolution."""
    body = [*convolution(channels, width, 1), nn.ReLU(inplace=True), *convolution(width, width, 3, stride), nn.ReLU(inplace=True)]
    out = EXPANSION * width
    return Residual(channels, out, stride, [*body, *convolution(width, out, 1)])


def _blocks(depth: int) -> Iterator[Residual]:
    make, grow = (bottleneck, EXPANSION) if depth >= BOTTLENECK_FROM else (basic, 1)
    channels = WIDTHS[0]
    for group, (count, width) in enumerate(zip(BLOCKS[depth], WIDTHS, strict=True)):
        for number in range(count):
            yield make(channels, width, 2 if group and not number else 1)
            channels = width * grow


def resnet(*, depth: int, classes: int) -> Layered:
    """Return a ResNet; images of any size from 32 pixels a side will do."""
    stem = nn.Sequential(*convolution(3, WIDTHS[0], 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1))
    width = WIDTHS[-1] * (EXPANSION if depth >= BOTTLENECK_FROM else 1)
    return Layered(stem, _blocks(depth), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)))
