"""What it takes to run a product in fewer bits: casts of its operands, and how it keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.ops import Kernel
from foretrain.models.stream import stream_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Bytes read and written per element of a tensor in 16 bits, and the launches of it; nothing is cast by default."""

    moved_bytes: float = 0.0
    launches: int = 0

    def kernels(self, name: str, elements: float) -> tuple[Kernel, ...]:
        """Return the cast of so many elements; none where nothing is cast."""
        return (stream_kernel(name, elements * self.moved_bytes, self.launches),) if self.launches else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Casts:
    """How the operands of a product come to few bits.

    `element_bytes` is an operand's, with its share of the scales; results stay in the compute dtype. Forward casts `inputs` and
    `weights`; backward casts the result's `gradients`, and again the weights for the gradient of the input and the input for that of
    the weights, where the casts of forward are not kept or lie the wrong way. `saved_bytes` is what backward keeps of an input element
    (None: as in the compute dtype). `weights_a_step` is the cast of the weights that are kept for all micro-batches of a step.
    """

    dtype: str
    element_bytes: float
    inputs: Cast
    weights: Cast
    gradients: Cast
    inputs_again: Cast
    weights_again: Cast
    saved_bytes: float | None
    weights_a_step: Cast = Cast()
