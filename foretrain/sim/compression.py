"""Compression of the gradients that replicas reduce: what goes on the wire, and what packing and unpacking it costs.

**Source:** PyTorch, `torch.distributed.algorithms.ddp_comm_hooks` (fp16 and bf16 hooks); Vogels et al., PowerSGD, arXiv:1905.13727,
algorithm 1; Lin et al., Deep Gradient Compression, arXiv:1712.01887 (largest entries with a residual).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass

from foretrain.errors import PlanError, nearest
from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import Gemm, Kernel
from foretrain.models.stream import stream_kernel
from foretrain.sim.matrices import Weight
from foretrain.sim.optimizer_rules import FP32_BYTES

HALF_BYTES = 2.0
INDEX_BYTES = 4.0
METHODS = ("fp16", "bf16", "powersgd", "topk")
SELECTION_READS = 2
"""Reads of a radix selection: a histogram of the magnitudes, and the entries above its threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Gradients that are reduced together: `parameters` of `element_bytes`, of which `weights` are matrices, among `ranks`."""

    parameters: float
    weights: Counter[Weight]
    element_bytes: float
    ranks: int


class Compression(ABC):
    """One way of putting fewer bytes on the wire."""

    residual: bool
    """Whether what is left out is kept for the next step, as large as the gradients."""

    @abstractmethod
    def wire(self, bucket: Bucket) -> list[tuple[str, float]]:
        """Return the collectives, by kind and bytes of the full tensor."""

    @abstractmethod
    def packing(self, bucket: Bucket) -> tuple[Kernel, ...]:
        """Return the kernels before the collectives."""

    @abstractmethod
    def unpacking(self, bucket: Bucket) -> tuple[Kernel, ...]:
        """Return the kernels after them."""


@dataclass(frozen=True, slots=True)
class Halved(Compression):
    """Gradients are cast to 16 bits and back."""

    residual = False

    def wire(self, bucket: Bucket) -> list[tuple[str, float]]:
        """Return one all-reduce of 2 bytes a gradient."""
        return [("all_reduce", bucket.parameters * HALF_BYTES)]

    def packing(self, bucket: Bucket) -> tuple[Kernel, ...]:
        """Return the cast down."""
        return (stream_kernel("pack gradients", bucket.parameters * (bucket.element_bytes + HALF_BYTES)),)

    def unpacking(self, bucket: Bucket) -> tuple[Kernel, ...]:
        """Return the cast up."""
        return (stream_kernel("unpack gradients", bucket.parameters * (bucket.element_bytes + HALF_BYTES)),)


@dataclass(frozen=True, slots=True)
class PowerSgd(Compression):
    """Each matrix is sent as two thin factors of a rank, where they are smaller than it; vectors are sent whole."""

    residual = True
    rank: int

    def wire(self, bucket: Bucket) -> list[tuple[str, float]]:
        """Return the all-reduce of the first factors with all vectors, and that of the second factors."""
        thin = self._thin(bucket)
        rows = sum(count * weight.local[0] for weight, count in thin.items())
        columns = sum(count * weight.local[1] for weight, count in thin.items())
        loose = bucket.parameters - sum(count * weight.local[0] * weight.local[1] for weight, count in thin.items())
        sizes = (rows * self.rank * FP32_BYTES + loose * bucket.element_bytes, columns * self.rank * FP32_BYTES)
        return [("all_reduce", size) for size in sizes if size]

    def packing(self, bucket: Bucket) -> tuple[Kernel, ...]:
        """Return the sum with the residual, the first product, its orthogonalisation (a read and a write) and the second product."""
        thin = self._thin(bucket)
        cells = sum(count * weight.local[0] * weight.local[1] for weight, count in thin.items())
        rows = sum(count * weight.local[0] for weight, count in thin.items())
        added = stream_kernel("add residual", 3 * cells * FP32_BYTES)
        orthogonal = stream_kernel("orthogonalise", 2 * rows * self.rank * FP32_BYTES, self.rank)
        return (added, *self._products(thin, 2), orthogonal) if thin else ()

    def unpacking(self, bucket: Bucket) -> tuple[Kernel, ...]:
        """Return the product of the factors, and the new residual."""
        thin = self._thin(bucket)
        cells = sum(count * weight.local[0] * weight.local[1] for weight, count in thin.items())
        return (*self._products(thin, 1), stream_kernel("keep residual", 3 * cells * FP32_BYTES)) if thin else ()

    def _thin(self, bucket: Bucket) -> dict[Weight, int]:
        return {weight: n for weight, n in bucket.weights.items() if self.rank * sum(weight.local) < weight.local[0] * weight.local[1]}

    def _products(self, thin: dict[Weight, int], times: int) -> tuple[Kernel, ...]:
        found = []
        for weight, count in thin.items():
            shape = Gemm(batch=count * times, m=round(weight.local[0]), n=self.rank, k=round(weight.local[1]))
            found.append(gemm_kernel("low-rank product", shape, FP32_BYTES, 0.0))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Largest(Compression):
    """The largest `share` of the gradients is sent by value and place, gathered from all, and added up by each."""

    residual = True
    share: float

    def wire(self, bucket: Bucket) -> list[tuple[str, float]]:
        """Return the all-gather of values and places."""
        return [("all_gather", self._sent(bucket) * bucket.ranks)]

    def packing(self, bucket: Bucket) -> tuple[Kernel, ...]:
        """Return the sum with the residual, the selection, and the entries written."""
        moved = bucket.parameters * FP32_BYTES * (3 + SELECTION_READS) + self._sent(bucket)
        return (stream_kernel("select gradients", moved, 3),)

    def unpacking(self, bucket: Bucket) -> tuple[Kernel, ...]:
        """Return clearing the gradient, and adding everybody's entries to it: each is read, with what it is added to, and written."""
        entries = self.share * bucket.parameters * bucket.ranks
        moved = bucket.parameters * bucket.element_bytes + entries * (FP32_BYTES + INDEX_BYTES + 2 * bucket.element_bytes)
        return (stream_kernel("scatter gradients", moved, 2),)

    def _sent(self, bucket: Bucket) -> float:
        return self.share * bucket.parameters * (FP32_BYTES + INDEX_BYTES)


def compression_of(words: str | None) -> Compression | None:
    """Return what `fp16`, `bf16`, `powersgd:4` or `topk:0.01` mean.

    Raises:
        PlanError: where they mean nothing; names the nearest that does.
    """
    if words is None:
        return None
    method, _, figure = str(words).partition(":")
    if method not in METHODS:
        raise PlanError(f"gradient_compression={words!r} is unknown; use fp16, bf16, powersgd:4 or topk:0.01{nearest(method, METHODS)}")
    if method in ("fp16", "bf16"):
        if figure:
            raise PlanError(f"gradient_compression={words!r}: {method} takes no figure; write {method}")
        return Halved()
    return PowerSgd(_rank(words, figure)) if method == "powersgd" else Largest(_share(words, figure))


def _rank(words: str, figure: str) -> int:
    if not (figure.isascii() and figure.isdecimal() and int(figure)):
        raise PlanError(f"gradient_compression={words!r} has no rank; write a whole number from 1, such as powersgd:4")
    return int(figure)


def _share(words: str, figure: str) -> float:
    try:
        share = float(figure)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        raise PlanError(f"gradient_compression={words!r} has no share; write one above 0 and below 1, such as topk:0.01")
    return share
