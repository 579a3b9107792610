"""The ends of a transformer, as dimensions: what makes rows of tokens or patches, and what makes predictions of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foretrain.models.parts import Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInput:
    """A table of `vocab` rows, `width` wide; `positions` and `types` are rows of tables that are added (0: none).

    `project` leads from `width` to the model's (with a bias or not; None: they are equal). `shared` where the table is another's.
    """

    vocab: int
    width: int
    positions: int = 0
    types: int = 0
    norm: Norm | None = None
    dropout: bool = False
    project: Literal["plain", "bias"] | None = None
    padded_to: int = 1
    shared: bool = False
    tokens: int | None = None
    """Of a decoder beside an encoder; None: the sequence's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchInput:
    """Square patches of an image, each a token by one convolution, after `extra` learned tokens; learned positions for all.

    **Source:** Dosovitskiy et al., ViT, arXiv:2010.11929, section 3.1.
    """

    channels: int
    patch: int
    width: int
    extra: int = 1
    dropout: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A product in a head, with its activation (empty: none) and norm."""

    width: int
    bias: bool = True
    activation: str = ""
    norm: Norm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Predictions: a norm, dense products, then `outputs` logits and their loss, of `share` of the rows or of the `first` one only.

    `tied` logits use the token table. `spare` parameters are held and never used: a second bias or table that some classes keep
    where nothing is tied. `vocab` outputs are cut over tensor-parallel ranks, classes are not. `beside` is another objective on the
    same rows (BERT's next sentence).
    """

    outputs: int
    norm: Norm | None = None
    dense: tuple[Dense, ...] = ()
    bias: bool = False
    tied: bool = False
    vocab: bool = True
    share: float = 1.0
    first: bool = False
    padded_to: int = 1
    spare: int = 0
    beside: Head | None = None
