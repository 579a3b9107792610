"""Attention as torch fuses it, causal or not, forward and backward.

FLOPs are those of a fused kernel over all pairs, causal or not: two products forward, five backward, which makes the scores again.
**Source:** Dao, FlashAttention-2, arXiv:2307.08691, section 3.
"""

from __future__ import annotations

from typing import Any

from foretrain.validate.measuring.bench import SIZES, Bench, Lab, Machine, merged

SHAPES = {
    "cuda": (
        (64, 2048, 64),
        (64, 2048, 128),
        (128, 512, 64),
        (16, 8192, 128),
        (64, 4096, 128),
        (512, 128, 64),
        (32, 1024, 80),
        (16, 16384, 64),
        (256, 1024, 64),
    ),
    "cpu": ((8, 128, 64), (16, 128, 32), (4, 256, 64), (8, 64, 64), (2, 512, 64), (32, 128, 64)),
}
"""Heads of all samples, tokens, width of a head."""
MOST_FP32_PAIRS = 64 * 2048**2
"""Pairs of tokens up to which attention is measured in fp32, which takes a dozen times as long."""


def plan(machine: Machine) -> list[Bench]:
    """Return every shape, causal first, forward before backward."""
    variants = [
        (shape, causal, backward)
        for shape in SHAPES[machine.device]
        for causal, backward in ((True, False), (True, True), (False, False), (False, True))
    ]
    if machine.device == "cpu":
        return [_bench("fp32", *one, busy=1) for one in variants]
    # fp32 has kernels of its own, whose times grow with the length otherwise; fp16 shares those of bf16.
    lengths = [one for one in variants if one[1] and one[0][0] * one[0][1] ** 2 <= MOST_FP32_PAIRS]
    fp32, fp16 = [_bench("fp32", *one) for one in lengths], [_bench("fp16", *one) for one in variants[:4]]
    return merged([_bench("bf16", *one) for one in variants], fp32, fp16)


def _bench(dtype: str, shape: tuple[int, int, int], causal: bool, backward: bool, *, busy: int = 0) -> Bench:  # noqa: FBT001
    heads, tokens, width = shape
    products, tensors = (5, 8) if backward else (2, 4)
    size = float(SIZES[dtype] * heads * tokens * width)
    named = {"heads": heads, "queries": tokens, "keys": tokens, "head_dim": width, "causal": causal, "backward": backward}
    return Bench(
        name="attention",
        dtype=dtype,
        shape={**named, **({"busy_ranks": busy} if busy else {})},
        flop=2.0 * products * heads * tokens**2 * width,
        bytes=tensors * size,
        held_bytes=12 * size + (4.0 * SIZES[dtype] * heads * tokens**2 if dtype == "fp32" else 0.0),
    )


def bench_of(dtype: str, sizes: tuple[int, ...]) -> Bench:
    """Return the bench of causal attention forward, of heads, tokens and width."""
    heads, tokens, width = sizes
    return _bench(dtype, (heads, tokens, width), True, False)  # noqa: FBT003


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time one pass; backward through autograd, over a graph that is kept."""
    return lab.time(attention(bench, lab)).data()


def attention(bench: Bench, lab: Lab) -> Any:
    """Return the call that makes the pass."""
    import torch  # noqa: PLC0415 - torch is heavy and optional
    from torch.nn import functional  # noqa: PLC0415

    shape = bench.shape
    size = (1, shape["heads"], shape["queries"], shape["head_dim"])
    query, key, value = (lab.tensor(*size, dtype=bench.dtype, grad=shape["backward"]) for _ in range(3))
    if not shape["backward"]:
        return lambda: functional.scaled_dot_product_attention(query, key, value, is_causal=shape["causal"])
    result = functional.scaled_dot_product_attention(query, key, value, is_causal=shape["causal"])
    slope = lab.tensor(*size, dtype=bench.dtype)
    return lambda: torch.autograd.grad(result, (query, key, value), slope, retain_graph=True)
