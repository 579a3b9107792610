"""Kernels that were measured on an accelerator: near them, they stand for what its curves say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Row = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Tables of measured kernels, seconds last in each row.

    `products` per dtype: batch, m, n, k. `convolutions` per dtype and direction: samples, channels in and out, groups, pixels in and
    out of one sample, taps of a filter, stride. `attention` per dtype and direction: heads, queries, keys, head dimension, 256 with a
    causal mask and 1 without. `streams`: bytes of one elementwise kernel, and its seconds, in the order of the bytes. `slowness`: how
    much longer than such a kernel one of another class takes per byte, in bf16 and in fp32.
    """

    products: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    convolutions: Mapping[str, Mapping[str, tuple[Row, ...]]] = field(default_factory=dict)
    attention: Mapping[str, Mapping[str, tuple[Row, ...]]] = field(default_factory=dict)
    streams: tuple[Row, ...] = ()
    slowness: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
