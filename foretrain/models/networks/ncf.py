"""Neural collaborative filtering: two pairs of embeddings, one multiplied, one through an MLP."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.embedding_bag import EmbeddingBags
from foretrain.models.interaction import PRODUCT
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model
from foretrain.models.networks.mlp import click_loss, mlp, sample_model, stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Ncf:
    """`users` and `items` with `factors` columns to multiply, and half of the first of `layers` each for the MLP.

    Source: He et al., NeuMF, arXiv:1708.05031, section 3.4; MLPerf Training v0.5, recommendation.
    """

    name: str
    users: int
    items: int
    factors: int
    layers: tuple[int, ...]
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: Ncf) -> Model:
    """Return the model that these dimensions define."""
    rows, half = spec.users + spec.items, spec.layers[0] // 2
    tables = tuple(
        EmbeddingBags(name=name, tables=2, rows=rows, width=width, lookups=2, sharded=False)
        for name, width in (("factors", spec.factors), ("vectors", half))
    )
    joined = spec.factors + spec.layers[-1]
    dense = (
        stream("product", spec.factors, PRODUCT),
        *mlp("layer", spec.layers),
        Linear(name="predict", tokens=1, in_features=joined, out_features=1, bias=True, cut="none"),
        click_loss(),
    )
    return sample_model(
        spec,
        Block(name="tables", steps=tables, input_elements=0),
        Block(name="dense", steps=dense, input_elements=2 * (spec.factors + half)),
    )
