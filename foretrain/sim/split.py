"""What a backward pass split in two keeps between its halves: what gradients of weights are made from.

Those of a product are made from its input and from the gradient of its output; everything else that forward kept is free once the
gradient of the input is there.

**Source:** Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section 2 and appendix B.
"""

from __future__ import annotations

from math import prod

from foretrain.models.embedding import Embedding
from foretrain.models.matmul import Linear
from foretrain.models.model import Block
from foretrain.models.ops import Kernel, Layout, Op


def held_bytes(block: Block, layout: Layout) -> float:
    """Return the bytes that one micro-batch keeps on one rank for a block from the gradient of its input to those of its weights."""
    return sum(_held_bytes(op, layout) for op in block.ops)


def _held_bytes(op: Op, layout: Layout) -> float:
    kernels = [kernel for kernel in op.backward(layout) if kernel.weight_grad]
    if isinstance(op, Embedding) and kernels:
        # Its input is the batch itself.
        return layout.rows(op.tokens) * op.width * layout.element_bytes
    return sum(_operands_bytes(kernel, op, layout) for kernel in kernels)


def _operands_bytes(kernel: Kernel, op: Op, layout: Layout) -> float:
    """Return the bytes that a kernel reads which forward or backward made; a sum for a bias reads what the product reads."""
    if kernel.convolution is not None:
        shape = kernel.convolution
        ins, outs = shape.in_channels * prod(shape.in_size), shape.out_channels * prod(shape.out_size)
        return float(shape.samples * (ins + outs)) * layout.element_bytes
    if kernel.gemm is None:
        return 0.0
    product = kernel.gemm
    # The input of columns is kept as sequence parallelism cuts it, and gathered again.
    cut = layout.sequence_cut if isinstance(op, Linear) and op.cut == "column" else 1
    gradient, entry = _element_bytes(op, layout)
    return product.batch * product.k * (product.m * gradient + product.n / cut * entry)


def _element_bytes(op: Op, layout: Layout) -> tuple[float, float]:
    """Return the bytes of an element of a product's kept gradient, and of its kept input: in few bits where they were cast before."""
    casts = op.casts if isinstance(op, Linear) else None
    if casts is None:
        return layout.element_bytes, layout.element_bytes
    return casts.element_bytes, layout.element_bytes if casts.saved_bytes is None else casts.saved_bytes
