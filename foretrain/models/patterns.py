"""Traffic of the memory-bound patterns of a transformer layer, kernel by kernel, fused and not.

A pass is one read or one write of every element in the compute dtype. Fused means one kernel forward, as Megatron-LM, apex and
Transformer Engine ship them or a compiler makes them; unfused means the kernels that eager PyTorch launches. A bias that follows a
product is added in the product's epilogue and costs no pass; its gradient is one more read. Counts follow from what the kernels
must read and write; none is fitted.
"""

from __future__ import annotations

from foretrain.errors import ModelError, nearest
from foretrain.models.stream import Traffic

FUSION_PATTERNS = frozenset({
    "bias_gelu", "swiglu", "bias_dropout_add", "norm", "softmax", "cross_entropy", "rotary", "pointwise", "batch_norm_relu",
    "batch_norm_add_relu", "add_relu", "interaction",
})  # fmt: skip
"""The names that `Layout.fused` may hold and that some op listens to."""

# One kernel: read x, write y. Backward: x and dy to dx, then both once more for the gradients of the weights. PyTorch's own
# LayerNorm is such a kernel even in eager mode; the two fp32 statistics of a row are too few bytes to count.
NORM = Traffic(forward=2, backward=5, forward_launches=1, backward_launches=2, saved=1, own=2, own_launches=1)

# RMSNorm written in tensor operations with fp32 inside, as model code does: cast, square, mean, rsqrt, multiply, cast back, weight.
# fp32 intermediates count two passes each and are what autograd keeps. The weight's own gradient is a product with the normalised
# rows and a sum over them.
RMSNORM_EAGER = Traffic(forward=18, backward=36, forward_launches=8, backward_launches=12, saved=3, own=5, own_launches=2)

# GELU and SiLU keep their input; ReLU and tanh only their output, which the next product keeps anyway.
GELU = Traffic(forward=2, backward=3, forward_launches=1, backward_launches=1, saved=1)
RELU = Traffic(forward=2, backward=3, forward_launches=1, backward_launches=1, saved=0)
SQUARED_RELU_EAGER = Traffic(forward=4, backward=6, forward_launches=2, backward_launches=2, saved=1)

# act(gate) * up, in passes over the width of the result. Unfused, autograd keeps gate, up and act(gate).
GATED = Traffic(forward=3, backward=5, forward_launches=1, backward_launches=1, saved=2)
GATED_EAGER = Traffic(forward=5, backward=9, forward_launches=2, backward_launches=3, saved=3)

# residual + dropout(x). Backward: dy through the mask, and the sum of the residual's two gradients where the branches meet.
DROPOUT_ADD = Traffic(forward=3, backward=5, forward_launches=1, backward_launches=2, saved=0)
DROPOUT_ADD_EAGER = Traffic(forward=5, backward=5, forward_launches=2, backward_launches=2, saved=0)
RESIDUAL_ADD = Traffic(forward=3, backward=3, forward_launches=1, backward_launches=1, saved=0)

DROPOUT = Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=0)

# One row of a table for each token, added to what is there; backward sums dy over the batch.
ADD_POSITIONS = Traffic(forward=3, backward=1, forward_launches=1, backward_launches=1, saved=0, own=1, own_launches=1)

# Parameters that a model holds and never reads.
UNUSED = Traffic(forward=0, backward=0, forward_launches=0, backward_launches=0, saved=0)

# The sum of two branches; backward both get the same gradient.
BRANCH_ADD = Traffic(forward=3, backward=0, forward_launches=1, backward_launches=0, saved=0)

# A learned bias for each pair of tokens: rows of a small table written over the pairs; backward they are summed into it.
RELATIVE_BIAS = Traffic(forward=1, backward=1, forward_launches=2, backward_launches=2, saved=0, own=1, own_launches=2)

# Mixture of experts. Routing: softmax or sigmoid, and the choice of the greatest. Dispatch copies each row to every expert that it
# meets; backward the copies' gradients are summed. Combining weighs the experts' results and sums them; it keeps them for the weights.
ROUTE = Traffic(forward=4, backward=4, forward_launches=3, backward_launches=2, saved=1)
DISPATCH = Traffic(forward=2, backward=2, forward_launches=2, backward_launches=1, saved=0)
COMBINE = Traffic(forward=2, backward=3, forward_launches=1, backward_launches=2, saved=1)

# Rows scaled by one number each, which is a sigmoid of a small product.
GATE_ROWS = Traffic(forward=3, backward=3, forward_launches=1, backward_launches=1, saved=0)

# Scores bounded by c·tanh(x/c), unfused: divide, tanh, multiply; backward as many, from the kept tanh.
SOFTCAP_EAGER = Traffic(forward=6, backward=7, forward_launches=3, backward_launches=3, saved=1)

# Unfused: x·cos, rotate_half (negate, concatenate), ·sin, add; for queries and for keys.
ROTARY = Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=0)
ROTARY_EAGER = Traffic(forward=10, backward=10, forward_launches=10, backward_launches=10, saved=0)

# Scale, mask and softmax of the attention scores. The causal kernel skips what it knows to be masked when it reads, but writes zeros there.
SOFTMAX = Traffic(forward=2, backward=3, forward_launches=1, backward_launches=1, saved=1)
SOFTMAX_CAUSAL = Traffic(forward=1.5, backward=2, forward_launches=1, backward_launches=1, saved=1)
SOFTMAX_EAGER = Traffic(forward=6, backward=7, forward_launches=3, backward_launches=3, saved=1)

_ACTIVATIONS = {
    "gelu": (GELU, GELU),
    "silu": (GELU, GELU),
    "tanh": (RELU, RELU),
    "relu": (RELU, RELU),
    "squared_relu": (GELU, SQUARED_RELU_EAGER),
}
GATED_NAMES = {"swiglu": "silu", "geglu": "gelu", "gated_relu": "relu"}
ACTIVATIONS = (*_ACTIVATIONS, *GATED_NAMES)


def activation_traffic(activation: str, *, gated: bool) -> tuple[Traffic, Traffic]:
    """Return the traffic of an activation, fused and unfused, over the width of its result.

    Raises:
        ModelError: for a name that is not in `ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ModelError(f"activation {activation!r} is unknown; use one of {', '.join(ACTIVATIONS)}{nearest(activation, ACTIVATIONS)}")
    return (GATED, GATED_EAGER) if gated else _ACTIVATIONS[GATED_NAMES.get(activation, activation)]


def norm_traffic(norm: str) -> tuple[Traffic, Traffic]:
    """Return the traffic of a normalisation, fused and unfused."""
    return (NORM, RMSNORM_EAGER) if norm == "rmsnorm" else (NORM, NORM)


def residual_traffic(*, dropout: bool) -> tuple[Traffic, Traffic]:
    """Return the traffic of joining a branch to the residual stream, fused and unfused."""
    return (DROPOUT_ADD, DROPOUT_ADD_EAGER) if dropout else (RESIDUAL_ADD, RESIDUAL_ADD)
