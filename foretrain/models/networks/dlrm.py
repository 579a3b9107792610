"""DLRM: embedding tables and a bottom MLP meet in an interaction, and a top MLP tells the click."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foretrain.errors import ModelError
from foretrain.models.embedding_bag import EmbeddingBags
from foretrain.models.interaction import CROSS, DotInteraction
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model, Step
from foretrain.models.networks.mlp import click_loss, mlp, sample_model, stream
from foretrain.models.ops import Boundary

BOTTOM = "bottom"
"""What the names of the bottom MLP's ops begin with: the vectors of the tables can travel beside them, which do not read those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dlrm:
    """One table per entry of `rows`, `width` columns wide, with as many look-ups a sample as `lookups` says of each.

    The interaction is the dot product of all pairs, or `cross_layers` layers of DCN-v2 of rank `cross_rank`. Tables are `sharded` over the
    data-parallel ranks, which exchange the vectors, or replicated.
    Source: Naumov et al., arXiv:1906.00091; Wang et al., DCN V2, arXiv:2008.13535, section 3; MLPerf Training.
    """

    name: str
    rows: tuple[int, ...]
    lookups: tuple[int, ...]
    width: int
    dense_features: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    cross_layers: int = 0
    cross_rank: int = 0
    sharded: bool = True
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse tables without look-ups, and a bottom that does not end as wide as the tables."""
        if len(self.rows) != len(self.lookups):
            raise ModelError(f"{self.name}: {len(self.lookups)} lookups for {len(self.rows)} tables; give one number per table")
        if self.bottom[-1] != self.width:
            raise ModelError(f"{self.name}: bottom ends {self.bottom[-1]} wide, the tables are {self.width}; give both the same width")
        if bool(self.cross_layers) != bool(self.cross_rank):
            raise ModelError(f"{self.name}: cross_layers and cross_rank go together; give both, or neither")


def build(spec: Dlrm) -> Model:
    """Return the model that these dimensions define."""
    tables = EmbeddingBags(
        name="tables", tables=len(spec.rows), rows=sum(spec.rows), width=spec.width, lookups=sum(spec.lookups), sharded=spec.sharded
    )
    swap = (Boundary(name="vectors", kind="exchange", elements=len(spec.rows) * spec.width, beside=BOTTOM),) if spec.sharded else ()
    bottom = mlp(BOTTOM, (spec.dense_features, *spec.bottom), input_grad=False)
    dense = (
        *_interaction(spec),
        *mlp("top", (_width(spec), *spec.top), last_relu=False),
        click_loss(),
    )
    return sample_model(
        spec,
        Block(name="features", steps=(tables, *swap, *bottom), input_elements=0),
        Block(name="dense", steps=dense, input_elements=(len(spec.rows) + 1) * spec.width),
    )


def _width(spec: Dlrm) -> int:
    features = len(spec.rows) + 1
    return features * spec.width if spec.cross_layers else DotInteraction(name="", features=features, width=spec.width).out_features


def _interaction(spec: Dlrm) -> Iterator[Step]:
    if not spec.cross_layers:
        yield DotInteraction(name="interaction", features=len(spec.rows) + 1, width=spec.width)
        return
    width = _width(spec)
    for number in range(1, spec.cross_layers + 1):
        down, up = f"cross{number}.down", f"cross{number}.up"
        yield Linear(name=down, tokens=1, in_features=width, out_features=spec.cross_rank, bias=False, cut="none")
        yield Linear(name=up, tokens=1, in_features=spec.cross_rank, out_features=width, bias=True, cut="none")
        yield stream(f"cross{number}", width, CROSS)
