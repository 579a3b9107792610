"""The ops of the networks in TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

EPSILON = 1e-5


class TfOps:
    """Pictures are channels last, sequences (sample, row, channel). Nothing is shared: MirroredStrategy replicates."""

    def enter(self, values: Any) -> Any:
        """Pass the values: each replica has its layers whole."""
        return values

    def leave(self, values: Any) -> Any:
        """Pass the values: each replica has its layers whole."""
        return values

    def relu(self, values: Any) -> Any:
        """Return the positive part."""
        return tf.nn.relu(values)

    def gelu(self, values: Any) -> Any:
        """Return GELU, by the error function."""
        return tf.nn.gelu(values, approximate=False)

    def layer_norm(self, values: Any, scale: Any, shift: Any) -> Any:
        """Normalise the last dimension, in fp32, op by op as Keras does."""
        wide = tf.cast(values, tf.float32)
        mean, spread = tf.nn.moments(wide, axes=[-1], keepdims=True)
        scaled = tf.nn.batch_normalization(wide, mean, spread, tf.cast(shift, tf.float32), tf.cast(scale, tf.float32), EPSILON)
        return tf.cast(scaled, values.dtype)

    def batch_norm(self, values: Any, scale: Any, shift: Any) -> Any:
        """Normalise every channel over this replica's samples. Running averages, which training does not read, are not kept."""
        wide = (tf.cast(scale, tf.float32), tf.cast(shift, tf.float32))
        return tf.compat.v1.nn.fused_batch_norm(values, *wide, epsilon=EPSILON, is_training=True)[0]

    def convolution(self, values: Any, kernel: Any, *, stride: int) -> Any:
        """Convolve, padded by half the kernel."""
        return tf.nn.conv2d(values, kernel, stride, _padded(int(kernel.shape[0])))

    def max_pool(self, values: Any, *, size: int, stride: int) -> Any:
        """Return the largest of each window, padded by half of it."""
        return tf.nn.max_pool2d(values, size, stride, _padded(size))

    def mean_pool(self, values: Any) -> Any:
        """Return the mean over the picture."""
        return tf.reduce_mean(values, axis=[1, 2])

    def rows(self, table: Any, ids: Any) -> Any:
        """Return the rows of a table."""
        return tf.gather(table, ids)

    def attention(self, queries: Any, keys: Any, values: Any, *, width: int) -> Any:
        """Return causal attention of heads so many channels wide, op by op: TensorFlow has no fused one."""
        samples, length, channels = queries.shape
        query, key, value = (tf.transpose(tf.reshape(one, (samples, length, -1, width)), (0, 2, 1, 3)) for one in (queries, keys, values))
        scores = tf.matmul(query, key, transpose_b=True) / tf.cast(math.sqrt(width), query.dtype)
        hidden = tf.constant(scores.dtype.min, scores.dtype) * (1 - tf.linalg.band_part(tf.ones((length, length), scores.dtype), -1, 0))
        mixed = tf.matmul(tf.nn.softmax(scores + hidden), value)
        return tf.reshape(tf.transpose(mixed, (0, 2, 1, 3)), (samples, length, channels))

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """Return the mean loss, in fp32."""
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32)))


def _padded(size: int) -> list[list[int]]:
    half = [size // 2] * 2
    return [[0, 0], half, half, [0, 0]]
