"""What the trainer's own networks have in common: a stem, blocks in a row, and a head, so that every layout cuts them alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class Layered(nn.Module):
    """A stem, blocks and a head, one after the other. A pipeline's chunk is one too, with some blocks, and one end or none."""

    def __init__(self, stem: nn.Module | None, blocks: Iterable[nn.Module], head: nn.Module | None) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head

    def forward(self, rows: torch.Tensor) -> Any:
        """Return what the head makes of the rows, or what the next chunk is to get."""
        if self.stem is not None:
            rows = self.stem(rows)
        for block in self.blocks:
            rows = block(rows)
        return rows if self.head is None else self.head(rows)


def blocks_of(module: nn.Module) -> nn.ModuleList:
    """Return the blocks that a module repeats: the longest of its module lists, none where it has none."""
    lists = [one for one in module.modules() if isinstance(one, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())
