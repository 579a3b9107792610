"""An op through which no gradient passes: nothing at or before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.ops import Kernel, Layout, Op


@dataclass(frozen=True, slots=True, kw_only=True)
class Still(Op):
    """Runs an op forward only; it keeps nothing, and its parameters are frozen."""

    op: Op

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only, as its own op's
        """That of the op."""
        return self.op.name

    @property
    def group(self) -> str:  # type: ignore[override]
        """That of the op."""
        return self.op.group

    @property
    def parameters(self) -> int:
        """Those of the op."""
        return self.op.parameters

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides them."""
        return self.op.parameters_cut

    @property
    def trained(self) -> bool:
        """Whether they are: never."""
        return False

    @property
    def sharded(self) -> bool:
        """Whether they are spread over the data-parallel ranks."""
        return self.op.sharded

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the op's kernels."""
        return self.op.forward(layout)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return nothing."""
        return ()

    def saved_bytes(self, layout: Layout) -> float:
        """Return nothing: no backward pass reads it."""
        return 0.0

    def parameters_per_rank(self, tp: int) -> float:
        """Return what the op's rank holds."""
        return self.op.parameters_per_rank(tp)
