"""A GPT: learned positions, LayerNorm before each half of a block, separate projections, and an output layer of its own.

**Source:** Radford et al., Language Models are Unsupervised Multitask Learners, 2019, section 2.3 (order of norms, initialisation).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from foretrain.validate.training.layered import Layered

DEVIATION = 0.02
"""Of weights as they are drawn."""
WIDENING = 4
"""Width of a block's perceptron over that of the model."""


class Embeddings(nn.Module):
    """Tokens by a table, and their positions by another."""

    def __init__(self, vocab: int, seq: int, hidden: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, hidden)
        self.positions = nn.Parameter(torch.empty(seq, hidden))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return one row a token."""
        rows: torch.Tensor = self.tokens(numbers)
        return rows + self.positions


class Attention(nn.Module):
    """Causal attention. The number of heads follows from the projections, of which tensor parallelism leaves a part."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.width = hidden // heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows as they attend to those before them."""
        query, key, value = (self._heads(one(rows)) for one in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.view(*rows.shape[:-1], -1, self.width).transpose(1, 2)


class Perceptron(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(hidden, WIDENING * hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(WIDENING * hidden, hidden)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what is added to the rows."""
        added: torch.Tensor = self.down(self.act(self.up(rows)))
        return added


class GptBlock(nn.Module):
    """Attention and a perceptron, each behind a norm and added to what comes in."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads)
        self.norm2 = nn.LayerNorm(hidden)
        self.mlp = Perceptron(hidden)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows after the block."""
        rows = rows + self.attention(self.norm1(rows))
        added: torch.Tensor = self.mlp(self.norm2(rows))
        return rows + added


class Head(nn.Module):
    """The last norm and the output layer."""

    def __init__(self, hidden: int, vocab: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, vocab, bias=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.output(self.norm(rows))
        return logits


def gpt(*, layers: int, hidden: int, heads: int, seq: int, vocab: int) -> Layered:
    """Return a GPT of so many layers."""
    found = Layered(Embeddings(vocab, seq, hidden), [GptBlock(hidden, heads) for _ in range(layers)], Head(hidden, vocab))
    for parameter in found.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=DEVIATION)
    return found
