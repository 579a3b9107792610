"""DeepSpeech2: two convolutions over a spectrogram, recurrent layers both ways, and characters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from foretrain.models.image_patterns import BATCH_NORM
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model
from foretrain.models.networks.assemble import runs
from foretrain.models.patterns import RESIDUAL_ADD
from foretrain.models.recurrent import Cell, Recurrent
from foretrain.models.stream import Streaming
from foretrain.models.tape import Tape, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSpeech2:
    """`layers` recurrent layers of `hidden` units both ways, summed, over `frames` of `bands` frequency bands.

    A sample is a sequence of `seq_len` frames. The loss is counted as a cross-entropy a step; CTC's own recursion is small beside it.
    Source: Amodei et al., arXiv:1512.02595, section 3; deepspeech.pytorch as MLPerf Training v0.5 had it.
    """

    name: str
    layers: int
    hidden: int
    cell: Cell
    bands: int
    seq_len: int
    characters: int
    key: str = ""
    assumed: tuple[str, ...] = ()


def build(spec: DeepSpeech2) -> Model:
    """Return the model that these dimensions define; `rebuild` makes it again for other lengths."""
    tape = Tape(Tensor(channels=1, size=(spec.bands, spec.seq_len), grad=False))
    # Strides are 2 along both, then along frequency alone.
    tape.conv(32, (41, 11), stride=2, padding=(20, 5), bias=True, name="conv1").norm(relu=True)
    tape.conv(32, (21, 11), stride=(2, 1), padding=(10, 5), bias=True, name="conv2").norm(relu=True)
    bands, steps = tape.tensor.size
    stem = tape.close("convolutions")
    features = [tape.channels * bands, *(spec.hidden,) * (spec.layers - 1)]
    layers = [_layer(spec, steps, inputs, first=not number) for number, inputs in enumerate(features)]
    head = (
        _norm(steps * spec.hidden, spec.hidden),
        Linear(name="characters", tokens=steps, in_features=spec.hidden, out_features=spec.characters, bias=False, cut="none"),
        CrossEntropy(name="loss", tokens=steps, vocab=spec.characters),
    )
    return Model(
        name=spec.name, key=spec.key or spec.name, seq_len=spec.seq_len, hidden=spec.hidden, prologue=(stem,), layers=runs(layers),
        epilogue=(Block(name="head", steps=head, input_elements=steps * spec.hidden),), tied_parameters=0, tensor_dims={},
        rebuild=partial(_at_sequence, spec), assumed=spec.assumed,
    )  # fmt: skip


def _at_sequence(spec: DeepSpeech2, seq_len: int) -> Model:
    return build(replace(spec, seq_len=seq_len))


def _layer(spec: DeepSpeech2, steps: int, inputs: int, *, first: bool) -> Block:
    norm = () if first else (_norm(steps * inputs, inputs),)
    cells = Recurrent(name=spec.cell, cell=spec.cell, steps=steps, in_features=inputs, hidden=spec.hidden, directions=2)
    both = Streaming(name="sum", elements=steps * spec.hidden, split="none", pattern="", fused=RESIDUAL_ADD, unfused=RESIDUAL_ADD)
    return Block(name="recurrent", steps=(*norm, cells, both), input_elements=steps * inputs)


def _norm(elements: int, width: int) -> Streaming:
    return Streaming(name="norm", elements=elements, split="none", pattern="", fused=BATCH_NORM, unfused=BATCH_NORM, parameters=2 * width)
