"""What the math of a kernel takes in energy beyond its useful FLOPs: padding of tiles, operands on the chip, and vector operations.

A tile of r rows and c columns runs all of its r · c products, whether the result needs them or not; those of padding take zeros, so
that control is paid and hardly any datapath switches: a share `p` of a FLOP. Each FLOP moves (1/r + 1/c) / 2 operands of e bytes through
the caches to the units, at `o` joules a byte. The joules per FLOP `j` of a profile hold for the largest tile (r0, c0), filled, so

    joules = FLOPs · ( (1 + p · padding) · (j - o · e · (1/r0 + 1/c0) / 2)  +  o · e · (1/r' + 1/c') / 2 )

with r' and c' the rows and columns of a tile that the result fills, on average, and the padding relative to the FLOPs. A large product
costs its FLOPs times j. The core of fused attention runs some operations on vector units for each score beside the products.

**Source:** NVIDIA, Matrix Multiplication Background User's Guide, sections 3 and 4 (tiles, quantization); Kerr et al., CUTLASS: fast
linear algebra in CUDA C++ (NVIDIA, 2017), "Efficient matrix multiplication" (operand traffic by tile); Horowitz, ISSCC 2014 (moving
operands takes as much as the operation); Dao, arXiv:2307.08691, section 3.1 (operations that are no products).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod

from foretrain.hardware.accelerator import Accelerator
from foretrain.models.ops import FusedAttention, Gemm

OPERAND_BYTES = {"fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "mxfp8": 1.0, "nvfp4": 0.5}
SPLIT_TF32 = 3.0
"""Products of tf32 that make one of fp32."""
VECTOR_FLOP_PER_SCORE = 8.0
"""Scale and subtraction, running maximum, exponential, sum, conversion; backward the exponential again and its derivative."""


def product_j_per_flop(accelerator: Accelerator, gemm: Gemm, tile: int, dtype: str) -> float:
    """Return the joules per useful FLOP of a product that runs in tiles of one kind."""
    power, tiles = accelerator.power, accelerator.matmul.tiles
    rows, columns = tiles[tile]
    down, across = ceil(gemm.m / rows), ceil(gemm.n / columns)
    padding = down * rows * across * columns / (gemm.m * gemm.n) - 1.0
    per_operand = power.operand_j_per_byte * OPERAND_BYTES[dtype]
    largest = max(tiles, key=prod)
    at_units = power.math_j_per_flop.get(dtype, 0.0) - per_operand * _operands(*largest)
    return (1.0 + power.padding_share * padding) * at_units + per_operand * _operands(gemm.m / down, gemm.n / across)


def _operands(rows: float, columns: float) -> float:
    """Return the operands that a FLOP of a tile moves."""
    return (1.0 / rows + 1.0 / columns) / 2.0


def fused_j_per_flop(per_flop: Mapping[str, float], dtype: str) -> float:
    """Return the joules of a FLOP of the products of fused attention.

    Those of 32 bits are made of three of tf32, where a chip has it, whatever products elsewhere are (CUTLASS, 3xTF32; PyTorch's
    memory-efficient attention, `OpMultiplyAddFastF32`).
    """
    if dtype in ("fp32", "tf32") and "tf32" in per_flop:
        return SPLIT_TF32 * per_flop["tf32"]
    return per_flop.get(dtype, 0.0)


def scores_flop(call: FusedAttention, flop: float) -> float:
    """Return the vector operations of an attention kernel of so many FLOPs in products: those of its scores.

    A score takes two products over the head forward, five backward (Dao, arXiv:2205.14135, algorithms 1 and 4).
    """
    products = 5 if call.backward else 2
    return flop / (2.0 * products * call.head_dim) * VECTOR_FLOP_PER_SCORE
