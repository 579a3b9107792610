"""Traffic of the memory-bound patterns of convolutional networks, kernel by kernel, fused and not.

A pass is one read or one write of every element of the named tensor in the compute dtype. Counts follow from what the kernels must
read and write; none is fitted.
"""

from __future__ import annotations

from foretrain.models.stream import Traffic

# Statistics read the maps, normalising reads and writes them; backward the sums read maps and gradient, then both are read and the
# gradient written. cuDNN runs either in one kernel. Source: Ioffe and Szegedy, arXiv:1502.03167, section 3.
BATCH_NORM = Traffic(forward=3, backward=5, forward_launches=1, backward_launches=1, saved=1)
# Statistics that are not updated are constants: y = a·x + b, and dx = a·dy.
FROZEN_NORM = Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=0)
# In place: its result is what the next layer keeps as well. Backward reads result and gradient, and writes the gradient.
RELU = Traffic(forward=2, backward=3, forward_launches=1, backward_launches=1, saved=1)
# A smooth function keeps its input and writes its result elsewhere.
SMOOTH = Traffic(forward=2, backward=3, forward_launches=1, backward_launches=1, saved=1)
ADD = Traffic(forward=3, backward=0, forward_launches=1, backward_launches=0, saved=0)
CONCAT = Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=0)
# Views; backward writes the gradients of the parts into those of the whole.
SPLIT = Traffic(forward=0, backward=2, forward_launches=0, backward_launches=2, saved=0)
SHUFFLE = Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=0)
DROPOUT = Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=0)
# x · s per map. Backward: the gradient times s; the gradient times x, written and summed over pixels.
SCALE = Traffic(forward=2, backward=6, forward_launches=1, backward_launches=3, saved=1)
# Squares summed over neighbouring channels, a power, a product. Source: Krizhevsky et al. (2012), section 3.3.
RESPONSE_NORM = Traffic(forward=3, backward=5, forward_launches=1, backward_launches=1, saved=2)

# Nearest neighbour, twice the size, over its results; backward sums four gradients.
UPSAMPLE = Traffic(forward=1.25, backward=1.25, forward_launches=1, backward_launches=1, saved=0)
# Two copies: channels to the last dimension, and levels side by side.
GATHERED = Traffic(forward=4, backward=4, forward_launches=2, backward_launches=2, saved=0)
# Per logit in fp32, twice an element of 16 bits: sigmoid, cross-entropy, p_t, the power, the weights, the sum; written out as
# torchvision does, 13 kernels of 34 passes. One kernel reads logits and writes their gradient at once.
# Source: Lin et al., arXiv:1708.02002, section 3.
FOCAL_LOSS_EAGER = Traffic(forward=68, backward=60, forward_launches=13, backward_launches=14, saved=16)
FOCAL_LOSS = Traffic(forward=3, backward=2, forward_launches=1, backward_launches=1, saved=1)

MAX_POOL_INDEX_BYTES = 8.0
"""PyTorch notes where each maximum stood as a 64-bit number."""


def together(*parts: Traffic) -> Traffic:
    """Return what parts cost that run one after another."""
    return Traffic(
        forward=sum(part.forward for part in parts),
        backward=sum(part.backward for part in parts),
        forward_launches=sum(part.forward_launches for part in parts),
        backward_launches=sum(part.backward_launches for part in parts),
        saved=sum(part.saved for part in parts),
    )


NORM_RELU = together(BATCH_NORM, RELU)
# One kernel does both; the sign of the result says where the gradient passes, one more read in each of backward's two sweeps.
NORM_RELU_FUSED = Traffic(forward=3, backward=7, forward_launches=1, backward_launches=1, saved=2)
NORM_ADD_RELU = together(BATCH_NORM, ADD, RELU)
# The shortcut is read besides; backward writes its gradient.
NORM_ADD_RELU_FUSED = Traffic(forward=4, backward=8, forward_launches=1, backward_launches=1, saved=2)
# The sum is rectified before it is written; backward masks the gradient, which both branches then read.
ADD_RELU = together(ADD, RELU)
ADD_RELU_FUSED = Traffic(forward=3, backward=3, forward_launches=1, backward_launches=1, saved=1)


def pooling(inputs: float, *, keeps_input: bool) -> Traffic:
    """Return the traffic of a pooling over its results, of `inputs` each; backward writes the gradient of all of them."""
    kept = inputs if keeps_input else 0.0
    return Traffic(forward=1 + inputs, backward=1 + inputs, forward_launches=1, backward_launches=1, saved=kept)


def fork(branches: int) -> Traffic:
    """Return what it costs that `branches` read a tensor: backward adds up their gradients, one after another."""
    joins = max(0, branches - 1)
    return Traffic(forward=0, backward=3 * joins, forward_launches=0, backward_launches=joins, saved=0)
