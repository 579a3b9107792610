"""The networks of cases over the ops of any framework: the same computation as the torch modules of `nets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from foretrain.validate.case import Net
from foretrain.validate.training.second_weights import STEM, Conv, residuals

Weights = Mapping[str, Any]


class Ops(Protocol):
    """What a framework gives the networks. Pictures are channels last, sequences (sample, row, channel)."""

    def enter(self, values: Any) -> Any:
        """Pass what every rank has to layers that tensor-parallel ranks share."""

    def leave(self, values: Any) -> Any:
        """Add up what the ranks' parts gave."""

    def relu(self, values: Any) -> Any:
        """Return the positive part."""

    def gelu(self, values: Any) -> Any:
        """Return GELU, by the error function."""

    def layer_norm(self, values: Any, scale: Any, shift: Any) -> Any:
        """Normalise the last dimension, in fp32."""

    def batch_norm(self, values: Any, scale: Any, shift: Any) -> Any:
        """Normalise every channel over this rank's samples, in fp32."""

    def convolution(self, values: Any, kernel: Any, *, stride: int) -> Any:
        """Convolve, padded by half the kernel."""

    def max_pool(self, values: Any, *, size: int, stride: int) -> Any:
        """Return the largest of each window, padded by half of it."""

    def mean_pool(self, values: Any) -> Any:
        """Return the mean over the picture."""

    def rows(self, table: Any, ids: Any) -> Any:
        """Return the rows of a table, of which tensor-parallel ranks have some each."""

    def attention(self, queries: Any, keys: Any, values: Any, *, width: int) -> Any:
        """Return causal attention of heads so many channels wide."""

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        """Return the mean loss, in fp32, of logits of which tensor-parallel ranks have some classes each."""


def loss_of(net: Net, ops: Ops) -> Callable[[Weights, Any, Any], Any]:
    """Return the mean loss over a batch, of weights, inputs and classes."""
    forward = {"mlp": _mlp, "resnet": _resnet, "gpt": _gpt}[net.kind]

    def loss(weights: Weights, inputs: Any, labels: Any) -> Any:
        return ops.cross_entropy(forward(net.sizes, ops, weights, inputs), labels)

    return loss


def _mlp(sizes: Mapping[str, int], ops: Ops, weights: Weights, inputs: Any) -> Any:
    rows = _linear(weights, "stem", inputs)
    for number in range(sizes["depth"]):
        rows = rows + _perceptron(ops, weights, f"blocks.{number}", rows)
    return _linear(weights, "head", ops.enter(rows))


def _gpt(sizes: Mapping[str, int], ops: Ops, weights: Weights, inputs: Any) -> Any:
    rows = ops.rows(weights["stem.tokens.weight"], inputs) + weights["stem.positions"]
    width = sizes["hidden"] // sizes["heads"]
    for number in range(sizes["layers"]):
        block = f"blocks.{number}"
        rows = rows + _attention(ops, weights, f"{block}.attention", _layer_norm(ops, weights, f"{block}.norm1", rows), width)
        rows = rows + _perceptron(ops, weights, f"{block}.mlp", _layer_norm(ops, weights, f"{block}.norm2", rows))
    return ops.enter(_layer_norm(ops, weights, "head.norm", rows)) @ weights["head.output.weight"]


def _resnet(sizes: Mapping[str, int], ops: Ops, weights: Weights, inputs: Any) -> Any:
    images = ops.max_pool(ops.relu(_convolved(ops, weights, STEM, inputs)), size=3, stride=2)
    for block in residuals(sizes["depth"]):
        inner = images
        for place, conv in enumerate(block.body):
            inner = _convolved(ops, weights, conv, ops.relu(inner) if place else inner)
        beside = images if block.shortcut is None else _convolved(ops, weights, block.shortcut, images)
        images = ops.relu(inner + beside)
    return _linear(weights, "head.2", ops.mean_pool(images))


def _linear(weights: Weights, name: str, rows: Any) -> Any:
    return rows @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _perceptron(ops: Ops, weights: Weights, name: str, rows: Any) -> Any:
    wide = ops.gelu(_linear(weights, f"{name}.up", ops.enter(rows)))
    return ops.leave(wide @ weights[f"{name}.down.weight"]) + weights[f"{name}.down.bias"]


def _attention(ops: Ops, weights: Weights, name: str, rows: Any, width: int) -> Any:
    rows = ops.enter(rows)
    queries, keys, values = (_linear(weights, f"{name}.{one}", rows) for one in ("query", "key", "value"))
    mixed = ops.attention(queries, keys, values, width=width)
    return ops.leave(mixed @ weights[f"{name}.out.weight"]) + weights[f"{name}.out.bias"]


def _layer_norm(ops: Ops, weights: Weights, name: str, rows: Any) -> Any:
    return ops.layer_norm(rows, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _convolved(ops: Ops, weights: Weights, conv: Conv, images: Any) -> Any:
    found = ops.convolution(images, weights[f"{conv.name}.weight"], stride=conv.stride)
    return ops.batch_norm(found, weights[f"{conv.norm}.weight"], weights[f"{conv.norm}.bias"])
