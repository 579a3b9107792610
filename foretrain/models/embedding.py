"""Looking up token vectors in a vocabulary-parallel table."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.matmul import divided
from foretrain.models.ops import Kernel, Layout, Op
from foretrain.models.stream import stream_kernel

GATHER = (("gather", 1.0),)
SCATTER = (("scatter", 1.0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding(Op):
    """A `vocab` × `width` table, its rows cut over tensor-parallel ranks; every rank looks up all tokens and blanks those it lacks.

    Token numbers are too few bytes to count, and nothing else is saved. A look-up is no matrix product: it has no FLOPs.
    A `shared` table is one that another op holds. A frozen one, not `trained`, has no backward pass.
    Source: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3.
    """

    name: str
    tokens: int
    vocab: int
    width: int
    pad_to: int = 1
    trained: bool = True
    shared: bool = False
    group: str = ""

    @property
    def parameters(self) -> int:
        """The table, unpadded, where it is held."""
        return 0 if self.shared else self.vocab * self.width

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the table: it does."""
        return True

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the gather: rows are read and written; with several ranks, one more kernel reads and blanks what others hold."""
        passes, launches = (2, 1) if layout.tp == 1 else (4, 2)
        return (stream_kernel(self.name, passes * self._rows_bytes(layout), launches, GATHER),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the scatter into a dense gradient: the table is blanked, then the rows are read, added and written."""
        if not self.trained:
            return ()
        table_bytes = divided(self.vocab, layout.tp, self.pad_to) * self.width * layout.element_bytes
        moved = 3 * self._rows_bytes(layout) + table_bytes
        return (replace(stream_kernel(f"{self.name}.wgrad", moved, 2, SCATTER), weight_grad=True),)

    def saved_bytes(self, layout: Layout) -> float:
        """Return nothing: the tokens are the batch itself."""
        return 0.0

    def _rows_bytes(self, layout: Layout) -> float:
        return layout.rows(self.tokens) * self.width * layout.element_bytes
