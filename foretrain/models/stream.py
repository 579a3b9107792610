"""Memory-bound ops: norms, activations, dropouts, residual adds; priced by the passes they make over their elements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from foretrain.models.ops import Kernel, KernelKind, Layout, Op

Split = Literal["tensor", "sequence", "none"]
"""Where a tensor lives: inside a tensor-parallel region (cut by tp), between regions (cut by sequence parallelism), or nowhere cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Passes over the elements (reads plus writes), kernels launched, and copies of the elements saved for backward.

    Of the backward passes and launches, `own` are for the gradients of the op's own parameters.
    """

    forward: float
    backward: float
    forward_launches: int
    backward_launches: int
    saved: float
    own: float = 0.0
    own_launches: int = 0

    def with_bias_gradient(self, width: float) -> Traffic:
        """Return the traffic with one more backward kernel, which reads `width` elements per element and sums them over the rows."""
        return replace(
            self,
            backward=self.backward + width,
            backward_launches=self.backward_launches + 1,
            own=self.own + width,
            own_launches=self.own_launches + 1,
        )

    def frozen(self) -> Traffic:
        """Return the traffic without what only the op's own parameters need."""
        return replace(
            self,
            backward=self.backward - self.own,
            backward_launches=self.backward_launches - self.own_launches,
            own=0.0,
            own_launches=0,
        )


def stream_kernel(name: str, moved_bytes: float, launches: int = 1, classes: tuple[tuple[str, float], ...] = (), calls: int = 0) -> Kernel:
    """Return a kernel that only moves bytes. Its few vector operations are not counted: FLOPs are those of matrix products."""
    return Kernel(
        name=name, kind=KernelKind.STREAM, flop=0.0, model_flop=0.0, moved_bytes=moved_bytes, launches=launches, classes=classes,
        calls=calls,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming(Op):
    """An op that costs its memory traffic.

    `elements` per sample, of the whole tensor; `mask_bytes` per element are written forward, kept, and read backward. `fused` is the
    traffic where the software runs `pattern` as one kernel, `unfused` where it runs its parts one after another. Frozen, not `trained`,
    it spares what the gradients of its own parameters take.
    """

    name: str
    elements: int
    split: Split
    pattern: str
    fused: Traffic
    unfused: Traffic
    mask_bytes: float = 0.0
    parameters: int = 0
    parameters_cut: bool = False
    trained: bool = True
    experts: int = 0
    """Experts whose rows these are: where they are spread over ranks, so are the parameters, and one rank's load is theirs."""
    group: str = ""

    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one kernel, or one for the parts of an unfused pattern together; none where nothing is launched."""
        traffic = self._traffic(layout)
        if not traffic.forward_launches:
            return ()
        moved = self._share(layout) * (traffic.forward * layout.bytes_of(self.pattern) + self.mask_bytes)
        return (stream_kernel(self.name, moved, traffic.forward_launches),)

    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return one kernel for everything this op does backward, the sums for its own parameters included; none where there is nothing."""
        traffic = self._traffic(layout)
        if not traffic.backward_launches:
            return ()
        moved = self._share(layout) * (traffic.backward * layout.bytes_of(self.pattern) + self.mask_bytes)
        return (stream_kernel(f"{self.name}.grad", moved, traffic.backward_launches),)

    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes of the copies and the mask that backward reads."""
        return self._share(layout) * (self._traffic(layout).saved * layout.element_bytes + self.mask_bytes)

    def _traffic(self, layout: Layout) -> Traffic:
        traffic = self.fused if self.pattern in layout.fused else self.unfused
        return traffic if self.trained else traffic.frozen()

    def _share(self, layout: Layout) -> float:
        """Elements of one micro-batch on one rank."""
        even = layout.micro_batch * self.elements / (cut_of(self.split, layout) * layout.cp)
        return even * layout.expert_load if self.experts else even


def cut_of(split: Split, layout: Layout) -> int:
    """Return how many ranks share a tensor that lives in `split`."""
    if split == "tensor":
        return layout.tp
    return layout.sequence_cut if split == "sequence" else 1
