"""A small GPT, MLP and convolution network, as two processes train them for `test_wire.py` and as the simulator traces them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BATCH, MICRO_BATCHES = 8, 4
"""Samples of a step over all replicas, and micro-batches that a pipeline cuts them into."""
HIDDEN, HEADS, LAYERS, SEQ, VOCAB = 128, 4, 4, 16, 1024
WIDTH, DEPTH = 1024, 10
CHANNELS = 256


class Attention(nn.Module):
    """Causal attention; heads are counted from the tensor, so that one that is cut works too."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))
        self.out = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Any) -> Any:
        """Return what the rows attend to."""
        parts = [one(x).unflatten(-1, (-1, HIDDEN // HEADS)).transpose(1, 2) for one in (self.query, self.key, self.value)]
        joined = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        return self.out(joined.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer layer, norms first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(HIDDEN), Attention(), nn.LayerNorm(HIDDEN)
        self.mlp = nn.Sequential(nn.Linear(HIDDEN, 4 * HIDDEN), nn.GELU(), nn.Linear(4 * HIDDEN, HIDDEN))

    def forward(self, x: Any) -> Any:
        """Return the rows after attention and MLP."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """Embedding, layers, norm and head; a pipeline stage has None for what it lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding: nn.Module | None = nn.Embedding(VOCAB, HIDDEN)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm: nn.Module | None = nn.LayerNorm(HIDDEN)
        self.head: nn.Module | None = nn.Linear(HIDDEN, VOCAB, bias=False)

    def forward(self, x: Any) -> Any:
        """Return the logits of each row."""
        x = x if self.embedding is None else self.embedding(x)
        for block in self.blocks:
            x = block(x)
        x = x if self.norm is None else self.norm(x)
        return x if self.head is None else self.head(x)


class Mlp(nn.Module):
    """Layers of one width."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(DEPTH))

    def forward(self, x: Any) -> Any:
        """Return the output of the last layer."""
        for block in self.blocks:
            x = block(x)
        return x


class Convolutions(nn.Module):
    """Convolutions with batch norms, whose running statistics are buffers."""

    def __init__(self) -> None:
        super().__init__()
        ends = [(3, CHANNELS), (CHANNELS, CHANNELS)]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(ins, outs, 3, padding=1, bias=False), nn.BatchNorm2d(outs), nn.ReLU()) for ins, outs in ends
        )
        self.head = nn.Linear(CHANNELS, VOCAB)

    def forward(self, x: Any) -> Any:
        """Return the logits of each image."""
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


NETS = {"gpt": Gpt, "mlp": Mlp, "conv": Convolutions}


def inputs(net: str, samples: int) -> Any:
    """Return samples of a network."""
    return {"gpt": torch.randint(VOCAB, (samples, SEQ)), "mlp": torch.randn(samples, WIDTH), "conv": torch.randn(samples, 3, 8, 8)}[net]


def loss(out: Any, target: Any = None) -> Any:
    """Return the cross-entropy of all rows."""
    rows = out.flatten(0, -2)
    return nn.functional.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long, device=out.device) if target is None else target)
