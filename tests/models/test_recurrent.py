"""Recurrent layers: kernels by hand, parameters against torch."""

from __future__ import annotations

from typing import Any

import pytest

from foretrain.models.context import Context
from foretrain.models.load import load_model
from foretrain.models.ops import Gemm, Layout
from foretrain.models.recurrent import Recurrent
from tests.models.test_convnets import flop

LSTM = Recurrent(name="lstm", cell="lstm", steps=5, in_features=6, hidden=8, directions=2)
TWO = Layout(micro_batch=2)


def test_inputs_are_one_product_and_the_state_one_a_step() -> None:
    """10 rows of 6 times both directions' 64 gate values; then 5 steps both ways of 2 rows of 8 times 32."""
    inputs, state, gates = LSTM.forward(TWO)
    assert inputs.gemm == Gemm(batch=1, m=10, n=64, k=6)
    assert (state.gemm, state.launches, state.flop) == (Gemm(batch=1, m=2, n=32, k=8), 10, 10 * 2.0 * 2 * 32 * 8)
    assert (gates.flop, gates.launches) == (0.0, 10)


def test_weights_are_summed_over_all_steps_at_once() -> None:
    """Backward runs twice the FLOPs of forward, the gradients of weights in two products."""
    forward, backward = LSTM.forward(TWO), LSTM.backward(TWO)
    assert sum(kernel.flop for kernel in backward) == 2 * sum(kernel.flop for kernel in forward)
    weights = [kernel for kernel in backward if kernel.name.endswith("wgrad")]
    assert [kernel.gemm for kernel in weights] == [Gemm(batch=1, m=64, n=6, k=10), Gemm(batch=2, m=32, n=8, k=10)]
    assert [kernel.launches for kernel in weights] == [1, 1]


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("directions", [1, 2])
def test_parameters_are_torchs(cell: str, directions: int) -> None:
    """Two weights and two biases a direction."""
    torch = pytest.importorskip("torch")
    layer = getattr(torch.nn, cell.upper())(6, 8, bidirectional=directions == 2)
    op = Recurrent(name="cell", cell=cell, steps=5, in_features=6, hidden=8, directions=directions)
    assert op.parameters == sum(weight.numel() for weight in layer.parameters())


def test_gnmt_is_its_layers_in_torch() -> None:
    """Shared embedding, four LSTMs a side (the first of the encoder both ways), attention, classifier."""
    torch = pytest.importorskip("torch")
    nn, wide = torch.nn, 1024
    with torch.device("meta"):
        parts: list[Any] = [nn.Embedding(32320, wide), nn.LSTM(wide, wide, bidirectional=True), nn.LSTM(2 * wide, wide)]
        parts += [nn.LSTM(wide, wide) for _ in range(3)] + [nn.LSTM(2 * wide, wide) for _ in range(3)]
        parts += [nn.Linear(wide, wide, bias=False) for _ in range(2)] + [nn.Linear(wide, 32320)]
    # The attention's vector, its scale and its bias.
    expected = sum(weight.numel() for part in parts for weight in part.parameters()) + wide + 1 + wide
    assert load_model("gnmt").parameters == expected


def test_deepspeech2_is_its_layers_in_torch() -> None:
    """Two convolutions, five GRUs both ways with normalisations between, characters without a bias."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    with torch.device("meta"):
        parts: list[Any] = [nn.Conv2d(1, 32, (41, 11)), nn.BatchNorm2d(32), nn.Conv2d(32, 32, (21, 11)), nn.BatchNorm2d(32)]
        parts += [nn.GRU(32 * 41, 800, bidirectional=True)] + [nn.GRU(800, 800, bidirectional=True) for _ in range(4)]
        parts += [nn.BatchNorm1d(800) for _ in range(5)] + [nn.Linear(800, 29, bias=False)]
    assert load_model("deepspeech2").parameters == sum(weight.numel() for part in parts for weight in part.parameters())


def test_a_longer_sentence_is_more_steps() -> None:
    """Products grow with the length, the attention with its square."""
    short, long = load_model("gnmt"), load_model("gnmt").at_sequence(100)
    assert long.parameters == short.parameters
    assert 2.0 < flop(long, "forward") / flop(short, "forward") < 2.01


def test_a_context_is_two_products_backward() -> None:
    """Weights of 4 queries over 4 words, vectors of 8."""
    op = Context(name="context", tokens=4, width=8)
    assert [kernel.gemm for kernel in op.forward(TWO) if kernel.gemm] == [Gemm(batch=2, m=4, n=8, k=4)]
    assert sum(kernel.flop for kernel in op.backward(TWO)) == 2 * sum(kernel.flop for kernel in op.forward(TWO))
    assert op.saved_bytes(TWO) == 2 * 16 * 2
