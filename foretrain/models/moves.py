"""Ops that only move bytes, by what they were seen to read, write and keep: the memory-bound ops of a traced module."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.ops import Kernel, Layout, Op
from foretrain.models.stream import Split, cut_of, stream_kernel

POINTWISE = "pointwise"
"""The pattern that a compiler fuses: a chain of elementwise ops and reductions reads its inputs and writes its results once."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Data that grows with the samples, and data that is there once whatever their number.

    `elements` are in the compute dtype, whose size the precision decides; `octets` are bytes of other dtypes (indices, masks, fp32
    inside a 16 bit model), which it does not.
    """

    elements: float = 0
    octets: float = 0
    once_elements: float = 0
    once_octets: float = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.elements + other.elements,
            self.octets + other.octets,
            self.once_elements + other.once_elements,
            self.once_octets + other.once_octets,
        )

    def size_bytes(self, layout: Layout, ranks: int = 1) -> float:
        """Return the bytes of a micro-batch on one of `ranks` that share what belongs to samples."""
        each = (self.elements * layout.element_bytes + self.octets) * layout.micro_batch / ranks
        return each + self.once_elements * layout.element_bytes + self.once_octets


NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Pass:
    """One direction: kernels launched, what they read and write, and the shares of that by class of op, where it is no elementwise one."""

    launches: int = 0
    moved: Amount = NOTHING
    classes: tuple[tuple[str, float], ...] = ()
    calls: int = 0
    """Ops that the host issues, where that is not one a launch (0)."""
    views: int = 0
    """Views and nodes of a graph that cost the host alone."""


UNRUN = Pass()


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves(Op):
    """One memory-bound op, or a chain of them.

    `fused_forward` and `fused_backward` are its passes, and `fused_saved` what it keeps, where the software fuses pointwise chains; None
    where nothing is to be fused. Without launches it runs nothing: a place for parameters and for what other ops keep.
    """

    name: str
    forward_pass: Pass = UNRUN
    backward_pass: Pass = UNRUN
    fused_forward: Pass | None = None
    fused_backward: Pass | None = None
    saved: Amount = NOTHING
    fused_saved: Amount | None = None
    parameters: int = 0
    trained: bool = True
    split: Split = "none"
    group: str = ""

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the parameters: it does not."""
        return False

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return what it launches forward, as one kernel."""
        return self._kernel(self.name, self.forward_pass, self.fused_forward, layout)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return what it launches backward, as one kernel."""
        return self._kernel(f"{self.name}.grad", self.backward_pass, self.fused_backward, layout)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes that it was seen to keep for backward."""
        fused = POINTWISE in layout.fused and self.fused_saved is not None
        kept = self.fused_saved if fused and self.fused_saved is not None else self.saved
        return kept.size_bytes(layout, cut_of(self.split, layout))

    def beside_bytes(self, layout: Layout) -> float:
        """Return the gradients that a backward pass of one kernel reads and makes: what it moves, but for what forward has kept."""
        done = _chosen(self.backward_pass, self.fused_backward, layout)
        if not done.launches:
            return 0.0
        return max(0.0, done.moved.size_bytes(layout, cut_of(self.split, layout)) - self.saved_bytes(layout)) / done.launches

    def _kernel(self, name: str, eager: Pass, fused: Pass | None, layout: Layout) -> tuple[Kernel, ...]:
        done = _chosen(eager, fused, layout)
        if not done.launches:
            return (replace(stream_kernel(name, 0.0, 0), views=done.views),) if done.views else ()
        return (stream_kernel(name, done.moved.size_bytes(layout, cut_of(self.split, layout)), done.launches, done.classes, done.calls),)


def _chosen(eager: Pass, fused: Pass | None, layout: Layout) -> Pass:
    """Return a pass as the software runs it: fused where it fuses pointwise chains and there is something to fuse."""
    return fused if fused is not None and POINTWISE in layout.fused else eager
