"""Wide & Deep: a linear model of many features beside an MLP over embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.embedding_bag import EmbeddingBags
from foretrain.models.model import Block, Model
from foretrain.models.networks.mlp import click_loss, mlp, sample_model


@dataclass(frozen=True, slots=True, kw_only=True)
class WideDeep:
    """`tables` features of `rows` values in all, embedded `width` wide, beside `dense_features` numbers, through `layers`.

    The wide side has a weight per value, and one for each of `crossed` products of features, of which a sample has one per table.
    Source: Cheng et al., arXiv:1606.07792, sections 3 and 4.2.
    """

    name: str
    tables: int
    rows: int
    width: int
    dense_features: int
    crossed: int
    layers: tuple[int, ...]
    sharded: bool = False
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: WideDeep) -> Model:
    """Return the model that these dimensions define."""
    deep = EmbeddingBags(
        name="deep.tables", tables=spec.tables, rows=spec.rows, width=spec.width, lookups=spec.tables, sharded=spec.sharded
    )
    wide = EmbeddingBags(
        name="wide.weights", tables=1, rows=spec.rows + spec.crossed, width=1, lookups=2 * spec.tables, sharded=spec.sharded
    )
    joined = spec.tables * spec.width + spec.dense_features
    dense = (*mlp("deep", (joined, *spec.layers, 1), last_relu=False), click_loss())
    return sample_model(
        spec, Block(name="tables", steps=(deep, wide), input_elements=0), Block(name="dense", steps=dense, input_elements=joined)
    )
