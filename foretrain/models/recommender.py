"""Recommendation by neural collaborative filtering: a factorisation and a perceptron over user and item vectors."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import ModelError
from foretrain.models.embedding import Embedding
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model, Step
from foretrain.models.patterns import DROPOUT, RELU
from foretrain.models.stream import Streaming, Traffic

PRODUCT = Traffic(forward=3, backward=5, forward_launches=1, backward_launches=2, saved=2)
JOIN = Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collaborative:
    """`users` and `items`, `factors` of the factorisation, `layers` of the perceptron, each half as wide as the one before it.

    Source: He et al., Neural Collaborative Filtering, arXiv:1708.05031, sections 3.2 to 3.4.

    Raises:
        ModelError: where there is no layer.
    """

    name: str
    users: int
    items: int
    factors: int
    layers: int
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a perceptron without layers."""
        if self.layers < 1:
            raise ModelError(f"{self.name}: layers={self.layers} is no perceptron; give at least 1")


def build(spec: Collaborative) -> Model:
    """Return the model; a sample is a pair of user and item."""
    width = spec.factors * 2 ** (spec.layers - 1)
    tables = tuple(
        Embedding(name=f"{part} of {what}", tokens=1, vocab=rows, width=size)
        for part, size in (("factors", spec.factors), ("vectors", width)) for what, rows in (("users", spec.users), ("items", spec.items))
    )  # fmt: skip
    stem: tuple[Step, ...] = (*tables, _stream("product", spec.factors, PRODUCT), _stream("join", 2 * width, JOIN))
    layers = tuple(_layer(spec, number, 2 * width >> number) for number in range(spec.layers))
    head: tuple[Step, ...] = (
        _stream("join", 2 * spec.factors, JOIN),
        Linear(name="score", tokens=1, in_features=2 * spec.factors, out_features=1, bias=True, cut="none"),
        CrossEntropy(name="loss", tokens=1, vocab=1),
    )
    return Model(
        name=spec.name, key=spec.key or spec.name, seq_len=None,
        prologue=(Block(name="tables", steps=stem, input_elements=0),), layers=tuple((layer, 1) for layer in layers),
        epilogue=(Block(name="score", steps=head, input_elements=2 * spec.factors),), tied_parameters=0, tensor_dims={},
        assumed=spec.assumed,
    )  # fmt: skip


def _layer(spec: Collaborative, number: int, width: int) -> Block:
    steps: tuple[Step, ...] = (
        _stream("dropout", width, DROPOUT),
        Linear(name="linear", tokens=1, in_features=width, out_features=width // 2, bias=True, cut="none"),
        _stream("relu", width // 2, RELU),
    )
    return Block(name=f"{spec.name} layer {number}", steps=steps, input_elements=width)


def _stream(name: str, elements: int, traffic: Traffic) -> Streaming:
    return Streaming(name=name, elements=elements, split="none", pattern="", fused=traffic, unfused=traffic)
