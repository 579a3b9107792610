"""A multilayer perceptron with residual blocks of two linear layers, so that tensor parallelism cuts one by columns and one by rows."""

from __future__ import annotations

import torch
from torch import nn

from foretrain.validate.training.layered import Layered


class MlpBlock(nn.Module):
    """x + down(gelu(up(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, width)
        self.act = nn.GELU()
        self.down = nn.Linear(width, width)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows with what the block adds."""
        added: torch.Tensor = self.down(self.act(self.up(rows)))
        return rows + added


def mlp(*, width: int, depth: int, classes: int) -> Layered:
    """Return a perceptron of `depth` blocks between a first and a last linear layer: 2 · depth + 2 linear layers."""
    return Layered(nn.Linear(width, width), [MlpBlock(width) for _ in range(depth)], nn.Linear(width, classes))
