"""The ops of the networks in JAX. One object a trainer: what tensor-parallel ranks exchange depends on how many they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _enter(values: Any, axis: str) -> Any:
    return values


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _leave(values: Any, axis: str) -> Any:
    return lax.psum(values, axis)


_enter.defvjp(lambda values, axis: (values, None), lambda axis, _, gradient: (lax.psum(gradient, axis),))
_leave.defvjp(lambda values, axis: (lax.psum(values, axis), None), lambda axis, _, gradient: (gradient,))


@dataclass(frozen=True, slots=True, kw_only=True)
class JaxOps:
    """Pictures are channels last, sequences (sample, row, channel). `cut` says whether ranks along `tp` share the layers."""

    cut: bool

    def enter(self, values: Any) -> Any:
        """Pass what every rank has to layers of which each has a part; gradients add up. **Source:** arXiv:1909.08053, section 3."""
        return _enter(values, "tp") if self.cut else values

    def leave(self, values: Any) -> Any:
        """Add up what the ranks' parts of a layer gave; gradients pass. **Source:** arXiv:1909.08053, section 3."""
        return _leave(values, "tp") if self.cut else values

    def relu(self, values: Any) -> Any:
        """Return the positive part."""
        return jax.nn.relu(values)

    def gelu(self, values: Any) -> Any:
        """Return GELU, by the error function as torch has it by default."""
        return jax.nn.gelu(values, approximate=False)

    def layer_norm(self, values: Any, scale: Any, shift: Any) -> Any:
        """Normalise the last dimension, in fp32."""
        return _normed(values, scale, shift, lambda wide: wide.ndim - 1)

    def batch_norm(self, values: Any, scale: Any, shift: Any) -> Any:
        """Normalise every channel over this rank's samples, in fp32. Running averages, which training does not read, are not kept."""
        return _normed(values, scale, shift, lambda wide: tuple(range(wide.ndim - 1)))

    def convolution(self, values: Any, kernel: Any, *, stride: int) -> Any:
        """Convolve, padded by half the kernel."""
        pad = kernel.shape[0] // 2
        return lax.conv_general_dilated(
            values, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )  # fmt: skip

    def max_pool(self, values: Any, *, size: int, stride: int) -> Any:
        """Return the largest of each window, padded by half of it."""
        pads = [(0, 0), *[(size // 2, size // 2)] * 2, (0, 0)]
        return lax.reduce_window(values, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)

    def mean_pool(self, values: Any) -> Any:
        """Return the mean over the picture."""
        return jnp.mean(values, axis=(1, 2))

    def rows(self, table: Any, ids: Any) -> Any:
        """Return the rows of a table, of which tensor-parallel ranks have some each. **Source:** arXiv:1909.08053, section 3."""
        if not self.cut:
            return jnp.take(table, ids, axis=0)
        here, own = _own(ids, table.shape[0])
        return _leave(jnp.where(own[..., None], jnp.take(table, here, axis=0), 0), "tp")

    def attention(self, queries: Any, keys: Any, values: Any, *, width: int) -> Any:
        """Return causal attention of heads so many channels wide."""
        split = (one.reshape(*one.shape[:2], -1, width) for one in (queries, keys, values))
        return jax.nn.dot_product_attention(*split, is_causal=True).reshape(queries.shape)

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """Return the mean loss, in fp32, of logits of which ranks have some classes each. **Source:** arXiv:1909.08053, section 3."""
        wide = logits.astype(jnp.float32)
        if not self.cut:
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(wide), labels[..., None], axis=-1))
        wide = wide - lax.stop_gradient(lax.pmax(lax.stop_gradient(jnp.max(wide, axis=-1, keepdims=True)), "tp"))
        here, own = _own(labels, logits.shape[-1])
        chosen = jnp.where(own, jnp.take_along_axis(wide, here[..., None], axis=-1)[..., 0], 0)
        return jnp.mean(jnp.log(_leave(jnp.sum(jnp.exp(wide), axis=-1), "tp")) - _leave(chosen, "tp"))


def _own(numbers: Any, count: int) -> tuple[Any, Any]:
    """Return numbers as this rank counts its `count` rows, and which of them it has; others are 0."""
    here = numbers - lax.axis_index("tp") * count
    own = (here >= 0) & (here < count)
    return jnp.where(own, here, 0), own


def _normed(values: Any, scale: Any, shift: Any, axes: Callable[[Any], Any]) -> Any:
    wide = values.astype(jnp.float32)
    over = axes(wide)
    mean = jnp.mean(wide, axis=over, keepdims=True)
    spread = jnp.var(wide, axis=over, keepdims=True)
    return ((wide - mean) * lax.rsqrt(spread + 1e-5) * scale + shift).astype(values.dtype)
