"""Products and ReLUs one after another, and the models that are no more than blocks of such steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model, Step
from foretrain.models.patterns import RELU
from foretrain.models.stream import Streaming, Traffic


def stream(name: str, elements: int, traffic: Traffic) -> Streaming:
    """Return a memory-bound op that no software fuses."""
    return Streaming(name=name, elements=elements, split="none", pattern="", fused=traffic, unfused=traffic)


def mlp(name: str, sizes: Sequence[int], *, input_grad: bool = True, last_relu: bool = True) -> Iterator[Step]:
    """Yield products from each size to the next, each with a bias and a ReLU, which the next product's input keeps."""
    for number, (ins, outs) in enumerate(pairwise(sizes), 1):
        grad = input_grad or number > 1
        yield Linear(name=f"{name}{number}", tokens=1, in_features=ins, out_features=outs, bias=True, cut="none", input_grad=grad)
        if last_relu or number < len(sizes) - 1:
            yield stream(f"{name}{number}.relu", outs, RELU)


def click_loss() -> Step:
    """Return the loss of one yes or no."""
    return CrossEntropy(name="loss", tokens=1, vocab=1)


def sample_model(spec: Any, tables: Block, dense: Block) -> Model:
    """Return a model of samples without a size: tables first, then all products."""
    return Model(
        name=spec.name, key=spec.key or spec.name, seq_len=None, prologue=(tables,), layers=((dense, 1),), epilogue=(),
        tied_parameters=0, tensor_dims={}, assumed=spec.assumed,
    )  # fmt: skip
