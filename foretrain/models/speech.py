"""Speech recognition: convolutions over a spectrogram, recurrent layers, a loss over labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.errors import ModelError
from foretrain.models.convolution import Conv
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model, Step
from foretrain.models.recurrent import Recurrent
from foretrain.models.stream import Streaming, Traffic

NORM_CLIP = Traffic(forward=5, backward=8, forward_launches=2, backward_launches=2, saved=2)
"""Batch normalisation and a clipped ReLU, apart."""
NORM = Traffic(forward=3, backward=5, forward_launches=1, backward_launches=1, saved=1)
ALIGNMENTS = Traffic(forward=4, backward=4, forward_launches=2, backward_launches=2, saved=2)
"""Softmax and forward variables, then backward variables and gradient of all alignments (Graves et al., ICML 2006, section 4.1)."""
JOIN = Traffic(forward=1.5, backward=1.5, forward_launches=1, backward_launches=1, saved=0)
"""The sum of the two directions: both read and the sum written, over twice its elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """Two convolutions over (bins, frames), `layers` bidirectional LSTM layers of `hidden`, and `labels`.

    Source: Amodei et al., Deep Speech 2, arXiv:1512.02595, section 3.

    Raises:
        ModelError: where there are too few frames for one step.
    """

    name: str
    frames: int
    bins: int
    channels: int
    hidden: int
    layers: int
    labels: int
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse utterances without a step."""
        if self.frames < 2 or self.bins < 4:
            raise ModelError(f"{self.name}: {self.frames} frames of {self.bins} bins leave nothing to recognise; give at least 2 and 4")

    @property
    def steps(self) -> int:
        """Steps of the recurrent layers: the first convolution halves the frames."""
        return -(-self.frames // 2)


def build(spec: Speech) -> Model:
    """Return the model; a sample is an utterance of `frames` frames, which count as its tokens."""
    rows = -(-spec.bins // 4)
    first = tuple(_layer(spec, spec.channels * rows)) if spec.layers else ()
    rest = Block(name="layer", steps=tuple(_layer(spec, spec.hidden)), input_elements=spec.steps * spec.hidden)
    head: tuple[Step, ...] = (
        _norm("head.norm", spec.steps * spec.hidden, 2 * spec.hidden, NORM),
        Linear(name="labels", tokens=spec.steps, in_features=spec.hidden, out_features=spec.labels, bias=False, cut="none"),
        _norm("loss", spec.steps * spec.labels, 0, ALIGNMENTS),
    )
    return Model(
        name=spec.name, key=spec.key or spec.name, seq_len=spec.frames,
        prologue=(Block(name="stem", steps=(*_stem(spec), *first), input_elements=0),),
        layers=((rest, max(1, spec.layers - 1)),),
        epilogue=(Block(name="head", steps=head, input_elements=spec.steps * spec.hidden),),
        tied_parameters=0, tensor_dims={}, hidden=spec.hidden, rebuild=lambda frames: build(replace(spec, frames=frames)),
        assumed=spec.assumed,
    )  # fmt: skip


def _stem(spec: Speech) -> tuple[Step, ...]:
    half, quarter, width, steps = -(-spec.bins // 2), -(-spec.bins // 4), spec.channels, spec.steps
    first = Conv(
        name="conv1", in_channels=1, out_channels=width, in_size=(spec.bins, spec.frames), out_size=(half, steps), kernel=(41, 11),
        stride=(2, 2), bias=True, input_grad=False,
    )  # fmt: skip
    second = Conv(
        name="conv2", in_channels=width, out_channels=width, in_size=(half, steps), out_size=(quarter, steps), kernel=(21, 11),
        stride=(2, 1), bias=True,
    )  # fmt: skip
    return (
        first, _norm("norm1", width * half * steps, 2 * width, NORM_CLIP), second,
        _norm("norm2", width * quarter * steps, 2 * width, NORM_CLIP),
    )  # fmt: skip


def _layer(spec: Speech, inputs: int) -> tuple[Step, ...]:
    """Return a bidirectional layer over inputs of a width: products with the inputs, the recurrence, the sum of the directions."""
    both = 2 * spec.hidden * spec.steps
    return (
        _norm("norm", inputs * spec.steps, 2 * inputs, NORM),
        Recurrent(name="lstm", cell="lstm", steps=spec.steps, in_features=inputs, hidden=spec.hidden, directions=2),
        _norm("join", both, 0, JOIN),
    )


def _norm(name: str, elements: int, parameters: int, traffic: Traffic) -> Streaming:
    return Streaming(name=name, elements=elements, split="none", pattern="", fused=traffic, unfused=traffic, parameters=parameters)
