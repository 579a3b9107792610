"""Look-ups in the tables of a recommender, pooled per feature."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.ops import Kernel, Layout, Op
from foretrain.models.stream import stream_kernel

ROW_BYTES = 4.0
"""Tables are kept in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingBags(Op):
    """`tables` tables of `rows` rows in all and `width` columns, from which a sample takes `lookups` rows and gets a sum per table.

    Where they are `sharded`, each data-parallel rank holds its share of the tables and looks up for all ranks, so the look-ups per rank
    stay; rows are updated where they lie, right in backward, and no gradient of a table is ever whole. Replicated tables have a dense
    gradient like any other weight. Source: Naumov et al., DLRM, arXiv:1906.00091, sections 2 and 4.
    """

    name: str
    tables: int
    rows: int
    width: int
    lookups: int
    sharded: bool
    group: str = ""

    @property
    def parameters(self) -> int:
        """All tables."""
        return self.rows * self.width

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the tables: it does not."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one kernel for all tables: rows are read, sums written."""
        moved = self._looked_up(layout) * ROW_BYTES + self._sums(layout) * layout.element_bytes
        return (replace(stream_kernel(self.name, moved), scattered=True),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the scatter: sharded rows are read and written once more; a dense gradient is blanked first."""
        moved = self._sums(layout) * layout.element_bytes + 2 * self._looked_up(layout) * ROW_BYTES
        if self.sharded:
            # Look-ups are sorted by row before, so that equal rows are updated once: numbers, too few bytes to count.
            return (replace(stream_kernel(f"{self.name}.update", moved, 2), weight_grad=True, scattered=True),)
        return (replace(stream_kernel(f"{self.name}.wgrad", moved + self.parameters * ROW_BYTES, 2), weight_grad=True, scattered=True),)

    def saved_bytes(self, layout: Layout) -> float:
        """Return nothing: the row numbers are the batch itself."""
        return 0.0

    def _looked_up(self, layout: Layout) -> float:
        return float(layout.micro_batch * self.lookups * self.width)

    def _sums(self, layout: Layout) -> float:
        return float(layout.micro_batch * self.tables * self.width)
