"""Optimizers as data: what each keeps per parameter and per matrix, and what its step reads, writes and multiplies.

Moments are fp32 unless said otherwise. A matrix of r rows and c columns has a short side m and a long side n.

**Source:** Robbins and Monro, 1951 (sgd); Polyak, 1964 (momentum); Sutskever et al., ICML 2013 (nesterov); Duchi et al., JMLR 2011
(adagrad); Zeiler, arXiv:1212.5701 (adadelta); Kingma and Ba, arXiv:1412.6980 (adam), Loshchilov and Hutter, arXiv:1711.05101 (adamw);
Shazeer and Stern, arXiv:1804.04235 (adafactor); You et al., arXiv:1904.00962 (lamb); Chen et al., arXiv:2302.06675 (lion); Dettmers
et al., arXiv:2110.02861 (adam-8bit); Gupta et al., arXiv:1802.09568 and Shi et al., arXiv:2309.06497 (shampoo); Vyas et al.,
arXiv:2409.11321 (soap); Jordan et al., 2024, and Liu et al., arXiv:2502.16982 (muon).
"""

from __future__ import annotations

from dataclasses import dataclass

Matrix = tuple[float, float]
FP32_BYTES = 4.0
OPTIMIZER = (("optimizer", 1.0),)
"""Classes of the kernels of an update."""
NEWTON_SCHULZ_STEPS = 5
EAGER_LAUNCHES = 12
LARGEST_SIDE = 10_000
"""Sides beyond it, such as a vocabulary, have no preconditioner (SOAP, section 6)."""
EIGEN_FLOP = 9.0
"""Times n^3 of a symmetric eigendecomposition with vectors. **Source:** Golub and Van Loan, Matrix Computations, section 8.3."""
QR_FLOP = 2.0 + 8.0 / 3.0
"""Times n^3 of one power iteration and a QR decomposition with its orthogonal factor. **Source:** the same, section 5.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What an optimizer is to a machine. Bytes per parameter.

    `state_bytes` it keeps. `matrix_bytes` are those of a parameter of a hidden matrix, where they differ. `factored` second moments of
    any matrix are a row and a column; the `extra_bytes` a fused step moves beside gradient, state and weight. `sides` counts the
    square matrices that each side of a matrix keeps, refreshed every `refresh` steps at `refresh_flop` n^3. `side_products` counts
    the products of a square with the matrix, on each side, in a step. `orthogonal` runs Newton-Schulz on whole hidden matrices.
    """

    state_bytes: float
    matrix_bytes: float | None = None
    factored: bool = False
    extra_bytes: float = 0.0
    sides: int = 0
    side_products: int = 0
    refresh: int = 1
    refresh_flop: float = 0.0
    orthogonal: bool = False
    eager_bytes: float | None = None
    """Moved per fp32 parameter where each operation of the update is a kernel of its own (None: about 2.5 times those of one pass)."""
    eager_launches: int = EAGER_LAUNCHES
    """Kernels of such an update, for each tensor."""
    gradient_reads: int = 1
    """Of those, the ones that read the gradient."""


RULES = {
    # Operations of torch.optim's loops over tensors: one addition; with momentum weight decay, a product and a sum, and the addition.
    "sgd": Rule(state_bytes=0.0, eager_bytes=12.0, eager_launches=1),
    "momentum": Rule(state_bytes=4.0, eager_bytes=44.0, eager_launches=4),
    "nesterov": Rule(state_bytes=4.0, eager_bytes=56.0, eager_launches=5),
    "adagrad": Rule(state_bytes=4.0),
    # lerp, mul, addcmul, sqrt, div, add, addcdiv, and the count of steps; with decay, one more product.
    "adam": Rule(state_bytes=8.0, eager_bytes=72.0, eager_launches=8, gradient_reads=3),
    "adamw": Rule(state_bytes=8.0, eager_bytes=80.0, eager_launches=9, gradient_reads=3),
    # Two averages: mul, addcmul, add, sqrt for the squares; add, sqrt, div, mul for the step; mul, addcmul of steps; and the addition.
    "adadelta": Rule(state_bytes=8.0, eager_bytes=112.0, eager_launches=11),
    # Two 8-bit moments, and the fp32 maximum of each block of 2048.
    "adam-8bit": Rule(state_bytes=2.0 + 2 * 4.0 / 2048),
    # Reads the gradient twice more: for the means of its rows and columns, and for the root mean square that clips the update.
    "adafactor": Rule(state_bytes=4.0, factored=True, extra_bytes=8.0),
    # The update is written, and read with the weight again, once the norms of both are known for the whole tensor.
    "lamb": Rule(state_bytes=8.0, extra_bytes=12.0),
    "lion": Rule(state_bytes=4.0),
    # A momentum; a square and its root a side; two products to gather statistics and to precondition; roots every 100 steps.
    "shampoo": Rule(state_bytes=4.0, sides=2, side_products=2, refresh=100, refresh_flop=EIGEN_FLOP),
    # Adam in the basis of the squares: into it, out of it, and statistics; a power iteration every 10 steps.
    "soap": Rule(state_bytes=8.0, sides=2, side_products=3, refresh=10, refresh_flop=QR_FLOP),
    # A momentum for hidden matrices, AdamW for the rest.
    "muon": Rule(state_bytes=8.0, matrix_bytes=4.0, orthogonal=True),
}


def factor_bytes(matrix: Matrix) -> float:
    """Return the bytes of a factored second moment."""
    return FP32_BYTES * sum(matrix)


def side_bytes(rule: Rule, matrix: Matrix) -> float:
    """Return the bytes of the squares that a matrix keeps for its sides."""
    return FP32_BYTES * rule.sides * sum(side**2 for side in matrix if side <= LARGEST_SIDE)


def refreshed_flop(rule: Rule, matrix: Matrix) -> float:
    """Return the FLOPs of refreshing the squares of a matrix, averaged over the steps."""
    return rule.refresh_flop / rule.refresh * sum(side**3 for side in matrix if side <= LARGEST_SIDE)
